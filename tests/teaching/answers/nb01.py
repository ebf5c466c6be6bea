import torch

from yolonas_lab import boxes as geometry


def overlap(p, q):
    """IoU of two boxes given as lists, in plain Python."""
    w, h = min(p[2], q[2]) - max(p[0], q[0]), min(p[3], q[3]) - max(p[1], q[1])
    shared = w * h if w > 0 and h > 0 else 0.0
    return shared / ((p[2] - p[0]) * (p[3] - p[1]) + (q[2] - q[0]) * (q[3] - q[1]) - shared)


def iou_loop(a, b):
    return torch.tensor([[overlap(p, q) for q in b.tolist()] for p in a.tolist()])


def inverse(boxes, height, width, size, resize_to):
    frame = geometry.letterbox(height, width, size, resize_to)
    return geometry.clip(frame.invert(boxes), height, width)


def nms_loop(boxes, scores, labels, iou_threshold):
    kept = []
    for i in scores.argsort(descending=True).tolist():
        rivals = [j for j in kept if labels[j] == labels[i]]
        if all(overlap(boxes[j].tolist(), boxes[i].tolist()) <= iou_threshold for j in rivals):
            kept.append(i)
    return kept  # a list of indices will do


RIGHT = [
    ("iou", geometry.iou),
    ("iou", iou_loop),
    ("giou", geometry.paired_giou),
    ("letterbox_inverse", inverse),
    ("nms", geometry.batched_nms),
    ("nms", nms_loop),
]
WRONG = [
    ("iou", lambda a, b: iou_loop(b, a), "rows and columns are exchanged"),
    ("iou", lambda a, b: iou_loop(a[:, [0, 2, 1, 3]], b[:, [0, 2, 1, 3]]), "x and y got mixed up"),
    ("giou", lambda a, b: 1 - geometry.paired_giou(a, b), "this is the loss"),
    ("giou", geometry.paired_iou, "plain IoU"),
    ("giou", geometry.giou, "partner in the same row"),
    ("letterbox_inverse", (inverse, "frame.invert(boxes) -> boxes / frame.scale"), "subtract the padding first"),
    (
        "letterbox_inverse",
        (inverse, "geometry.clip(frame.invert(boxes), height, width) -> frame.invert(boxes)"),
        "clip",
    ),
    ("letterbox_inverse", (inverse, "(boxes), height, width -> (boxes), width, height"), "x is clipped to the width"),
    ("letterbox_inverse", lambda b, h, w, size, r: inverse(b, h, w, size, size), "the scale is resize_to / longest"),
    ("nms", lambda b, s, c, t: geometry.nms(b, s, t), "a better one of its own class"),
    ("nms", (nms_loop, "<= iou_threshold -> < iou_threshold"), "drop only where IoU > threshold"),
    ("nms", (nms_loop, "descending=True ->"), "start with the best score"),
    ("nms", (nms_loop, "return kept -> return sorted(kept)"), "best score first"),
    ("nms", lambda boxes, scores, labels, threshold: scores > scores.median(), "Its shape is (5,)"),
]
