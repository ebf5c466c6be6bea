import math

import torch

from yolonas_lab import training


def collate_columns(examples):
    counts = torch.tensor([len(boxes) for _, boxes, _ in examples])
    numbers = torch.arange(len(examples)).repeat_interleave(counts)
    labels = torch.cat([labels for _, _, labels in examples])
    boxes = torch.cat([boxes for _, boxes, _ in examples])
    table = torch.column_stack([numbers.float(), labels.float(), boxes])
    return torch.cat([image[None] for image, _, _ in examples]), table


def squared_cosine(t, total, lr, warmup, start, ratio):
    if t < warmup:
        return torch.lerp(torch.tensor(start), torch.tensor(lr), t / warmup)
    low = lr * ratio
    return low + (lr - low) * math.cos(math.pi / 2 * (t - warmup) / (total - warmup)) ** 2


def ema_by_steps(average, live, updates, decay):
    step = max(1 - decay, 9 / (10 + updates))
    return [a + step * (w - a) for a, w in zip(average, live, strict=True)]


def ema_of_the_library(average, live, updates, decay):
    kept, now = (torch.nn.Module() for _ in range(2))
    for module, tensors in ((kept, average), (now, live)):
        for i, tensor in enumerate(tensors):
            module.register_parameter(f"w{i}", torch.nn.Parameter(tensor.clone()))
    training.WeightAverage(kept, now, decay=decay).update(updates)
    return [p.detach() for p in kept.parameters()]


RIGHT = [
    ("collate", collate_columns),
    ("warmup_cosine", squared_cosine),
    ("warmup_cosine", training.warmup_cosine),
    ("ema_update", ema_by_steps),
    ("ema_update", ema_of_the_library),
]
WRONG = [
    ("collate", lambda e: collate_columns([x for x in e if len(x[1])]), "belong into the batch"),
    ("collate", (collate_columns, "[numbers.float(), labels -> [labels.float(), numbers"), "changed places"),
    (
        "collate",
        (collate_columns, "boxes for _, boxes, _ in examples -> b for _, b, _ in examples if len(b)"),
        "no boxes at all",
    ),
    ("warmup_cosine", lambda t, n, lr, w, s, r: squared_cosine(t, n, lr, w, 0.0, r), "not at 0"),
    ("warmup_cosine", (squared_cosine, "low = lr * ratio -> low = 0.0"), "final_lr_ratio, not at 0"),
    ("warmup_cosine", (squared_cosine, "** 2 ->"), "expected"),
    ("ema_update", (ema_by_steps, "max( -> min("), "ramp is missing"),
    ("ema_update", lambda a, w, t, d: ema_by_steps(w, a, t, d), "changed places"),
    ("ema_update", lambda a, w, t, d: ema_by_steps(a, w, t, 1.0), "goes on for ever"),
    ("ema_update", lambda a, w, t, d: ema_by_steps(a, w, t - 1, d), "counts from 1"),
    ("ema_update", (ema_by_steps, "a + step * (w - a) -> a.lerp_(w, step)"), "changed its argument average"),
]
