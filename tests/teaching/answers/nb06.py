import math

import torch

from yolonas_lab import training
from yolonas_lab.teaching.checks.nb06 import collate, ema_update, warmup_cosine


def collate_columns(examples):
    counts = torch.tensor([len(boxes) for _, boxes, _ in examples])
    numbers = torch.arange(len(examples)).repeat_interleave(counts)
    labels = torch.cat([labels for _, _, labels in examples])
    boxes = torch.cat([boxes for _, boxes, _ in examples])
    table = torch.column_stack([numbers.float(), labels.float(), boxes])
    return torch.cat([image[None] for image, _, _ in examples]), table


def collate_of_the_text(examples):
    images = torch.stack([image for image, _, _ in examples])
    labeled = [(boxes, labels) for _, boxes, labels in examples if len(boxes)]
    rows = []
    for number, (boxes, labels) in enumerate(labeled):
        column = torch.full((len(boxes), 1), float(number))
        rows.append(torch.cat([column, labels[:, None].float(), boxes], dim=1))
    return images, torch.cat(rows)


def collate_failing_on_no_boxes(examples):
    images, rows = collate(examples)
    return images, torch.cat(list(rows[None])) if len(rows) else torch.cat([])


def squared_cosine(t, total, lr, warmup, start, ratio, low=None):
    if t < warmup:
        return torch.lerp(torch.tensor(start), torch.tensor(lr), t / warmup)
    low = lr * ratio if low is None else low
    return low + (lr - low) * math.cos(math.pi / 2 * (t - warmup) / (total - warmup)) ** 2


def half_written_cosine(t, n, lr, w, s, r):
    return warmup_cosine(t, n, lr, w, s, r) if t < w else lr * math.cos(math.pi / 2 * (t - w) / (n - w))


def ema_by_steps(average, live, updates, decay, smaller=max):
    step = smaller(1 - decay, 9 / (10 + updates))
    return [a + step * (w - a) for a, w in zip(average, live, strict=True)]


def ema_of_the_library(average, live, updates, decay):
    kept, now = (torch.nn.Module() for _ in range(2))
    for module, tensors in ((kept, average), (now, live)):
        for i, tensor in enumerate(tensors):
            module.register_parameter(f"w{i}", torch.nn.Parameter(tensor))
    training.WeightAverage(kept, now, decay=decay).update(updates)
    return [p.detach() for p in kept.parameters()]


def in_place(average, live, updates, decay):
    for a, w in zip(average, live, strict=True):
        a.lerp_(w, 1 - min(decay, (1 + updates) / (10 + updates)))
    return average


RIGHT = [
    ("collate", collate_columns),
    ("warmup_cosine", squared_cosine),
    ("warmup_cosine", training.warmup_cosine),
    ("ema_update", ema_by_steps),
    ("ema_update", lambda a, w, t, d: ema_of_the_library([x.clone() for x in a], w, t, d)),
]
WRONG = [
    ("collate", collate_of_the_text, "is not counted"),
    ("collate", lambda e: collate_columns([x for x in e if len(x[1])]), "belong into the batch"),
    ("collate", lambda e: (collate(e)[0], torch.cat([r[[1, 0, 2, 3, 4, 5]][None] for r in collate(e)[1]])), "changed"),
    ("collate", collate_failing_on_no_boxes, "no boxes at all"),
    ("warmup_cosine", lambda t, n, lr, w, s, r: squared_cosine(t, n, lr, w, 0.0, r), "not at 0"),
    ("warmup_cosine", lambda *a: squared_cosine(*a, low=0.0), "final_lr_ratio, not at 0"),
    (
        "warmup_cosine",
        lambda t, n, lr, w, s, r: s + (lr - s) * t / w if t < w else lr + (lr * r - lr) * (t - w) / (n - w),
        "straight line",
    ),
    ("warmup_cosine", half_written_cosine, "expected"),
    ("ema_update", lambda a, w, t, d: ema_by_steps(a, w, t, d, min), "ramp is missing"),
    ("ema_update", lambda a, w, t, d: ema_by_steps(w, a, t, d), "changed places"),
    ("ema_update", lambda a, w, t, d: ema_by_steps(a, w, t, 1.0), "goes on for ever"),
    ("ema_update", lambda a, w, t, d: ema_update(a, w, t - 1, d), "counts from 1"),
    ("ema_update", in_place, "changed its argument average"),
]
