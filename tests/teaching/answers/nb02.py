import numpy as np
import torch

from yolonas_lab.teaching.checks.nb02 import match, precision_recall


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


def stumbles_over_an_empty_list(is_true, num_objects):
    precision, recall = precision_recall(is_true, num_objects)
    return np.mean([precision[recall >= r].max() if (recall >= r).any() else 0 * precision[0] for r in np.arange(101)])


def ap_of(heights, recalls):
    return lambda t, n: np.mean([heights(*precision_recall(t, n), at) for at in recalls])


RIGHT = [
    ("match", match_with_torch),
    ("match", lambda overlaps, t: np.array(match(overlaps, t), dtype=float)),
    ("precision_recall", row_by_row),
    ("average_precision", ap_with_torch),
]
WRONG = [
    ("match", lambda overlaps, t: [0], "instead of"),
    ("match", lambda overlaps, t: [p if p >= 0 else None for p in match(overlaps, t)], "expected"),
    ("precision_recall", lambda t, n: (t.cumsum() / np.arange(1, len(t) + 1), t.cumsum() / t.sum()), "found or not"),
    ("precision_recall", lambda t, n: 0.5, "instead of 2 values"),
    ("average_precision", ap_of(lambda p, r, at: p[r > at].max(initial=0), np.linspace(0, 1, 101)), "recall >= r"),
    ("average_precision", ap_of(lambda p, r, at: p[r >= at].max(initial=0), np.linspace(0, 1, 11)), "PASCAL VOC"),
    ("average_precision", ap_of(lambda p, r, at: p[r >= at].max(initial=0), np.arange(0, 1, 0.01)), "case"),
    ("average_precision", stumbles_over_an_empty_list, "case"),
]
