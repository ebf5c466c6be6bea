"""Exercises of notebook 05 (DFL and assignment): decode_distances, dfl_loss, task_aligned_assign."""

import torch
from torch import Tensor

from yolonas_lab.teaching.exercises import Case, Exercise, Exercises


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


def random_sides(seed: int, n: int, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (n, 4, bins), points (n, 2) and strides (n, 1)."""
    g = torch.Generator().manual_seed(seed)
    strides = torch.tensor([8.0, 16, 32])[torch.randint(3, (n, 1), generator=g)]
    return torch.randn(n, 4, bins, generator=g), torch.rand(n, 2, generator=g) * 64, strides


def _random_image(seed: int, g: int, a: int) -> tuple[Tensor, Tensor, Tensor, int]:
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


def _decode_cases() -> list[Case]:
    hand = torch.full((1, 4, 3), 1 / 3).log(), torch.tensor([[20.0, 30.0]]), torch.tensor([[8.0]])
    return [
        Case(hand, "three equal bins: one stride, 8 px, to each side", torch.tensor([[12.0, 22, 28, 38]])),
        Case(random_sides(0, n=1, bins=4), "1 points, 4 bins, random"),
        Case(random_sides(1, n=5, bins=9), "5 points, 9 bins, random"),
        Case(random_sides(2, n=3, bins=17), "3 points, 17 bins, random"),
    ]


def _dfl_cases() -> list[Case]:
    side = torch.tensor([0.1, 0.5, 0.3, 0.1]).log().expand(1, 4, 4).clone()
    whole = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(9)), torch.tensor([[0.0, 1, 2, 3]] * 2)
    cases = [
        Case((side, torch.full((1, 4), 1.25)), "four times the side of the text, at 1.25"),
        Case(whole, "distances that fall exactly on a bin"),
    ]
    for seed, (n, r) in enumerate([(1, 4), (5, 9)]):
        distances = torch.rand(n, 4, generator=torch.Generator().manual_seed(50 + seed)) * (r - 1.01)
        cases.append(Case((3 * random_sides(seed, n, r)[0], distances), f"{n} points, {r} bins, random"))
    return cases


def _assign_cases() -> list[Case]:
    shared = (
        torch.tensor([[0.9, 0.5, 0.8, 0.3], [0.2, 0.3, 0.3, 0.6]]),
        torch.tensor([[0.5, 0.8, 0.7, 0.2], [0.1, 0.5, 0.8, 0.9]]),
        torch.tensor([[1, 1, 1, 0], [0, 1, 1, 1]]).bool(),
    )
    third = (
        torch.tensor([[0.9, 0.1, 0.1], [0.8, 0.1, 0.1], [0.1, 0.9, 0.1]]),
        torch.tensor([[0.6, 0.5, 0.5], [0.7, 0.5, 0.5], [0.8, 0.9, 0.5]]),
        torch.ones(3, 3, dtype=torch.bool),
    )
    scores, iou = torch.tensor([[0.9, 0.4, 0.3]]), torch.tensor([[0.9, 0.6, 0.5]])
    return [
        Case((*shared, 2), "two objects that want the same point"),
        Case((*third, 1), "two objects want a point that fits a third one best"),
        Case((scores, iou, torch.tensor([[0, 1, 1]]).bool(), 1), "the best prediction comes from a point outside"),
        Case((scores, iou, torch.tensor([[0, 1, 0]]).bool(), 2), "fewer points inside than top_k"),
        Case(_random_image(0, g=1, a=8), "1 objects, 8 points, random"),
        Case(_random_image(1, g=3, a=20), "3 objects, 20 points, random"),
        Case(_random_image(2, g=4, a=30), "4 objects, 30 points, random"),
    ]


EXERCISES = Exercises(
    Exercise(
        decode_distances,
        hints=(
            "Three steps: logits to probabilities, probabilities to four expected distances, distances to corners.",
            "Softmax over the last axis; sum probability · bin over that axis, where the bins are 0, 1, …, r-1; "
            "then multiply by the stride to get pixels.",
            "distances is (n, 4): left, top, right, bottom. The left top corner is points - distances[:, :2], the "
            "right bottom corner is points + distances[:, 2:].",
        ),
        cases=_decode_cases,
        mistakes={
            "(logits.softmax(dim=-1) * strides_away).sum(dim=-1) -> logits.argmax(dim=-1)": "this takes the likeliest "
            "bin; the expectation uses all of them, so that it can lie between two bins.",
            ".sum(dim=-1) * strides -> .sum(dim=-1)": "the bins count strides, not pixels: multiply by the stride.",
            "logits.softmax(dim=-1) -> logits": "logits are no probabilities yet: softmax over the bins comes first.",
            "* strides_away -> * (strides_away + 1)": "the first bin stands for distance 0, not 1.",
            "points - -> points +": "left and top distances go to the left and up: subtract them from the point.",
            "softmax(dim=-1) -> softmax(dim=1)": "this softmax runs over the four sides; it must run over the bins, "
            "the last axis.",
        },
    ),
    Exercise(
        dfl_loss,
        hints=(
            "The target of each side is a distribution that is 0 everywhere but on the two bins beside the distance.",
            "lower = distances.long() is the bin to the left, fraction = distances - lower the weight of the bin to "
            "the right; the left one has weight 1 - fraction.",
            "log_p = logits.log_softmax(-1); log_p.gather(2, lower[..., None]) picks the lower bins, lower + 1 the "
            "upper ones. Weight, add, negate, and take the mean over the four sides.",
        ),
        cases=_dfl_cases,
        mistakes={
            "(1 - fraction) * log_lower + fraction * log_upper -> fraction * log_lower + (1 - fraction) * log_upper": (
                "the two weights are swapped: a distance of 1.25 lies nearer to bin 1, which gets 0.75."
            ),
            "distances - lower -> (distances - lower).round()": "this teaches the nearest bin alone, so no distance "
            "between two bins could ever be learned.",
            ".mean(dim=1) -> .sum(dim=1)": "take the mean over the four sides, not their sum.",
            ".mean(dim=1) -> .mean()": "one number for each point is wanted, (n,): take the mean over the sides only.",
            ".log_softmax(dim=-1) ->": "a cross-entropy takes the logarithm of probabilities: log_softmax over the "
            "bins is missing.",
            "return -( -> return (": "the sign: a likely bin should give a small loss.",
        },
    ),
    Exercise(
        task_aligned_assign,
        hints=(
            "Work on (g, a) matrices: one row for each object, one column for each point. Compute alignment, pick the "
            "best per row, repair columns with two picks, then scale per row.",
            "topk on alignment · inside gives each row's picks; `& inside` drops picks of a row with fewer than top_k "
            "points. A column with several picks is written anew: True at iou.argmax(dim=0) alone.",
            "After the repair: alignment · positive, divided by its row maximum (clamp it, a row may be empty), times "
            "the row maximum of iou · positive. The quality of a point is the maximum of its column.",
        ),
        cases=_assign_cases,
        tolerance=1e-4,
        mistakes={
            "positive = torch.where(positive.sum(dim=0) > 1, fits_best, positive) ->": "a point that two objects "
            "picked is still positive for both; it must end with one of them.",
            "iou.argmax -> (iou * positive).argmax": "a contested point goes to the object with the largest IoU of all "
            "objects, also one that did not pick it.",
            "torch.where(positive.sum(dim=0) > 1, fits_best, positive) -> positive & fits_best": "only points that "
            "several objects picked change hands; every other pick stays with its object.",
            "iou.argmax -> (alignment * positive).argmax": "a contested point goes to the object with the largest IoU, "
            "not the largest alignment.",
            "(alignment * inside).topk -> alignment.topk": "points outside took part in the choice of the top_k: "
            "exclude them before topk.",
            ", True) & inside -> , True)": "with fewer than top_k points inside, topk fills up with points outside: "
            "remove those.",
            "alignment / best_alignment * iou.amax(dim=1, keepdim=True) -> alignment": "the positives are right; the "
            "quality must be scaled so that each object's best point gets its best IoU.",
            "* iou.amax(dim=1, keepdim=True) ->": "the positives are right; each object's best quality should be the "
            "best IoU of its positives, not 1.",
            "alignment.amax(dim=1, keepdim=True) -> alignment.max()": "the positives are right; scale by the best "
            "alignment of each object, not of the whole image.",
            "iou**6 -> iou": "alignment = score · IoU^6: the exponent of IoU is missing.",
        },
    ),
)
hint, solution = EXERCISES.hint, EXERCISES.solution
check_decode_distances, check_dfl_loss = EXERCISES["decode_distances"].check, EXERCISES["dfl_loss"].check
check_task_aligned_assign = EXERCISES["task_aligned_assign"].check
