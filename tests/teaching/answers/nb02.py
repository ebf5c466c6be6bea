import numpy as np
import torch

from yolonas_lab.teaching.checks.nb02 import match


def match_with_torch(overlaps, threshold):
    left = torch.tensor(overlaps)
    partners = torch.full((len(left),), -1)
    for i in range(len(left)):
        if left.shape[1] and left[i].max() >= threshold:
            partners[i] = left[i].argmax()
            left[:, partners[i]] = -1
    return partners


def row_by_row(is_true, num_objects):
    rows = [(int(is_true[:d].sum()) / d, int(is_true[:d].sum()) / num_objects) for d in range(1, len(is_true) + 1)]
    return [list(column) for column in zip(*rows, strict=True)]


def ap_with_torch(is_true, num_objects):
    hits = torch.tensor(is_true).cumsum(0).double()
    envelope = (hits / torch.arange(1, len(hits) + 1)).flip(0)
    envelope = torch.cummax(envelope, 0).values.flip(0) if len(hits) else envelope
    at = torch.searchsorted(hits / num_objects, torch.linspace(0, 1, 101, dtype=torch.float64))
    return torch.cat([envelope, torch.zeros(1).double()])[at].mean()


RIGHT = [
    ("match", match_with_torch),
    ("match", lambda overlaps, t: np.array(match(overlaps, t), dtype=float)),
    ("precision_recall", row_by_row),
    ("average_precision", ap_with_torch),
]
WRONG = [
    ("match", (match_with_torch, "left[:, partners[i]] = -1 -> pass"), "taken only once"),
    ("match", (match_with_torch, ">= threshold -> > threshold"), "compare with >="),
    ("match", lambda overlaps, t: [0], "instead of"),
    ("precision_recall", (row_by_row, "/ num_objects -> / is_true.sum()"), "found or not"),
    ("precision_recall", lambda t, n: 0.5, "instead of 2 values"),
    ("average_precision", (ap_with_torch, "101, -> 11,"), "PASCAL VOC"),
    ("average_precision", (ap_with_torch, "num_objects, torch.l -> num_objects, right=True, input=torch.l"), "not > r"),
    ("average_precision", (ap_with_torch, "torch.cummax(envelope, 0).values -> envelope"), "any higher one"),
    ("average_precision", (ap_with_torch, "torch.zeros(1).double() -> 0 * hits[:1]"), "no detection at all"),
]
