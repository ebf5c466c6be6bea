"""Exercises of notebook 06 (training): collate, warmup_cosine, ema_update."""

import math

import torch
from torch import Tensor

from yolonas_lab.teaching.exercises import Case, Exercise, Exercises

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


def _ema_cases() -> list[Case]:
    cases = [Case(([torch.tensor([0.0])], [torch.tensor([1.0])], 1, 0.98), "by hand: 9/11 of the live weight")]
    for seed, (updates, decay) in enumerate([(5, 0.9), (1000, 0.98), (40, 0.9997), (3, 0.1)]):
        g = torch.Generator().manual_seed(seed)
        average, live = ([torch.randn(shape, generator=g) for shape in ((3,), (2, 2, 3))] for _ in range(2))
        cases.append(Case((average, live, updates, decay), f"update {updates}, decay {decay}"))
    return cases


EXERCISES = Exercises(
    Exercise(
        collate,
        hints=(
            "Compare the picture numbers that the function writes with the pictures of the batch. From which picture "
            "on are they wrong, and what is special about that one?",
            "The function leaves out the empty images and numbers what is left. An empty image adds no rows, but it "
            "must still be counted.",
            "enumerate(examples) itself, without leaving any out. Let the list of rows begin with torch.zeros(0, 6), "
            "so that torch.cat has something to glue when every image is empty.",
        ),
        cases=[
            Case((_random_examples(0, [1, 1]),), "two images with one box each"),
            Case((_random_examples(1, [2, 0, 1]),), "an image without boxes between two others"),
            Case((_random_examples(2, [0, 3, 1]),), "the first image without boxes"),
            Case((_random_examples(3, [0, 0]),), "no boxes at all"),
            Case((_random_examples(4, [1, 0, 0, 3, 2, 0, 1, 2]),), "eight images, some without boxes"),
        ],
        mistakes={
            "enumerate(examples) -> enumerate(e for e in examples if len(e[1]))": "an image without boxes is not "
            "counted, so the boxes after it are written to the image before theirs.",
            "images = -> examples = [e for e in examples if len(e[1])]; images =": "images without boxes belong into "
            "the batch too: they teach the network what the background is.",
            "labels[:, None].float(), boxes] -> boxes, labels[:, None].float()]": "each row is image number, label, "
            "x1, y1, x2, y2: the label comes before the box.",
            "[column, labels[:, None].float() -> [labels[:, None].float(), column": "image number and label have "
            "changed places; the image number comes first.",
            "float(number) -> float(number + 1)": "images are numbered from 0, as the images' tensor is.",
        },
    ),
    Exercise(
        warmup_cosine,
        hints=(
            "There are two cases; an `if` on step < warmup_steps separates them. What is the rate at both ends of "
            "each?",
            "On the way down, first compute the share of the descent that is behind us: 0 at step warmup_steps, 1 at "
            "step total_steps. Half a cosine then falls from 1 to 0: (1 + cos(pi * share)) / 2.",
            "share = (step - warmup_steps) / (total_steps - warmup_steps), and the rate is "
            "lr * (final_lr_ratio + (1 - final_lr_ratio) * (1 + math.cos(math.pi * share)) / 2).",
        ),
        cases=[
            Case((0, 900, 0.01, 100, 1e-4, 0.1), "the first step"),
            Case((50, 900, 0.01, 100, 1e-4, 0.1), "halfway up"),
            Case((100, 900, 0.01, 100, 1e-4, 0.1), "the peak"),
            Case((500, 900, 0.01, 100, 1e-4, 0.1), "halfway down"),
            Case((300, 900, 0.01, 100, 1e-4, 0.1), "a quarter of the way down"),
            Case((900, 900, 0.01, 100, 1e-4, 0.1), "the end"),
            Case((0, 50, 0.5, 0, 0.0, 0.0), "no warm-up"),
            Case((50, 50, 0.5, 0, 0.0, 0.0), "no warm-up, down to 0"),
            Case((37, 50, 0.5, 10, 0.01, 1.0), "a final ratio of 1"),
        ],
        tolerance=1e-6,
        mistakes={
            "warmup_start_lr + (lr - warmup_start_lr) * step -> lr * step": "the warm-up starts at warmup_start_lr, "
            "not at 0.",
            "(lr - warmup_start_lr) * step -> lr * step": "the warm-up climbs by lr - warmup_start_lr, so that it ends "
            "at lr.",
            "(step - warmup_steps) / (total_steps - warmup_steps) -> step / total_steps": "the cosine begins where the "
            "warm-up ends: count its steps from warmup_steps, not from 0.",
            "final_lr_ratio + (1 - final_lr_ratio) * ( -> (": "the cosine ends at lr * final_lr_ratio, not at 0.",
            "(1 - final_lr_ratio) * ( -> (": "with the final rate added on top the peak is above lr: give the cosine "
            "only 1 - final_lr_ratio.",
            "math.pi * share -> 2 * math.pi * share": "half a cosine, from 0 to pi: with 2 * pi the rate would climb "
            "back to its peak.",
            "(1 + math.cos(math.pi * share)) / 2 -> (1 - share)": "this falls along a straight line; take (1 + cos(pi "
            "* share)) / 2 instead of 1 - share.",
        },
    ),
    Exercise(
        ema_update,
        hints=(
            "First find how much of the old average is kept at this update: the smaller of two numbers.",
            "keep = min(decay, (1 + updates) / (10 + updates)). The rest, 1 - keep, is the share of the live weights.",
            "For each pair of tensors a, w: keep * a + (1 - keep) * w, collected in a new list.",
        ),
        cases=_ema_cases,
        mistakes={
            "min(decay, (1 + updates) / (10 + updates)) -> decay": "the ramp is missing: keep the smaller of decay and "
            "(1 + t) / (10 + t), so less at first.",
            "keep * a + (1 - keep) * w -> keep * w + (1 - keep) * a": "average and live have changed places: it is the "
            "average of which most is kept.",
            "min(decay, -> (": "the ramp goes on for ever: beyond decay it must not grow (the smaller of the two "
            "counts).",
            "(1 + updates) / (10 + updates) -> updates / (9 + updates)": "updates counts from 1 and goes into the ramp "
            "as it is: (1 + t) / (10 + t), which is 2/11 at first.",
        },
    ),
)
hint, solution = EXERCISES.hint, EXERCISES.solution
check_collate, check_warmup_cosine = EXERCISES["collate"].check, EXERCISES["warmup_cosine"].check
check_ema_update = EXERCISES["ema_update"].check
