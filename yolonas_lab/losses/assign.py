"""Task-aligned assignment: which anchor points learn which object, and how sure of it they should be.

Notebook 05. Feng et al., "TOOD", arXiv 2108.07755, section 3.3, with the choices of PP-YOLOE (Xu et al., arXiv
2203.16250) as in super-gradients' `ppyolo_loss.py`: alignment = score · IoU^6, the top 13 anchor points in each box.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from yolonas_lab.boxes import paired_iou
from yolonas_lab.data.coco import Targets
from yolonas_lab.models.yolo_nas import RawPredictions, decode_boxes

INSIDE = 1e-9  # px; an anchor point is inside a box when it lies farther than this from all four sides
EPS = 1e-9  # keeps the division by a box's best alignment finite where all its predictions are hopeless


class Assignment(NamedTuple):
    """What every anchor point should predict; a point without an object has label k, quality 0, and no meaning in
    boxes.

    The positives are listed a second time as candidates, in a tensor whose shape depends on no value, so that a loss
    can gather them without waiting for the GPU: each positive occurs as often as objects had picked it, with weights
    that add up to 1.
    """

    labels: Tensor  # (b, a) int64, k for background
    boxes: Tensor  # (b, a, 4) xyxy px
    quality: Tensor  # (b, a) in [0, 1]: the score that the assigned class should get
    candidates: Tensor  # (b, m) int64, indices of anchor points
    candidate_weights: Tensor  # (b, m); 0 where a candidate is no positive
    trust: Tensor | None = None  # (b, a) in (0, 1]: the weight of the point's object, 1 for background; None: all 1

    def scores(self, num_classes: int) -> Tensor:
        """Soft class targets (b, a, k): the quality at the assigned class, 0 elsewhere."""
        scores = self.quality.new_zeros(*self.labels.shape, num_classes + 1)
        return scores.scatter_(2, self.labels[..., None], self.quality[..., None])[..., :num_classes]


@torch.no_grad()
def assign(
    raw: RawPredictions, targets: Sequence[Targets], top_k: int = 13, alpha: float = 1.0, beta: float = 6.0
) -> Assignment:
    """Assign at most one true object to every anchor point of every image, for the whole batch at once.

    For each object, alignment = score^alpha · IoU^beta ranks the anchor points inside its box, and the top_k best are
    its positives. A point that several objects picked goes to the one with the largest IoU. Its quality is its
    alignment, scaled so that the object's best point gets the object's best IoU. Weights of objects decide nothing
    here, they are handed on as trust. Raises ValueError for targets that do not fit the predictions.
    """
    boxes, labels, exists = _padded(targets, raw)  # (b, g, 4), (b, g), (b, g)
    b, a, k = raw.class_logits.shape
    if boxes.shape[1] == 0:
        return _nothing(raw)
    predicted = decode_boxes(raw.box_logits.float(), raw.anchor_points, raw.strides)  # (b, a, 4) px
    iou = paired_iou(boxes[:, :, None], predicted[:, None])  # (b, g, a)
    logits = raw.class_logits.gather(2, labels[:, None].expand(b, a, -1))  # (b, a, g): each object's own class
    alignment = logits.float().sigmoid().pow(alpha).transpose(1, 2) * iou.pow(beta)  # (b, g, a)

    selectable = _inside(raw.anchor_points, boxes) & exists[..., None]  # (b, g, a)
    picked = (alignment * selectable).topk(min(top_k, a), dim=2)  # (b, g, top_k)
    useful = picked.values[..., :1] > EPS  # an object whose best point is no better than 0 picks none
    positive = torch.zeros_like(selectable).scatter_(2, picked.indices, useful.expand_as(picked.indices)) & selectable

    times = positive.sum(dim=1)  # (b, a) objects that picked the point
    nearest = torch.zeros_like(positive).scatter_(1, iou.argmax(dim=1, keepdim=True), True)  # (b, g, a)
    resolved = torch.where(times[:, None] > 1, nearest, positive)
    owner = resolved.byte().argmax(dim=1)  # (b, a) index of the object
    taken = times > 0

    alignment = alignment * resolved
    best = alignment.amax(dim=2, keepdim=True), (iou * resolved).amax(dim=2, keepdim=True)  # (b, g, 1) each
    quality = (alignment / (best[0] + EPS) * best[1]).amax(dim=1)  # (b, a)

    candidates = picked.indices.flatten(1)  # (b, g · top_k)
    valid = positive.gather(2, picked.indices).flatten(1)
    return Assignment(
        labels=torch.where(taken, labels.gather(1, owner), k),
        boxes=boxes.gather(1, owner[..., None].expand(b, a, 4)),
        quality=quality,
        candidates=candidates,
        candidate_weights=valid / times.gather(1, candidates).clamp(min=1),
        trust=_trust(targets, owner, taken),
    )


def _inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Anchor points (a, 2) strictly inside boxes (b, g, 4): bool (b, g, a)."""
    left_top, right_bottom = boxes[:, :, None].chunk(2, dim=-1)  # (b, g, 1, 2) each
    return torch.minimum(points - left_top, right_bottom - points).amin(dim=-1) > INSIDE


def _padded(targets: Sequence[Targets], raw: RawPredictions) -> tuple[Tensor, Tensor, Tensor]:
    """Targets as boxes (b, g, 4), labels (b, g) and a mask (b, g) of the real ones, on the predictions' device."""
    b, _, k = raw.class_logits.shape
    if len(targets) != b:
        raise ValueError(
            f"There are targets for {len(targets)} images and predictions for {b}; give one Targets per image."
        )
    device = raw.class_logits.device
    for i, (boxes, labels, weights) in enumerate(targets):
        if boxes.ndim != 2 or boxes.shape[1] != 4 or labels.shape != boxes.shape[:1]:
            shapes = f"{tuple(boxes.shape)} and {tuple(labels.shape)}"
            raise ValueError(f"targets[{i}] must hold boxes (n, 4) and labels (n,), but has {shapes}.")
        if weights is not None and weights.shape != labels.shape:
            shapes = f"{tuple(weights.shape)} for {len(labels)} objects"
            raise ValueError(f"targets[{i}] must hold one weight per object or None, but has {shapes}.")
    counts = [len(t.labels) for t in targets]
    g = max(counts, default=0)
    boxes = torch.zeros(b, g, 4, device=device)
    labels = torch.zeros(b, g, dtype=torch.int64, device=device)
    for i, target in enumerate(targets):  # copies only; the arithmetic that follows is done for the whole batch at once
        boxes[i, : counts[i]] = target.boxes
        labels[i, : counts[i]] = target.labels
    exists = torch.arange(g, device=device) < torch.tensor(counts, device=device)[:, None]
    if device.type == "cpu" and g and not bool(((labels >= 0) & (labels < k)).all()):  # on a GPU this would wait
        raise ValueError(
            f"A target label is outside 0 … {k - 1}, the classes of the model; check num_classes and the labels."
        )
    return boxes, labels, exists


def _trust(targets: Sequence[Targets], owner: Tensor, taken: Tensor) -> Tensor | None:
    """The weight (b, a) of the object that owns each point, 1 for background; None where no image has weights."""
    if all(target.weights is None for target in targets):
        return None
    b, g = len(targets), max(len(target.labels) for target in targets)
    weights = torch.ones(b, g, device=owner.device)
    for i, target in enumerate(targets):
        if target.weights is not None:
            weights[i, : len(target.weights)] = target.weights
    if owner.device.type == "cpu" and not bool(((weights > 0) & (weights <= 1)).all()):  # on a GPU this would wait
        raise ValueError("A target's weight is outside (0, 1]: leave an object out rather than give it the weight 0.")
    return torch.where(taken, weights.gather(1, owner), 1.0)


def _nothing(raw: RawPredictions) -> Assignment:
    """The assignment of a batch without any object."""
    b, a, k = raw.class_logits.shape
    zeros = raw.strides.new_zeros(b, a)
    empty = zeros[:, :0]
    return Assignment(
        torch.full_like(zeros, k, dtype=torch.int64), zeros.new_zeros(b, a, 4), zeros, empty.long(), empty
    )
