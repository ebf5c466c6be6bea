"""Claim: the distribution head (DFL) finds boxes better than a head that predicts the four distances themselves.

Notebook 05. Li et al., "Generalized Focal Loss", arXiv 2006.04388, table 2. Both heads use task-aligned assignment,
the same network, data, steps and initial boxes. The plain head learns the distances of FCOS (Tian et al., arXiv
1904.01355, section 3.1) with GIoU and L1; it writes a number as the distribution that is sure of it, so that decoding,
assignment and evaluation are those of YOLO-NAS.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolonas_lab.common import fingerprint
from yolonas_lab.evaluate import evaluate
from yolonas_lab.experiments import scenes
from yolonas_lab.experiments.harness import Claim, Numbers
from yolonas_lab.losses import Targets, assign, distances_to_sides
from yolonas_lab.losses.detection import box_losses, varifocal_loss
from yolonas_lab.models import CONFIGS, RawPredictions, YoloNAS, YoloNASConfig
from yolonas_lab.training import LAB, Hooks, fit

CONDITIONS = {
    "short": {"steps": 500, "difficulty": 0.5},
    "long": {"steps": 1500, "difficulty": 0.5},
    "hard": {"steps": 1500, "difficulty": 0.75},
}
SETTINGS = {
    "model": "yolo_nas_pico",
    "image_size": 64,  # px
    "train_images": 2000,
    "val_images": 500,
    "data_seed": 0,
    "conditions": CONDITIONS,
    "l1_weight": 0.5,  # of the plain head; DFL's published weight
    "recipe": scenes.RECIPE,
}
METRICS = ("ap", "ap50", "ap75")
ALMOST_NOTHING = 1e-9  # probability of the bins that a sure distribution does not use; 0 has no logarithm


def run(seed: int, budget: float = 1.0, conditions: Sequence[str] = tuple(CONDITIONS)) -> Numbers:
    """AP of both heads in each condition ("dfl short", "plain short", …), trained with budget times its steps."""
    numbers = {}
    for condition in conditions:
        steps = max(1, round(budget * CONDITIONS[condition]["steps"]))
        config = dataclasses.replace(LAB, steps=steps, seed=seed, image_size=SETTINGS["image_size"])
        train_set, val_set = scenes.datasets(SETTINGS | {"difficulty": CONDITIONS[condition]["difficulty"]})
        for head in ("dfl", "plain"):
            model = make_model(head, len(train_set.class_names), seed)
            if head == "dfl":
                fit(model, train_set, None, config)
            else:  # its box layers are started by make_model
                hooks = Hooks(compute_loss=lambda raw, batch: plain_box_loss(raw, batch.targets))
                fit(model, train_set, None, dataclasses.replace(config, box_bias_slope=None), hooks)
            found = evaluate(model, val_set, image_size=config.image_size, progress=False)
            numbers[f"{head} {condition}"] = {metric: getattr(found, metric) for metric in METRICS}
    return numbers


def data_digest() -> str:
    """Fingerprint of the scenes of all conditions."""
    levels = sorted({condition["difficulty"] for condition in CONDITIONS.values()})
    return fingerprint("".join(scenes.scenes_digest(SETTINGS | {"difficulty": level}) for level in levels))


def make_model(head: str, num_classes: int, seed: int) -> YoloNAS:
    """The network with a "dfl" or a "plain" box head; everything but the box layers starts with the same weights."""
    config = CONFIGS[SETTINGS["model"]]
    torch.manual_seed(seed)
    if head == "dfl":
        return YoloNAS(config, num_classes)
    assert LAB.box_bias_slope is not None
    return PlainBoxYoloNAS(config, num_classes, LAB.box_bias_slope)


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
        return raw._replace(box_logits=sure_distribution(distances, self.bins))  # (b, a, 4, r)


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
    raw: RawPredictions, targets: Sequence[Targets], iou_weight: float = 2.5, l1_weight: float = SETTINGS["l1_weight"]
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


DFL_HEAD = Claim(
    name="dfl_head",
    question=(
        "Does predicting each box side as a distribution (DFL) give a higher AP than predicting it as one number?"
    ),
    settings=SETTINGS,
    metrics=METRICS,
    comparisons=tuple((f"dfl {condition}", f"plain {condition}") for condition in CONDITIONS),
    run=run,
    data_digest=data_digest,
)
CLAIMS = (DFL_HEAD,)
