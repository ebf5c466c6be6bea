"""From the network's many boxes to the few that count: a score threshold, the best candidates, NMS class by class.

Taught in notebook 01. The order and the numbers (top 1024 candidates, several labels per box, at most 300 boxes) are
those of super-gradients' `PPYoloEPostPredictionCallback`, with which YOLO-NAS was published.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from yolonas_lab.boxes import batched_nms


class Kept(NamedTuple):
    """What is left of one image's predictions, best score first."""

    boxes: Tensor  # (n, 4) xyxy px
    scores: Tensor  # (n,)
    labels: Tensor  # (n,) int64


def postprocess(
    boxes: Tensor,
    scores: Tensor,
    conf: float = 0.25,
    iou: float = 0.7,
    top_k: int = 1024,
    max_detections: int = 300,
) -> Kept:
    """Choose the detections of one image: from boxes (a, 4) xyxy px and scores (a, k) to n <= max_detections of them.

    Every (box, class) pair with score > conf is a candidate, so that one box may get several labels. The top_k best go
    through NMS with threshold iou, class by class; of the survivors the best max_detections stay. Raises ValueError for
    shapes that do not fit together, NaN or infinite numbers, and settings out of range.
    """
    check_thresholds(conf, iou)
    _check_predictions(boxes, scores, top_k, max_detections)
    num_classes = scores.shape[1]
    pairs = _best_pairs(scores.flatten(), conf, top_k)
    boxes = boxes[pairs // num_classes]  # (at most top_k, 4)
    scores = scores.flatten()[pairs]
    labels = pairs % num_classes
    keep = batched_nms(boxes, scores, labels, iou)[:max_detections]
    return Kept(boxes[keep], scores[keep], labels[keep])


def postprocess_batch(
    boxes: Tensor,
    scores: Tensor,
    conf: float = 0.25,
    iou: float = 0.7,
    top_k: int = 1024,
    max_detections: int = 300,
) -> list[Kept]:
    """`postprocess` for each image of a batch: boxes (b, a, 4) and scores (b, a, k) to a list of b results."""
    if boxes.ndim != 3 or scores.ndim != 3 or len(boxes) != len(scores):
        raise ValueError(
            f"boxes must be (b, a, 4) and scores (b, a, k), but are {tuple(boxes.shape)} and {tuple(scores.shape)}."
        )
    return [postprocess(*image, conf, iou, top_k, max_detections) for image in zip(boxes, scores)]


def check_thresholds(conf: float, iou: float) -> None:
    """Raise ValueError unless the score threshold conf and the IoU threshold iou lie in [0, 1]."""
    for name, value in (("conf", conf), ("iou", iou)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must lie in [0, 1], but is {value}.")


def _best_pairs(scores: Tensor, conf: float, top_k: int) -> Tensor:
    """Indices of the top_k best of scores (a·k,) above conf, best first; of equal scores the earlier goes first."""
    candidates = (scores > conf).nonzero().squeeze(1)
    if len(candidates) > top_k:
        worst = torch.topk(scores, top_k, sorted=False).values.min()  # all above conf, for more than top_k scores are
        candidates = (scores >= worst).nonzero().squeeze(1)
    order = torch.sort(scores[candidates], descending=True, stable=True).indices
    return candidates[order[:top_k]]


def _check_predictions(boxes: Tensor, scores: Tensor, top_k: int, max_detections: int) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must have shape (a, 4), but has {tuple(boxes.shape)}.")
    if scores.ndim != 2 or len(scores) != len(boxes):
        raise ValueError(f"scores must have shape ({len(boxes)}, k), one row per box, but has {tuple(scores.shape)}.")
    for name, value in (("top_k", top_k), ("max_detections", max_detections)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, but is {value}.")
    for name, values in (("scores", scores), ("boxes", boxes)):
        if not torch.isfinite(values).all():
            raise ValueError(f"the predicted {name} contain NaN or infinite numbers; check the weights of the model.")
