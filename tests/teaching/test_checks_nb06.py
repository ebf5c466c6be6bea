import math

import pytest
import torch

from yolonas_lab.teaching.checks import nb06
from yolonas_lab.teaching.exercises import CheckFailed
from yolonas_lab.training import WeightAverage
from yolonas_lab.training import warmup_cosine as library_warmup_cosine

CHECKS = {
    "collate": nb06.check_collate,
    "warmup_cosine": nb06.check_warmup_cosine,
    "ema_update": nb06.check_ema_update,
}


@pytest.mark.parametrize("name", CHECKS)
def test_reference_solutions_pass(name, capsys):
    CHECKS[name](nb06.SOLUTIONS[name])
    assert capsys.readouterr().out.startswith(f"✓ {name}")


def test_solutions_written_in_another_way_pass():
    def collate(examples):
        counts = torch.tensor([len(boxes) for _, boxes, _ in examples])
        numbers = torch.arange(len(examples)).repeat_interleave(counts)
        labels = torch.cat([labels for _, _, labels in examples])
        boxes = torch.cat([boxes for _, boxes, _ in examples])
        table = torch.column_stack([numbers.float(), labels.float(), boxes])
        return torch.cat([image[None] for image, _, _ in examples]), table

    def warmup_cosine(t, total, lr, warmup, start, ratio):
        if t < warmup:
            return torch.lerp(torch.tensor(start), torch.tensor(lr), t / warmup)
        low = lr * ratio
        return low + (lr - low) * math.cos(math.pi / 2 * (t - warmup) / (total - warmup)) ** 2

    def ema_update(average, live, updates, decay):
        step = max(1 - decay, 9 / (10 + updates))
        return [a + step * (w - a) for a, w in zip(average, live, strict=True)]

    nb06.check_collate(collate)
    nb06.check_warmup_cosine(warmup_cosine)
    nb06.check_ema_update(ema_update)


def buggy_collate(examples):
    """As shown in the notebook."""
    images = torch.stack([image for image, _, _ in examples])
    labeled = [(boxes, labels) for _, boxes, labels in examples if len(boxes)]
    rows = []
    for number, (boxes, labels) in enumerate(labeled):
        column = torch.full((len(boxes), 1), float(number))
        rows.append(torch.cat([column, labels[:, None].float(), boxes], dim=1))
    return images, torch.cat(rows)


def collate_failing_on_no_boxes(examples):
    images, rows = nb06.collate(examples)
    return images, torch.cat(list(rows[None])) if len(rows) else torch.cat([])


def in_place(average, live, updates, decay):
    for a, w in zip(average, live, strict=True):
        a.lerp_(w, 1 - min(decay, (1 + updates) / (10 + updates)))
    return average


def larger_of_both(average, live, updates, decay):
    keep = max(decay, (1 + updates) / (10 + updates))
    return [keep * a + (1 - keep) * w for a, w in zip(average, live, strict=True)]


def half_written_cosine(t, n, lr, w, s, r):
    return nb06.warmup_cosine(t, n, lr, w, s, r) if t < w else lr * math.cos(math.pi / 2 * (t - w) / (n - w))


WRONG = [
    ("collate", buggy_collate, "is not counted"),
    ("collate", lambda e: nb06.collate([x for x in e if len(x[1])]), "belong into the batch"),
    ("collate", lambda e: (nb06.collate(e)[0], nb06.collate(e)[1][:, [0, 2, 3, 4, 5, 1]]), "label comes before"),
    ("collate", lambda e: (nb06.collate(e)[0], nb06.collate(e)[1][:, [1, 0, 2, 3, 4, 5]]), "changed places"),
    ("collate", nb06._counted_from_one, "numbered from 0"),
    ("collate", collate_failing_on_no_boxes, "no boxes at all"),
    ("warmup_cosine", lambda t, n, lr, w, s, r: nb06.warmup_cosine(t, n, lr, w, 0.0, r), "not at 0"),
    (
        "warmup_cosine",
        lambda t, n, lr, w, s, r: s + lr * t / w if t < w else nb06.warmup_cosine(t, n, lr, w, s, r),
        "lr - warmup_start_lr",
    ),
    (
        "warmup_cosine",
        lambda t, n, lr, w, s, r: (
            s + (lr - s) * t / w if t < w else lr * (r + (1 - r) * (1 + math.cos(math.pi * t / n)) / 2)
        ),
        "count its steps from warmup_steps",
    ),
    ("warmup_cosine", lambda t, n, lr, w, s, r: nb06.warmup_cosine(t, n, lr, w, s, 0.0), "final_lr_ratio, not at 0"),
    (
        "warmup_cosine",
        lambda t, n, lr, w, s, r: (
            s + (lr - s) * t / w if t < w else lr * r + lr * (1 + math.cos(math.pi * (t - w) / (n - w))) / 2
        ),
        "only 1 - final_lr_ratio",
    ),
    (
        "warmup_cosine",
        lambda t, n, lr, w, s, r: s + (lr - s) * t / w if t < w else lr + (lr * r - lr) * (t - w) / (n - w),
        "straight line",
    ),
    (
        "warmup_cosine",
        lambda t, n, lr, w, s, r: (
            s + (lr - s) * t / w if t < w else lr * (r + (1 - r) * (1 + math.cos(2 * math.pi * (t - w) / (n - w))) / 2)
        ),
        "climb back",
    ),
    ("warmup_cosine", half_written_cosine, "expected"),
    ("ema_update", lambda a, w, t, d: [d * x + (1 - d) * y for x, y in zip(a, w, strict=True)], "ramp is missing"),
    ("ema_update", lambda a, w, t, d: nb06.ema_update(w, a, t, d), "changed places"),
    ("ema_update", lambda a, w, t, d: nb06.ema_update(a, w, t, 1.0), "goes on for ever"),
    ("ema_update", larger_of_both, "keep the smaller of decay"),
    ("ema_update", lambda a, w, t, d: nb06.ema_update(a, w, t - 1, d), "counts from 1"),
    ("ema_update", in_place, "changed its argument"),
    ("ema_update", lambda a, w, t, d: None, "returned None"),
]


@pytest.mark.parametrize(("name", "wrong", "advice"), WRONG)
def test_wrong_solutions_are_told_what_is_wrong(name, wrong, advice):
    with pytest.raises(CheckFailed, match=advice):
        CHECKS[name](wrong)


def test_references_agree_with_the_library():
    for step in range(0, 61, 3):
        settings = (step, 60, 0.01, 20, 1e-4, 0.1)
        assert nb06.warmup_cosine(*settings) == pytest.approx(library_warmup_cosine(*settings))
    torch.manual_seed(0)
    average, live = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    expected = [p.detach().clone() for p in average.parameters()]
    moving = WeightAverage(average, live, decay=0.3)
    for updates in range(1, 9):
        moving.update(updates)
        expected = nb06.ema_update(expected, [p.detach() for p in live.parameters()], updates, 0.3)
    torch.testing.assert_close([p.detach() for p in average.parameters()], expected)


@pytest.mark.parametrize("name", CHECKS)
def test_every_exercise_has_graded_hints_and_a_solution(name, capsys):
    assert 2 <= len(nb06.HINTS[name]) <= 3
    for level in range(1, len(nb06.HINTS[name]) + 1):
        nb06.hint(name, level)
    nb06.solution(name)
    assert f"def {name}(" in capsys.readouterr().out
