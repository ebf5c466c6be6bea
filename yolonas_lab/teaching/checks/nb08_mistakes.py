"""Material of notebook 08's checks: what goes wrong in a distillation loss, and seeded random arguments."""

from collections.abc import Callable

import torch
from torch import Tensor


def log_of(scores: list[list[float]]) -> Tensor:
    """The logits of scores."""
    return torch.tensor(scores).logit()


def random_logits(seed: int, *shape: int) -> tuple[Tensor, Tensor]:
    """Two sets of logits."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator) * 2, torch.randn(*shape, generator=generator) * 2


def class_variant(
    student: Tensor,
    teacher: Tensor,
    t: float,
    *,
    scores: Callable[[Tensor], Tensor] = torch.sigmoid,
    student_t: bool = True,
    teacher_t: bool = True,
    power: int = 2,
    focus: int = 2,
    negatives: bool = True,
    detach: bool = True,
    mean: bool = False,
    swap: bool = False,
) -> Tensor:
    """The class loss with one thing done differently."""
    wanted = teacher.detach() if detach else teacher
    p, q = scores(student / (t if student_t else 1)), scores(wanted / (t if teacher_t else 1))
    p, q = (q, p) if swap else (p, q)
    cross_entropy = -(q * p.log() + ((1 - q) * (1 - p).log() if negatives else 0))
    loss = (q - p).abs() ** focus * cross_entropy
    return (loss.mean(dim=1) if mean else loss.sum(dim=1)) * t**power


def dfl_variant(
    student: Tensor,
    teacher: Tensor,
    t: float,
    *,
    over: int = 2,
    student_t: bool = True,
    teacher_t: bool = True,
    power: int = 2,
    entropy: bool = True,
    swap: bool = False,
    detach: bool = True,
    total: bool = False,
    sign: int = 1,
) -> Tensor:
    """The DFL loss with one thing done differently."""
    wanted = teacher.detach() if detach else teacher
    log_p = (student / (t if student_t else 1)).log_softmax(dim=over)
    log_q = (wanted / (t if teacher_t else 1)).log_softmax(dim=over)
    log_p, log_q = (log_q, log_p) if swap else (log_p, log_q)
    sides = (log_q.exp() * ((log_q if entropy else 0) - log_p)).sum(dim=2)  # (a, 4)
    return sign * (sides.sum(dim=1) if total else sides.mean(dim=1)) * t**power


def _class(**changes) -> Callable[[Tensor, Tensor, float], Tensor]:
    return lambda student, teacher, t: class_variant(student, teacher, t, **changes)


def _dfl(**changes) -> Callable[[Tensor, Tensor, float], Tensor]:
    return lambda student, teacher, t: dfl_variant(student, teacher, t, **changes)


CLASS_MISTAKES = {
    _class(scores=lambda x: x.softmax(dim=1)): "these scores add up to 1: each class of a detector has a sigmoid of "
    "its own, no softmax.",
    _class(focus=0): "the weight (q - p)² is missing.",
    _class(focus=1): "the weight is (q - p) squared.",
    _class(
        negatives=False
    ): "the second half of the cross-entropy is missing: (1 - q) · log(1 - p), what is not there.",
    _class(swap=True): "teacher and student have changed places: the teacher's score q is the target, the student's p "
    "stands in the logarithm.",
    _class(detach=False): "the loss also sends a gradient to the teacher, who should not learn: teacher.detach().",
    _class(mean=True): "take the sum over the classes, not their mean.",
    _class(power=0): "the factor T² is missing: dividing the logits by T makes the gradient T² times smaller.",
    _class(
        power=1
    ): "the factor is T², not T: one T comes from p and q, which lie closer together, one from the slope.",
    _class(student_t=False): "the student's logits must be divided by the temperature, too.",
    _class(teacher_t=False): "the teacher's logits must be divided by the temperature, too.",
    _class(student_t=False, teacher_t=False): "neither logits are divided by the temperature.",
}
DFL_MISTAKES = {
    _dfl(over=1): "this softmax runs over the four sides; it must run over the bins, the last axis.",
    _dfl(swap=True): "the divergence is the wrong way round: the teacher's probabilities stand in front, KL(q ‖ p).",
    _dfl(entropy=False): "this is the cross-entropy; subtract the teacher's own entropy, so that agreement costs 0.",
    _dfl(sign=-1): "the sign: a divergence is never below 0.",
    _dfl(total=True): "take the mean over the four sides, not their sum.",
    _dfl(detach=False): "the loss also sends a gradient to the teacher, who should not learn: teacher.detach().",
    _dfl(power=0): "the factor T² is missing: dividing the logits by T makes the gradient T² times smaller.",
    _dfl(power=1): "the factor is T², not T: one T comes from p and q, which lie closer together, one from the slope.",
    _dfl(student_t=False): "the student's logits must be divided by the temperature, too.",
    _dfl(teacher_t=False): "the teacher's logits must be divided by the temperature, too.",
    _dfl(student_t=False, teacher_t=False): "neither logits are divided by the temperature.",
}
