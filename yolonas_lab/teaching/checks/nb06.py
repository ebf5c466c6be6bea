"""Exercises of notebook 06 (training): collate, warmup_cosine, ema_update."""

import math

import torch
from torch import Tensor

from yolonas_lab.teaching.exercises import Case, Mistake, check_cases, show_hint, show_solution

Example = tuple[Tensor, Tensor, Tensor]  # image (3, s, s), boxes (n, 4), labels (n,)


def collate(examples: list[Example]) -> tuple[Tensor, Tensor]:
    images = torch.stack([image for image, _, _ in examples])  # (b, 3, s, s)
    rows = [torch.zeros(0, 6)]
    for number, (_, boxes, labels) in enumerate(examples):
        column = torch.full((len(boxes), 1), float(number))
        rows.append(torch.cat([column, labels[:, None].float(), boxes], dim=1))  # (n, 6)
    return images, torch.cat(rows)


def warmup_cosine(
    step: int, total_steps: int, lr: float, warmup_steps: int, warmup_start_lr: float, final_lr_ratio: float
) -> float:
    if step < warmup_steps:
        return warmup_start_lr + (lr - warmup_start_lr) * step / warmup_steps
    share = (step - warmup_steps) / (total_steps - warmup_steps)
    return lr * (final_lr_ratio + (1 - final_lr_ratio) * (1 + math.cos(math.pi * share)) / 2)


def ema_update(average: list[Tensor], live: list[Tensor], updates: int, decay: float) -> list[Tensor]:
    keep = min(decay, (1 + updates) / (10 + updates))
    return [keep * a + (1 - keep) * w for a, w in zip(average, live, strict=True)]


SOLUTIONS = {"collate": collate, "warmup_cosine": warmup_cosine, "ema_update": ema_update}
HINTS = {
    "collate": (
        "Compare the picture numbers that the function writes with the pictures of the batch. From which picture on "
        "are they wrong, and what is special about that one?",
        "The function leaves out the empty images and numbers what is left. An empty image adds no rows, but it must "
        "still be counted.",
        "enumerate(examples) itself, without leaving any out. Let the list of rows begin with torch.zeros(0, 6), so "
        "that torch.cat has something to glue when every image is empty.",
    ),
    "warmup_cosine": (
        "There are two cases; an `if` on step < warmup_steps separates them. What is the rate at both ends of each?",
        "On the way down, first compute the share of the descent that is behind us: 0 at step warmup_steps, 1 at step "
        "total_steps. Half a cosine then falls from 1 to 0: (1 + cos(pi * share)) / 2.",
        "share = (step - warmup_steps) / (total_steps - warmup_steps), and the rate is "
        "lr * (final_lr_ratio + (1 - final_lr_ratio) * (1 + math.cos(math.pi * share)) / 2).",
    ),
    "ema_update": (
        "First find how much of the old average is kept at this update: the smaller of two numbers.",
        "keep = min(decay, (1 + updates) / (10 + updates)). The rest, 1 - keep, is the share of the live weights.",
        "For each pair of tensors a, w: keep * a + (1 - keep) * w, collected in a new list.",
    ),
}


def hint(name: str, level: int = 1) -> None:
    """Print a hint for an exercise of this notebook; level 1 is the gentlest."""
    show_hint(HINTS, name, level)


def solution(name: str) -> None:
    """Print the reference solution of an exercise of this notebook."""
    show_solution(SOLUTIONS, name)


def check_collate(fn) -> None:
    """Check collate(examples) -> (images (b, 3, s, s), rows (N, 6))."""
    batches = {
        "two images with one box each": [1, 1],
        "an image without boxes between two others": [2, 0, 1],
        "the first image without boxes": [0, 3, 1],
        "no boxes at all": [0, 0],
        "eight images, some without boxes": [1, 0, 0, 3, 2, 0, 1, 2],
    }
    cases = []
    for seed, (about, counts) in enumerate(batches.items()):
        examples = _random_examples(seed, counts)
        cases.append(Case((examples,), collate(examples), about))
    check_cases(
        "collate",
        fn,
        cases,
        [
            Mistake(
                _numbers_without_empty,
                "an image without boxes is not counted, so the boxes after it are written to the image before theirs.",
            ),
            Mistake(
                _without_empty_images,
                "images without boxes belong into the batch too: they teach the network what the background is.",
            ),
            Mistake(
                lambda examples: _with_columns(examples, [0, 2, 3, 4, 5, 1]),
                "each row is image number, label, x1, y1, x2, y2: the label comes before the box.",
            ),
            Mistake(
                lambda examples: _with_columns(examples, [1, 0, 2, 3, 4, 5]),
                "image number and label have changed places; the image number comes first.",
            ),
            Mistake(_counted_from_one, "images are numbered from 0, as the images' tensor is."),
        ],
    )


def check_warmup_cosine(fn) -> None:
    """Check warmup_cosine(step, total_steps, lr, warmup_steps, warmup_start_lr, final_lr_ratio) -> number."""
    moments = {
        "the first step": (0, 900, 0.01, 100, 1e-4, 0.1),
        "halfway up": (50, 900, 0.01, 100, 1e-4, 0.1),
        "the peak": (100, 900, 0.01, 100, 1e-4, 0.1),
        "halfway down": (500, 900, 0.01, 100, 1e-4, 0.1),
        "a quarter of the way down": (300, 900, 0.01, 100, 1e-4, 0.1),
        "the end": (900, 900, 0.01, 100, 1e-4, 0.1),
        "no warm-up": (0, 50, 0.5, 0, 0.0, 0.0),
        "no warm-up, down to 0": (50, 50, 0.5, 0, 0.0, 0.0),
        "a final ratio of 1": (37, 50, 0.5, 10, 0.01, 1.0),
    }
    check_cases(
        "warmup_cosine",
        fn,
        [Case(arguments, warmup_cosine(*arguments), about) for about, arguments in moments.items()],
        [
            Mistake(
                lambda t, n, lr, w, s, r: lr * t / w if t < w else warmup_cosine(t, n, lr, w, s, r),
                "the warm-up starts at warmup_start_lr, not at 0.",
            ),
            Mistake(
                lambda t, n, lr, w, s, r: s + lr * t / w if t < w else warmup_cosine(t, n, lr, w, s, r),
                "the warm-up climbs by lr - warmup_start_lr, so that it ends at lr.",
            ),
            Mistake(
                lambda t, n, lr, w, s, r: warmup_cosine(t, n, lr, w, s, r) if t < w else _cosine(t / n, lr, r),
                "the cosine begins where the warm-up ends: count its steps from warmup_steps, not from 0.",
            ),
            Mistake(
                lambda t, n, lr, w, s, r: warmup_cosine(t, n, lr, w, s, r if t < w else 0.0),
                "the cosine ends at lr * final_lr_ratio, not at 0.",
            ),
            Mistake(
                lambda t, n, lr, w, s, r: warmup_cosine(t, n, lr, w, s, 0.0) + (lr * r if t >= w else 0.0),
                "with the final rate added on top the peak is above lr: give the cosine only 1 - final_lr_ratio.",
            ),
            Mistake(
                lambda t, n, lr, w, s, r: (
                    warmup_cosine(t, n, lr, w, s, r) if t < w else _cosine(2 * (t - w) / (n - w), lr, r)
                ),
                "half a cosine, from 0 to pi: with 2 * pi the rate would climb back to its peak.",
            ),
            Mistake(
                lambda t, n, lr, w, s, r: (
                    warmup_cosine(t, n, lr, w, s, r) if t < w else lr * (1 - (1 - r) * (t - w) / (n - w))
                ),
                "this falls along a straight line; take (1 + cos(pi * share)) / 2 instead of 1 - share.",
            ),
        ],
        tolerance=1e-6,
    )


def check_ema_update(fn) -> None:
    """Check ema_update(average, live, updates, decay) -> list of tensors."""
    hand = ([torch.tensor([0.0])], [torch.tensor([1.0])], 1, 0.98)
    cases = [Case(hand, ema_update(*hand), "by hand: 9/11 of the live weight")]
    for seed, (updates, decay) in enumerate([(5, 0.9), (1000, 0.98), (40, 0.9997), (3, 0.1)]):
        g = torch.Generator().manual_seed(seed)
        average, live = ([torch.randn(shape, generator=g) for shape in ((3,), (2, 2, 3))] for _ in range(2))
        arguments = (average, live, updates, decay)
        cases.append(Case(arguments, ema_update(*arguments), f"update {updates}, decay {decay}"))
    check_cases(
        "ema_update",
        fn,
        cases,
        [
            Mistake(
                lambda a, w, t, d: [d * x + (1 - d) * y for x, y in zip(a, w, strict=True)],
                "the ramp is missing: keep the smaller of decay and (1 + t) / (10 + t), so less at first.",
            ),
            Mistake(
                lambda a, w, t, d: ema_update(w, a, t, d),
                "average and live have changed places: it is the average of which most is kept.",
            ),
            Mistake(
                lambda a, w, t, d: ema_update(a, w, t, 1.0),
                "the ramp goes on for ever: beyond decay it must not grow (the smaller of the two counts).",
            ),
            Mistake(
                lambda a, w, t, d: ema_update(a, w, t - 1, d),
                "updates counts from 1 and goes into the ramp as it is: (1 + t) / (10 + t), which is 2/11 at first.",
            ),
        ],
    )


def _random_examples(seed: int, counts: list[int]) -> list[Example]:
    """One example per count of boxes; images of 2 x 2 px are enough to see their order."""
    g = torch.Generator().manual_seed(seed)
    examples = []
    for count in counts:
        corners = torch.randint(0, 30, (count, 2), generator=g).float()
        boxes = torch.cat([corners, corners + torch.randint(1, 30, (count, 2), generator=g)], dim=1)  # (count, 4)
        labels = torch.randint(2, 6, (count,), generator=g)
        examples.append((torch.rand(3, 2, 2, generator=g), boxes, labels))
    return examples


def _numbers_without_empty(examples: list[Example]) -> tuple[Tensor, Tensor]:
    images, _ = collate(examples)
    return images, collate([example for example in examples if len(example[1])])[1]


def _without_empty_images(examples: list[Example]) -> tuple[Tensor, Tensor]:
    return collate([example for example in examples if len(example[1])])


def _with_columns(examples: list[Example], order: list[int]) -> tuple[Tensor, Tensor]:
    images, rows = collate(examples)
    return images, rows[:, order]


def _counted_from_one(examples: list[Example]) -> tuple[Tensor, Tensor]:
    images, rows = collate(examples)
    return images, rows + torch.tensor([1.0, 0, 0, 0, 0, 0])


def _cosine(share: float, lr: float, final_lr_ratio: float) -> float:
    return lr * (final_lr_ratio + (1 - final_lr_ratio) * (1 + math.cos(math.pi * share)) / 2)
