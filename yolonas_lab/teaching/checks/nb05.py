"""Exercises of notebook 05 (DFL and assignment): decode_distances, dfl_loss, task_aligned_assign."""

import torch
from torch import Tensor

from yolonas_lab.teaching.exercises import Case, Mistake, check_cases, show_hint, show_solution

# Material of notebook 05's checks: the pieces that plausible mistakes are made of, and seeded random arguments.


def bins(logits: Tensor) -> Tensor:
    return torch.arange(logits.shape[-1], dtype=logits.dtype)


def corners(distances: Tensor, points: Tensor) -> Tensor:
    return torch.cat([points - distances[:, :2], points + distances[:, 2:]], dim=1)


def two_bins(values: Tensor, distances: Tensor, swap: bool = False) -> Tensor:
    lower = distances.long()
    upper_weight = 1 - (distances - lower) if swap else distances - lower
    both = values.gather(2, torch.stack([lower, lower + 1], dim=-1))  # (n, 4, 2)
    return -((1 - upper_weight) * both[..., 0] + upper_weight * both[..., 1])  # (n, 4)


def variant(
    scores: Tensor,
    iou: Tensor,
    inside: Tensor,
    top_k: int,
    *,
    conflict: str = "iou",
    inside_first: bool = True,
    keep_outside: bool = False,
    quality: str = "object",
    beta: float = 6.0,
) -> tuple[Tensor, Tensor]:
    """The assignment with one thing done differently: what the mistakes are made of."""
    alignment = scores * iou**beta
    picked = (alignment * inside if inside_first else alignment).topk(min(top_k, iou.shape[1]), dim=1).indices
    positive = torch.zeros_like(inside).scatter(1, picked, True)
    positive = positive if keep_outside else positive & inside
    judges = {"pickers": torch.where(positive, iou, -1.0), "alignment": torch.where(positive, alignment, -1.0)}
    winner = torch.arange(len(iou))[:, None] == judges.get(conflict, iou).argmax(dim=0)  # (g, a)
    if conflict == "every point":
        positive = positive & winner
    elif conflict != "none":
        positive = torch.where(positive.sum(dim=0) > 1, winner, positive)
    alignment, fit = alignment * positive, (iou * positive).amax(dim=1, keepdim=True)
    best = alignment.amax(dim=1, keepdim=True) if quality != "image" else alignment.max()
    scaled = alignment / best.clamp(min=1e-9)
    values = {"alignment": alignment, "to one": scaled}.get(quality, scaled * fit)
    return positive, values.amax(dim=0)


def random_sides(seed: int, n: int, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    strides = torch.tensor([8.0, 16, 32])[torch.randint(3, (n, 1), generator=g)]
    return torch.randn(n, 4, bins, generator=g), torch.rand(n, 2, generator=g) * 64, strides


def random_image(seed: int, g: int, a: int) -> tuple[Tensor, Tensor, Tensor, int]:
    """An object's row of scores, IoUs from 0.3 up, and a run of points inside it that overlaps its neighbor's.

    Points outside fit worse than any inside, so that no contested point goes to an object that it lies outside of.
    """
    random = torch.Generator().manual_seed(200 + seed)
    scores, iou = 0.05 + 0.9 * torch.rand(g, a, generator=random), 0.3 + 0.65 * torch.rand(g, a, generator=random)
    inside = torch.zeros(g, a, dtype=torch.bool)
    for j in range(g):
        start = j * a // (g + 1)
        inside[j, start : start + 2 * a // (g + 1)] = True
    return scores, torch.where(inside, iou, iou / 4), inside, 5


def decode_distances(logits: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    strides_away = torch.arange(logits.shape[-1], dtype=logits.dtype)  # (r,)
    distances = (logits.softmax(dim=-1) * strides_away).sum(dim=-1) * strides  # (n, 4) px
    return torch.cat([points - distances[:, :2], points + distances[:, 2:]], dim=1)


def dfl_loss(logits: Tensor, distances: Tensor) -> Tensor:
    lower = distances.long()  # (n, 4)
    fraction = distances - lower
    log_p = logits.log_softmax(dim=-1)  # (n, 4, r)
    log_lower = log_p.gather(2, lower[..., None])[..., 0]  # (n, 4)
    log_upper = log_p.gather(2, lower[..., None] + 1)[..., 0]
    return -((1 - fraction) * log_lower + fraction * log_upper).mean(dim=1)


def task_aligned_assign(scores: Tensor, iou: Tensor, inside: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    alignment = scores * iou**6  # (g, a)
    picked = (alignment * inside).topk(min(top_k, inside.shape[1]), dim=1).indices
    positive = torch.zeros_like(inside).scatter(1, picked, True) & inside  # (g, a)
    fits_best = torch.arange(len(iou))[:, None] == iou.argmax(dim=0)  # (g, a) one object for each point
    positive = torch.where(positive.sum(dim=0) > 1, fits_best, positive)
    alignment, iou = alignment * positive, iou * positive
    best_alignment = alignment.amax(dim=1, keepdim=True).clamp(min=1e-9)  # (g, 1)
    quality = alignment / best_alignment * iou.amax(dim=1, keepdim=True)
    return positive, quality.amax(dim=0)


SOLUTIONS = {"decode_distances": decode_distances, "dfl_loss": dfl_loss, "task_aligned_assign": task_aligned_assign}
HINTS = {
    "decode_distances": (
        "Three steps: logits to probabilities, probabilities to four expected distances, distances to corners.",
        "Softmax over the last axis; sum probability · bin over that axis, where the bins are 0, 1, …, r-1; "
        "then multiply by the stride to get pixels.",
        "distances is (n, 4): left, top, right, bottom. The left top corner is points - distances[:, :2], the right "
        "bottom corner is points + distances[:, 2:].",
    ),
    "dfl_loss": (
        "The target of each side is a distribution that is 0 everywhere but on the two bins beside the distance.",
        "lower = distances.long() is the bin to the left, fraction = distances - lower the weight of the bin to the "
        "right; the left one has weight 1 - fraction.",
        "log_p = logits.log_softmax(-1); log_p.gather(2, lower[..., None]) picks the lower bins, lower + 1 the upper "
        "ones. Weight, add, negate, and take the mean over the four sides.",
    ),
    "task_aligned_assign": (
        "Work on (g, a) matrices: one row for each object, one column for each point. Compute alignment, pick the best "
        "per row, repair columns with two picks, then scale per row.",
        "topk on alignment · inside gives each row's picks; `& inside` drops picks of a row with fewer than top_k "
        "points. A column with several picks is written anew: True at iou.argmax(dim=0) alone.",
        "After the repair: alignment · positive, divided by its row maximum (clamp it, a row may be empty), times the "
        "row maximum of iou · positive. The quality of a point is the maximum of its column.",
    ),
}


def hint(name: str, level: int = 1) -> None:
    """Print a hint for an exercise of this notebook; level 1 is the gentlest."""
    show_hint(HINTS, name, level)


def solution(name: str) -> None:
    """Print the reference solution of an exercise of this notebook."""
    show_solution(SOLUTIONS, name)


def check_decode_distances(fn) -> None:
    """Check decode_distances(logits (n, 4, r), points (n, 2), strides (n, 1)) -> (n, 4)."""
    hand = torch.full((1, 4, 3), 1 / 3).log(), torch.tensor([[20.0, 30.0]]), torch.tensor([[8.0]])
    cases = [Case(hand, torch.tensor([[12.0, 22, 28, 38]]), "three equal bins: one stride, 8 px, to each side")]
    for seed, (n, r) in enumerate([(1, 4), (5, 9), (3, 17)]):
        arguments = random_sides(seed, n, r)
        cases.append(Case(arguments, decode_distances(*arguments), f"{n} points, {r} bins, random"))
    check_cases(
        "decode_distances",
        fn,
        cases,
        [
            Mistake(
                lambda x, p, s: corners(x.argmax(-1) * s, p),
                "this takes the likeliest bin; the expectation uses all of them, so that it can lie between two bins.",
            ),
            Mistake(
                lambda x, p, s: corners(x.softmax(-1) @ bins(x), p),
                "the bins count strides, not pixels: multiply by the stride.",
            ),
            Mistake(
                lambda x, p, s: corners(x @ bins(x) * s, p),
                "logits are no probabilities yet: softmax over the bins comes first.",
            ),
            Mistake(
                lambda x, p, s: corners(x.softmax(-1) @ (bins(x) + 1) * s, p),
                "the first bin stands for distance 0, not 1.",
            ),
            Mistake(
                lambda x, p, s: p.repeat(1, 2) + x.softmax(-1) @ bins(x) * s,
                "left and top distances go to the left and up: subtract them from the point.",
            ),
            Mistake(
                lambda x, p, s: corners(x.softmax(1) @ bins(x) * s, p),
                "this softmax runs over the four sides; it must run over the bins, the last axis.",
            ),
        ],
    )


def check_dfl_loss(fn) -> None:
    """Check dfl_loss(logits (n, 4, r), distances (n, 4)) -> (n,)."""
    hand = torch.tensor([0.1, 0.5, 0.3, 0.1]).log().expand(1, 4, 4).clone(), torch.full((1, 4), 1.25)
    cases = [Case(hand, dfl_loss(*hand), "four times the side of the text, at 1.25")]
    whole = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(9)), torch.tensor([[0.0, 1, 2, 3]] * 2)
    cases.append(Case(whole, dfl_loss(*whole), "distances that fall exactly on a bin"))
    for seed, (n, r) in enumerate([(1, 4), (5, 9)]):
        logits = 3 * random_sides(seed, n, r)[0]
        distances = torch.rand(n, 4, generator=torch.Generator().manual_seed(50 + seed)) * (r - 1.01)
        cases.append(Case((logits, distances), dfl_loss(logits, distances), f"{n} points, {r} bins, random"))
    check_cases(
        "dfl_loss",
        fn,
        cases,
        [
            Mistake(
                lambda x, d: two_bins(x.log_softmax(-1), d, swap=True).mean(1),
                "the two weights are swapped: a distance of 1.25 lies nearer to bin 1, which gets 0.75.",
            ),
            Mistake(
                lambda x, d: -x.log_softmax(-1).gather(2, d.round().long()[..., None])[..., 0].mean(1),
                "this teaches the nearest bin alone, so no distance between two bins could ever be learned.",
            ),
            Mistake(
                lambda x, d: -x.log_softmax(-1).gather(2, d.long()[..., None])[..., 0].mean(1),
                "this teaches the lower bin alone; the upper one has a share too.",
            ),
            Mistake(
                lambda x, d: two_bins(x.log_softmax(-1), d).sum(1),
                "take the mean over the four sides, not their sum.",
            ),
            Mistake(
                lambda x, d: two_bins(x.log_softmax(-1), d).mean(),
                "one number for each point is wanted, (n,): take the mean over the sides only.",
            ),
            Mistake(
                lambda x, d: two_bins(x, d).mean(1),
                "a cross-entropy takes the logarithm of probabilities: log_softmax over the bins is missing.",
            ),
            Mistake(
                lambda x, d: -two_bins(x.log_softmax(-1), d).mean(1),
                "the sign: a likely bin should give a small loss.",
            ),
        ],
    )


def check_task_aligned_assign(fn) -> None:
    """Check task_aligned_assign(scores, iou, inside, top_k) with (g, a) matrices -> positive (g, a), quality (a,)."""
    shared = (
        torch.tensor([[0.9, 0.5, 0.8, 0.3], [0.2, 0.3, 0.3, 0.6]]),
        torch.tensor([[0.5, 0.8, 0.7, 0.2], [0.1, 0.5, 0.8, 0.9]]),
        torch.tensor([[1, 1, 1, 0], [0, 1, 1, 1]]).bool(),
        2,
    )
    third = (
        torch.tensor([[0.9, 0.1, 0.1], [0.8, 0.1, 0.1], [0.1, 0.9, 0.1]]),
        torch.tensor([[0.6, 0.5, 0.5], [0.7, 0.5, 0.5], [0.8, 0.9, 0.5]]),
        torch.ones(3, 3, dtype=torch.bool),
        1,
    )
    lonely = torch.tensor([[0.9, 0.4, 0.3]]), torch.tensor([[0.9, 0.6, 0.5]]), torch.tensor([[0, 1, 1]]).bool(), 1
    few = torch.tensor([[0.9, 0.4, 0.3]]), torch.tensor([[0.9, 0.6, 0.5]]), torch.tensor([[0, 1, 0]]).bool(), 2
    cases = [
        Case(shared, task_aligned_assign(*shared), "two objects that want the same point"),
        Case(third, task_aligned_assign(*third), "two objects want a point that fits a third one best"),
        Case(lonely, task_aligned_assign(*lonely), "the best prediction comes from a point outside"),
        Case(few, task_aligned_assign(*few), "fewer points inside than top_k"),
    ]
    for seed, (g, a) in enumerate([(1, 8), (3, 20), (4, 30)]):
        arguments = random_image(seed, g, a)
        cases.append(Case(arguments, task_aligned_assign(*arguments), f"{g} objects, {a} points, random"))
    check_cases(
        "task_aligned_assign",
        fn,
        cases,
        [
            Mistake(
                lambda s, i, n, k: variant(s, i, n, k, conflict="none"),
                "a point that two objects picked is still positive for both; it must end with one of them.",
            ),
            Mistake(
                lambda s, i, n, k: variant(s, i, n, k, conflict="pickers"),
                "a contested point goes to the object with the largest IoU of all objects, also one that did not pick "
                "it.",
            ),
            Mistake(
                lambda s, i, n, k: variant(s, i, n, k, conflict="every point"),
                "only points that several objects picked change hands; every other pick stays with its object.",
            ),
            Mistake(
                lambda s, i, n, k: variant(s, i, n, k, conflict="alignment"),
                "a contested point goes to the object with the largest IoU, not the largest alignment.",
            ),
            Mistake(
                lambda s, i, n, k: variant(s, i, n, k, inside_first=False),
                "points outside took part in the choice of the top_k: exclude them before topk.",
            ),
            Mistake(
                lambda s, i, n, k: variant(s, i, n, k, keep_outside=True),
                "with fewer than top_k points inside, topk fills up with points outside: remove those.",
            ),
            Mistake(
                lambda s, i, n, k: variant(s, i, n, k, quality="alignment"),
                "the positives are right; the quality must be scaled so that each object's best point gets its best "
                "IoU.",
            ),
            Mistake(
                lambda s, i, n, k: variant(s, i, n, k, quality="to one"),
                "the positives are right; each object's best quality should be the best IoU of its positives, not 1.",
            ),
            Mistake(
                lambda s, i, n, k: variant(s, i, n, k, quality="image"),
                "the positives are right; scale by the best alignment of each object, not of the whole image.",
            ),
            Mistake(
                lambda s, i, n, k: variant(s, i, n, k, beta=1.0),
                "alignment = score · IoU^6: the exponent of IoU is missing.",
            ),
        ],
        tolerance=1e-4,
    )
