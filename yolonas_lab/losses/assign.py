"""Task-aligned assignment: which anchor points learn which object, and how sure of it they should be.

Notebook 05. Feng et al., "TOOD", arXiv 2108.07755, section 3.3, with the choices of PP-YOLOE (Xu et al., arXiv
2203.16250) as in super-gradients' `ppyolo_loss.py`: alignment = score · IoU^6, the top 13 anchor points in each box.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from yolonas_lab.boxes import paired_iou
from yolonas_lab.data.coco import Targets
from yolonas_lab.models.yolo_nas import RawPredictions, decode_boxes

INSIDE = 1e-9  # px; an anchor point is inside a box when it lies farther than this from all four sides
EPS = 1e-9  # keeps the division by a box's best alignment finite where all its predictions are hopeless


class Assignment(NamedTuple):
    """What every anchor point should predict; a point without an object has label k, quality 0, and no meaning in
    boxes. The positives are listed a second time as candidates, see `positives_without_waiting`.
    """

    labels: Tensor  # (b, a) int64, k for background
    boxes: Tensor  # (b, a, 4) xyxy px
    quality: Tensor  # (b, a) in [0, 1]: the score that the assigned class should get
    candidates: Tensor  # (b, m) int64, indices of anchor points
    candidate_weights: Tensor  # (b, m); 0 where a candidate is no positive
    weights: Tensor  # (b, a) in (0, 1]: the weight of the point's object, 1 for background


@torch.no_grad()
def assign(
    raw: RawPredictions, targets: Sequence[Targets], top_k: int = 13, alpha: float = 1.0, beta: float = 6.0
) -> Assignment:
    """Assign at most one true object to every anchor point of every image, for the whole batch at once.

    For each object, alignment = score^alpha · IoU^beta ranks the anchor points inside its box, and the top_k best are
    its positives. A point that several objects picked goes to the one with the largest IoU. Its quality is its
    alignment, scaled so that the object's best point gets the object's best IoU. Weights of objects decide nothing
    here, they are handed on. Raises ValueError for targets that do not fit the predictions.

    >>> import yolonas_lab as yl
    >>> raw = yl.models.get("yolo_nas_pico", num_classes=3)(torch.zeros(1, 3, 64, 64))
    >>> assignment = assign(raw, [Targets(boxes=torch.tensor([[4.0, 4, 40, 40]]), labels=torch.tensor([2]))])
    >>> int((assignment.labels == 2).sum()), int((assignment.labels == 3).sum())  # object, background
    (13, 71)
    """
    boxes, labels, weights, exists = _padded(targets, raw)  # (b, g, 4), then (b, g) each
    b, a, k = raw.class_logits.shape
    predicted = decode_boxes(raw.box_logits.float(), raw.anchor_points, raw.strides)  # (b, a, 4) px
    iou = paired_iou(boxes[:, :, None], predicted[:, None])  # (b, g, a)
    logits = raw.class_logits.gather(2, labels[:, None].expand(b, a, -1))  # (b, a, g): each object's own class
    alignment = logits.float().sigmoid().pow(alpha).transpose(1, 2) * iou.pow(beta)  # (b, g, a)

    selectable = _inside(raw.anchor_points, boxes) & exists[..., None]  # (b, g, a)
    picked = (alignment * selectable).topk(min(top_k, a), dim=2)  # (b, g, top_k)
    useful = picked.values[..., :1] > EPS  # (b, g, 1): an object whose best point is no better than 0 picks none
    # topk always finds top_k points; where fewer lie inside, the rest are outside and are taken out again
    positive = torch.zeros_like(selectable).scatter_(2, picked.indices, useful.expand_as(picked.indices)) & selectable

    times = positive.sum(dim=1)  # (b, a) objects that picked the point
    nearest = torch.zeros_like(positive).scatter_(1, iou.argmax(dim=1, keepdim=True), True)  # (b, g, a)
    resolved = torch.where(times[:, None] > 1, nearest, positive)  # (b, g, a): at most one object for each point
    owner = resolved.byte().argmax(dim=1)  # (b, a) index of the object
    taken = times > 0

    alignment = alignment * resolved  # the best of an object is looked for among the points that it could keep
    best = alignment.amax(dim=2, keepdim=True), (iou * resolved).amax(dim=2, keepdim=True)  # (b, g, 1) each
    quality = (alignment / (best[0] + EPS) * best[1]).amax(dim=1)  # (b, a)
    candidates, candidate_weights = positives_without_waiting(picked.indices, positive)
    return Assignment(
        labels=torch.where(taken, labels.gather(1, owner), k),
        boxes=boxes.gather(1, owner[..., None].expand(b, a, 4)),
        quality=quality,
        candidates=candidates,
        candidate_weights=candidate_weights,
        weights=torch.where(taken, weights.gather(1, owner), 1.0),
    )


def positives_without_waiting(picked: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """The positives as indices (b, g · top_k) of anchor points, with weights: picked (b, g, top_k), positive (b, g, a).

    Plainly `(labels < k).nonzero()`. But how many rows that has depends on values, so that the CPU would have to wait
    for the GPU before it could go on. This list is as long as all that was picked. A positive occurs as often as
    objects had picked it, with weights that add up to 1; what is no positive has weight 0.
    """
    candidates = picked.flatten(1)  # (b, g · top_k)
    valid = positive.gather(2, picked).flatten(1)  # (b, g · top_k)
    return candidates, valid / positive.sum(dim=1).gather(1, candidates).clamp(min=1)


def _inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Anchor points (a, 2) strictly inside boxes (b, g, 4): bool (b, g, a)."""
    left_top, right_bottom = boxes[:, :, None].chunk(2, dim=-1)  # (b, g, 1, 2) each
    return torch.minimum(points - left_top, right_bottom - points).amin(dim=-1) > INSIDE


def _padded(targets: Sequence[Targets], raw: RawPredictions) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Targets as boxes (b, g, 4), labels, weights and a mask of the real ones (b, g), on the predictions' device."""
    b, _, k = raw.class_logits.shape
    if len(targets) != b:
        raise ValueError(
            f"There are targets for {len(targets)} images and predictions for {b}; give one Targets per image."
        )
    for i, (boxes, labels, weights) in enumerate(targets):
        if boxes.ndim != 2 or boxes.shape[1] != 4 or not labels.shape == weights.shape == boxes.shape[:1]:
            shapes = ", ".join(str(tuple(values.shape)) for values in targets[i])
            raise ValueError(f"targets[{i}] must hold boxes (n, 4), labels (n,) and weights (n,), but has {shapes}.")
    device = raw.class_logits.device
    counts = torch.tensor([len(target.labels) for target in targets])
    if not counts.any():  # one row that does not exist, so that what follows needs no case of its own
        targets = [Targets(torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64))] * b
    boxes = pad_sequence([t.boxes for t in targets], batch_first=True).to(device, torch.float32)  # (b, g, 4)
    labels = pad_sequence([t.labels for t in targets], batch_first=True).to(device, torch.int64)  # (b, g)
    weights = pad_sequence([t.weights for t in targets], batch_first=True, padding_value=1).to(device, torch.float32)
    exists = (torch.arange(labels.shape[1]) < counts[:, None]).to(device)  # (b, g)
    if device.type == "cpu":  # on a GPU these checks would wait for it
        if not bool(((labels >= 0) & (labels < k)).all()):
            raise ValueError(
                f"A target label is outside 0 … {k - 1}, the classes of the model; check num_classes and the labels."
            )
        if not bool(((weights > 0) & (weights <= 1)).all()):
            raise ValueError("A target's weight is outside (0, 1]: leave an object out rather than give it weight 0.")
    return boxes, labels, weights, exists
