"""The head that YOLO-NAS has not: four numbers per anchor point instead of four distributions, to measure DFL against.

Notebook 05. The distances of FCOS (Tian et al., arXiv 1904.01355, section 3.1), learned with GIoU and L1. A number is
written as the distribution that is sure of it, so that decoding, assignment and evaluation are those of YOLO-NAS.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolonas_lab.losses import Targets, assign, distances_to_sides
from yolonas_lab.losses.detection import box_losses, varifocal_loss
from yolonas_lab.models import RawPredictions, YoloNAS, YoloNASConfig

ALMOST_NOTHING = 1e-9  # probability of the bins that a sure distribution does not use; 0 has no logarithm


class PlainBoxYoloNAS(YoloNAS):
    """YOLO-NAS whose heads predict the four distances themselves, in strides, from 0 to the config's reg_max.

    All other layers start with the weights that YoloNAS has after the same torch.manual_seed, and untrained boxes are
    as large as those of a DFL head whose bias is -bias_slope · bin.
    """

    def __init__(self, config: YoloNASConfig, num_classes: int, bias_slope: float):
        super().__init__(config, num_classes)
        self.bins = config.reg_max + 1
        start = expectation(-bias_slope * torch.arange(self.bins, dtype=torch.float64)).item()
        bias = math.log(math.expm1(start))  # its softplus is start
        for head in self.heads.levels:
            head.box_pred = nn.Conv2d(head.box_pred.in_channels, 4, 1)  # type: ignore[union-attr,arg-type]
            nn.init.constant_(head.box_pred.bias, bias)  # type: ignore[arg-type]
        self.heads.reg_max = 0  # box_logits (b, a, 4, 1)

    def forward(self, images: Tensor) -> RawPredictions:
        raw = super().forward(images)
        distances = F.softplus(raw.box_logits.squeeze(3))  # (b, a, 4) in strides, never negative
        return raw._replace(box_logits=sure_distribution(distances, self.bins))


def sure_distribution(distances: Tensor, bins: int) -> Tensor:
    """Distances (…) in strides -> logits (…, r) with all probability on the two bins beside each distance.

    Their expectation is the distance (within 0 … r - 1), and its gradient reaches the distance unchanged.
    """
    distances = distances.clamp(0, bins - 1)
    bin_values = torch.arange(bins, device=distances.device, dtype=distances.dtype)  # (r,)
    probability = 1 - (distances[..., None] - bin_values).abs()  # (…, r)
    return probability.clamp(min=ALMOST_NOTHING).log()


def expectation(box_logits: Tensor) -> Tensor:
    """Mean of the distributions over the bins: (…, r) -> (…), in strides."""
    return box_logits.softmax(dim=-1) @ torch.arange(box_logits.shape[-1], dtype=box_logits.dtype)


class PlainLossParts(NamedTuple):
    """The loss and its three parts, already weighted: total is their sum. Scalars."""

    total: Tensor
    classification: Tensor
    iou: Tensor
    l1: Tensor


def plain_box_loss(
    raw: RawPredictions, targets: Sequence[Targets], iou_weight: float = 2.5, l1_weight: float = 0.5
) -> PlainLossParts:
    """The loss of YOLO-NAS with L1 in the place of DFL: mean error of the four distances in strides, weighted and
    normalised alike.
    """
    assignment = assign(raw, targets)
    total_quality = assignment.quality.sum().clamp(min=1)
    classification = varifocal_loss(raw.class_logits, assignment) / total_quality
    iou = iou_weight * box_losses(raw, assignment)[0] / total_quality
    reg_max = raw.box_logits.shape[-1] - 1
    true = distances_to_sides(raw.anchor_points, assignment.boxes, raw.strides, reg_max)  # (b, a, 4)
    error = (expectation(raw.box_logits) - true).abs().mean(dim=2)  # (b, a); quality is 0 at background
    l1 = l1_weight * (error * assignment.quality).sum() / total_quality
    return PlainLossParts(classification + iou + l1, classification, iou, l1)
