"""Distillation: a student learns what a teacher says, its scores and its box sides as distributions over the bins.

Notebook 08. Hinton et al., arXiv 1503.02531 (soft targets, temperature); Zheng et al., "Localization Distillation",
arXiv 2102.12252, section 3 (the bins); scores in the quality-focal form of Li et al., arXiv 2006.04388, equation 5.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from yolonas_lab.common import decisive
from yolonas_lab.models.yolo_nas import RawPredictions


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """How much of the loss is the teacher's: weights beside the 1, 2.5 and 0.5 of the YOLO-NAS loss, 0 for none."""

    class_weight: float = 3.0
    dfl_weight: float = 3.0
    temperature: float = 2.0  # logits of both are divided by it: above 1, what is unlikely counts more
    gamma: float = 2.0  # scores that agree count less: the cross-entropy is weighted |difference|^gamma

    def __post_init__(self) -> None:
        for name in ("class_weight", "dfl_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}: give 0 or more.")
        if self.class_weight == self.dfl_weight == 0:
            raise ValueError("class_weight and dfl_weight are both 0: nothing would be learnt from the teacher.")
        _check(self.temperature, self.gamma)

    def decisive(self) -> dict[str, float]:
        """What a fingerprint takes in of these settings."""
        return decisive(self, first=("class_weight", "dfl_weight", "temperature", "gamma"))


class DistilledParts(NamedTuple):
    """The loss of a student: LossParts, and what its teacher adds; all but total are weighted. Scalars."""

    total: Tensor
    classification: Tensor
    iou: Tensor
    dfl: Tensor
    kd_class: Tensor
    kd_dfl: Tensor


def distillation_losses(
    student: RawPredictions,
    teacher: RawPredictions,
    config: DistillConfig,
    normalizer: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """The class part and the DFL part of what a student still has to learn from its teacher, weighted: two scalars.

    Each point counts as much as the teacher is sure of it; the sums are divided by how sure it is in all (at least 1),
    or by what `normalizer` makes of that where several processes share a batch. No gradient reaches the teacher.
    Raises ValueError where they have other classes, bins or points.
    """
    _check_alike(student, teacher)
    sure, t = confidence(teacher.class_logits), config.temperature  # (b, a)
    total = sure.sum().clamp(min=1) if normalizer is None else normalizer(sure.sum())
    classes = kd_class_loss(student.class_logits.float(), teacher.class_logits.float(), t, config.gamma)  # (b, a)
    sides = kd_dfl_loss(student.box_logits.float(), teacher.box_logits.float(), t)  # (b, a)
    return (classes * sure).sum() / total * config.class_weight, (sides * sure).sum() / total * config.dfl_weight


def confidence(class_logits: Tensor) -> Tensor:
    """How sure a teacher is that an object is there: its best score at each point, (…, k) -> (…) in [0, 1]."""
    return class_logits.detach().float().amax(dim=-1).sigmoid()


def kd_class_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0, gamma: float = 2.0) -> Tensor:
    """Sum over the classes of the quality-focal loss against the teacher's scores: logits (…, k), (…, k) -> (…).

    |q - p|^gamma · cross-entropy(p, q), with scores p and q at the temperature T, times T², which keeps the gradient's
    size where the temperature is high. From gamma 1 on it is 0 where both agree, and from above 1 the gradient fades
    towards that; gamma 0 is the plain cross-entropy. Raises ValueError for a temperature that is not above 0 and for a
    gamma below 1 that is not 0.
    """
    _check(temperature, gamma)
    logits, q = student / temperature, (teacher.detach() / temperature).sigmoid()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, q, reduction="none")
    focus = (q - logits.sigmoid()).abs().pow(gamma) if gamma else 1.0
    return (focus * cross_entropy).sum(dim=-1) * temperature**2


def kd_dfl_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean over the four sides of KL(teacher ‖ student) over the bins: logits (…, 4, r), (…, 4, r) -> (…).

    Both distributions are taken at the temperature T; times T², which keeps the gradient's size where the temperature
    is high. Raises ValueError for a temperature that is not above 0.
    """
    _check(temperature)
    log_p = F.log_softmax(student / temperature, dim=-1)
    log_q = F.log_softmax(teacher.detach() / temperature, dim=-1)
    return (log_q.exp() * (log_q - log_p)).sum(dim=-1).mean(dim=-1) * temperature**2


def _check(temperature: float, gamma: float = 0.0) -> None:
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature is {temperature}: give a number above 0; 1 leaves distributions as they are.")
    if gamma != 0 and not 1 <= gamma < math.inf:  # below 1 the gradient has a pole where both agree
        raise ValueError(f"gamma is {gamma}: give 0 (all scores count alike), or a number from 1.")


def _check_alike(student: RawPredictions, teacher: RawPredictions) -> None:
    both = (student, teacher)
    sizes = [(raw.class_logits.shape[2], raw.box_logits.shape[3], raw.class_logits.shape[1]) for raw in both]
    for name, of_student, of_teacher in zip(("classes", "bins", "anchor points"), *sizes):
        if of_student != of_teacher:
            raise ValueError(
                f"The teacher predicts {of_teacher} {name} and the student {of_student}: they are compared one by "
                f"one; take a teacher with {of_student}."
            )
