"""The loss of YOLO-NAS: varifocal for classes, GIoU and DFL for boxes, on what task-aligned assignment decides.

Notebook 05. super-gradients' `PPYoloELoss(use_static_assigner=False)`; varifocal: Zhang et al., arXiv 2008.13367,
equation 2; GIoU: Rezatofighi et al., arXiv 1902.09630; DFL, which teaches a distribution over bins to have its mass
around a real-valued distance: Li et al., "Generalized Focal Loss", arXiv 2006.04388, section 3.2.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolonas_lab.boxes import paired_giou
from yolonas_lab.data.coco import Targets
from yolonas_lab.losses.assign import Assignment, assign
from yolonas_lab.models.yolo_nas import RawPredictions, decode_boxes


class LossParts(NamedTuple):
    """The loss and its three parts, already weighted: total is their sum. Scalars."""

    total: Tensor
    classification: Tensor
    iou: Tensor
    dfl: Tensor


class DetectionLoss(nn.Module):
    """The YOLO-NAS loss with its published weights: classification 1, GIoU 2.5, DFL 0.5.

    Call it with RawPredictions and one Targets per image. All parts are summed over the batch and divided by the sum of
    the assigned qualities (at least 1), so a batch without any object still teaches the background. Where several
    processes share a batch, `normalizer` turns this process's sum of qualities into what to divide by.

    An object's weight multiplies all that its anchor points learn (every class score and the box) and their share of
    that sum. So a box with a weight near 0 teaches nothing, neither that an object is there nor that none is.

    >>> import yolonas_lab as yl
    >>> raw = yl.models.get("yolo_nas_pico", num_classes=3)(torch.zeros(1, 3, 64, 64))
    >>> target = Targets(boxes=torch.tensor([[4.0, 4, 40, 40]]), labels=torch.tensor([2]))
    >>> parts = DetectionLoss(num_classes=3)(raw, [target])
    >>> bool(torch.isclose(parts.total, parts.classification + parts.iou + parts.dfl))
    True
    """

    def __init__(
        self,
        num_classes: int,
        classification_weight: float = 1.0,
        iou_weight: float = 2.5,
        dfl_weight: float = 0.5,
        normalizer: Callable[[Tensor], Tensor] | None = None,
    ):
        super().__init__()
        self.num_classes = num_classes
        self.classification_weight = classification_weight
        self.iou_weight = iou_weight
        self.dfl_weight = dfl_weight
        self.normalizer = normalizer or _at_least_one

    def forward(self, raw: RawPredictions, targets: Sequence[Targets]) -> LossParts:
        if raw.class_logits.shape[2] != self.num_classes:
            raise ValueError(
                f"The model predicts {raw.class_logits.shape[2]} classes, but the loss was made for {self.num_classes}."
            )
        assignment = assign(raw, targets)
        total_quality = self.normalizer((assignment.quality * assignment.weights).sum())
        classification = varifocal_loss(raw.class_logits, assignment) / total_quality
        iou, dfl = (part / total_quality for part in box_losses(raw, assignment))
        parts = classification * self.classification_weight, iou * self.iou_weight, dfl * self.dfl_weight
        return LossParts(sum(parts, torch.zeros_like(classification)), *parts)


def _at_least_one(total_quality: Tensor) -> Tensor:
    return total_quality.clamp(min=1)


def varifocal_loss(logits: Tensor, assignment: Assignment, alpha: float = 0.75, gamma: float = 2.0) -> Tensor:
    """Sum of the varifocal loss over all points and classes: logits (b, a, k) -> scalar.

    Where nothing is assigned the target is 0, weighted alpha · p^gamma, so that easy background fades; at the assigned
    class the target is the quality q, weighted q. Each point's sum is multiplied by its object's weight.
    """
    logits = logits.float()
    # softplus(x) = -log(1 - p): every class of every point as if nothing were there, and then the one assigned class of
    # each positive corrected, so that no tensor of targets (b, a, k) has to be made
    negative = alpha * logits.sigmoid().pow(gamma) * F.softplus(logits)  # (b, a, k)
    label = assignment.labels.clamp(max=logits.shape[2] - 1)[..., None]  # (b, a, 1); of background any: masked below
    assigned = logits.gather(2, label).squeeze(2)  # (b, a) logit of the assigned class
    q = assignment.quality
    positive = q * F.binary_cross_entropy_with_logits(assigned, q, reduction="none")
    instead = negative.gather(2, label).squeeze(2)  # (b, a) what `negative` counts at that class
    is_object = assignment.labels < logits.shape[2]
    correction = (positive - instead) * is_object  # (b, a)
    return (negative * assignment.weights[..., None]).sum() + (correction * assignment.weights).sum()


def box_losses(raw: RawPredictions, assignment: Assignment) -> tuple[Tensor, Tensor]:
    """Sums over the positives of the GIoU loss and the DFL loss, each times quality and weight: two scalars."""
    index = assignment.candidates  # (b, m)
    quality = assignment.quality * assignment.weights
    weight = quality.gather(1, index) * assignment.candidate_weights  # (b, m)
    logits = _at(raw.box_logits.flatten(2), index).unflatten(2, raw.box_logits.shape[2:]).float()  # (b, m, 4, r)
    boxes = _at(assignment.boxes, index)  # (b, m, 4) px
    points, strides = raw.anchor_points[index], raw.strides[index]  # (b, m, 2), (b, m, 1) px
    predicted = decode_boxes(logits, points, strides)  # (b, m, 4) px
    distances = distances_to_sides(points, boxes, strides, reg_max=logits.shape[-1] - 1)
    giou = 1 - paired_giou(predicted, boxes)
    return (giou * weight).sum(), (dfl_loss(logits, distances) * weight).sum()


def _at(values: Tensor, index: Tensor) -> Tensor:
    """Rows of values (b, a, c) at index (b, m): (b, m, c)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[2]))


def distances_to_sides(points: Tensor, boxes: Tensor, strides: Tensor, reg_max: int) -> Tensor:
    """Distances (…, 4) from points (…, 2) px to the left, top, right and bottom of boxes (…, 4) px, in strides (…, 1).

    Clipped to [0, reg_max - 0.01], so that the bin to the right of a distance always exists.
    """
    left_top, right_bottom = boxes.chunk(2, dim=-1)
    distances = torch.cat([points - left_top, right_bottom - points], dim=-1) / strides  # (…, 4)
    return distances.clamp(0, reg_max - 0.01)


def dfl_loss(logits: Tensor, distances: Tensor) -> Tensor:
    """Mean over the four sides of the cross-entropy to the two bins beside each distance: (…, 4, r), (…, 4) -> (…).

    The lower bin has weight 1 - fraction, the upper one fraction; the minimum is where the expectation is exact.
    """
    lower = distances.long()  # (…, 4)
    fraction = distances - lower
    log_p = F.log_softmax(logits, dim=-1)  # (…, 4, r)
    both = log_p.gather(-1, torch.stack([lower, lower + 1], dim=-1))  # (…, 4, 2)
    return -((1 - fraction) * both[..., 0] + fraction * both[..., 1]).mean(dim=-1)
