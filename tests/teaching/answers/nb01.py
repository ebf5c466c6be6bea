import numpy as np
import torch

import yolonas_lab as yl


def overlap(p, q):
    """IoU of two boxes given as lists, in plain Python."""
    w, h = min(p[2], q[2]) - max(p[0], q[0]), min(p[3], q[3]) - max(p[1], q[1])
    shared = w * h if w > 0 and h > 0 else 0.0
    return shared / ((p[2] - p[0]) * (p[3] - p[1]) + (q[2] - q[0]) * (q[3] - q[1]) - shared)


def giou_loop(a, b):
    values = []
    for p, q in zip(a.tolist(), b.tolist(), strict=True):
        hull = (max(p[2], q[2]) - min(p[0], q[0])) * (max(p[3], q[3]) - min(p[1], q[1]))
        areas = (p[2] - p[0]) * (p[3] - p[1]) + (q[2] - q[0]) * (q[3] - q[1])
        values.append(overlap(p, q) - 1 + areas / (1 + overlap(p, q)) / hull)  # A + B = union (1 + IoU)
    return torch.tensor(values)


def nms_loop(boxes, scores, labels, iou_threshold):
    kept = []
    for i in np.argsort(-scores.numpy()):
        rivals = [j for j in kept if labels[j] == labels[i]]
        if all(overlap(boxes[j].tolist(), boxes[i].tolist()) <= iou_threshold for j in rivals):
            kept.append(int(i))
    return kept  # a list of indices will do


def inverse(boxes, height, width, size, resize_to, clip=True, pad=True, exchanged=False):
    frame = yl.boxes.letterbox(height, width, size, resize_to)
    boxes = frame.invert(boxes) if pad else boxes / frame.scale
    height, width = (width, height) if exchanged else (height, width)
    return yl.boxes.clip(boxes, height, width) if clip else boxes


def iou(a, b, clamp=True, divide_by_sum=False, order=(0, 1, 2, 3), transpose=False, extra=0.0):
    a, b = a[:, list(order)], b[:, list(order)]
    w = torch.minimum(a[:, None, 2], b[:, 2]) - torch.maximum(a[:, None, 0], b[:, 0]) + extra
    h = torch.minimum(a[:, None, 3], b[:, 3]) - torch.maximum(a[:, None, 1], b[:, 1]) + extra
    shared = w.clamp(min=0) * h.clamp(min=0) if clamp else w * h
    area_a, area_b = ((x[:, 2] - x[:, 0] + extra) * (x[:, 3] - x[:, 1] + extra) for x in (a, b))
    both = area_a[:, None] + area_b
    value = shared / (both if divide_by_sum else both - shared)
    return value.T if transpose else value


def nms(boxes, scores, labels, iou_threshold, descending=True, strict=True, dropped_drop=False):
    kept, overlaps = [], yl.boxes.iou(boxes, boxes)
    alive = torch.ones(len(boxes), dtype=torch.bool)
    for i in scores.argsort(descending=descending).tolist():
        if not alive[i] and not dropped_drop:
            continue
        if alive[i]:
            kept.append(i)
        hit = overlaps[i] > iou_threshold if strict else overlaps[i] >= iou_threshold
        hit[torch.tensor(kept)] = False
        alive &= ~(hit & (labels == labels[i]))
    return torch.tensor(kept)


def mask(boxes, scores, labels, iou_threshold):
    kept = torch.zeros(len(boxes), dtype=torch.bool)
    kept[nms(boxes, scores, labels, iou_threshold)] = True
    return kept


RIGHT = [
    ("iou", yl.boxes.iou),
    ("iou", lambda a, b: torch.tensor([[overlap(p, q) for q in b.tolist()] for p in a.tolist()])),
    ("giou", yl.boxes.paired_giou),
    ("giou", giou_loop),
    ("letterbox_inverse", inverse),
    ("nms", yl.boxes.batched_nms),
    ("nms", nms_loop),
]
WRONG = [
    ("iou", lambda a, b: iou(a, b, clamp=False), "clamp both at 0"),
    ("iou", lambda a, b: iou(a, b, divide_by_sum=True), "counted twice in the union"),
    ("iou", lambda a, b: iou(a, b, order=(0, 2, 1, 3)), "x and y got mixed up"),
    ("iou", lambda a, b: iou(a, b, transpose=True), "rows and columns are exchanged"),
    ("iou", lambda a, b: iou(a, b, extra=1.0), "no + 1"),
    ("iou", lambda a, b: a[:, 9], "raised IndexError"),
    ("giou", lambda a, b: 1 - yl.boxes.paired_giou(a, b), "this is the loss"),
    ("giou", yl.boxes.paired_iou, "plain IoU"),
    ("giou", yl.boxes.giou, "partner in the same row"),
    ("letterbox_inverse", lambda *a: inverse(*a, pad=False), "subtract the padding first"),
    ("letterbox_inverse", lambda *a: inverse(*a, clip=False), "may reach into the padding"),
    ("letterbox_inverse", lambda *a: inverse(*a, exchanged=True), "x is clipped to the width"),
    ("letterbox_inverse", lambda b, h, w, size, r: inverse(b, h, w, size, size), "the scale is resize_to / longest"),
    ("nms", lambda b, s, c, t: yl.boxes.nms(b, s, t), "a better one of its own class"),
    ("nms", lambda b, s, c, t: nms(b, s, c, t, strict=False), "drop only where IoU > threshold"),
    ("nms", lambda b, s, c, t: nms(b, s, c, t, descending=False), "start with the best score"),
    ("nms", lambda b, s, c, t: nms(b, s, c, t, dropped_drop=True), "must not drop others"),
    ("nms", lambda b, s, c, t: nms(b, s, c, t).sort().values, "best score first"),
    ("nms", lambda b, s, c, t: s.argsort(descending=True).argsort()[nms(b, s, c, t)], "positions in the sorted list"),
    ("nms", mask, "Its shape is (5,) instead of"),
]
