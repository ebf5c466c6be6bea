"""Exercises of notebook 08 (distillation): kd_class_loss, kd_dfl_loss."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from yolonas_lab.teaching.exercises import Case, CheckFailed, Exercise, Exercises, faults


def kd_class_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    p, q = (student / temperature).sigmoid(), (teacher.detach() / temperature).sigmoid()  # (a, k)
    cross_entropy = -(q * p.log() + (1 - q) * (1 - p).log())
    return ((q - p) ** 2 * cross_entropy).sum(dim=1) * temperature**2


def kd_dfl_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    log_p = (student / temperature).log_softmax(dim=2)  # (a, 4, r)
    log_q = (teacher.detach() / temperature).log_softmax(dim=2)
    divergence = (log_q.exp() * (log_q - log_p)).sum(dim=2)  # (a, 4)
    return divergence.mean(dim=1) * temperature**2


def _class_loss(student: Tensor, teacher: Tensor, t: float, wrong: str) -> Tensor:
    """kd_class_loss with one fault."""
    student, teacher = _tempered(student, teacher, t, wrong)
    p, q = (x.softmax(dim=1) if wrong == "softmax" else x.sigmoid() for x in (student, teacher))
    p, q = (q, p) if wrong == "exchanged" else (p, q)
    cross_entropy = -(q * p.log() + ((1 - q) * (1 - p).log() if wrong != "no_negatives" else 0))
    loss = (q - p).abs() ** {"no_weight": 0, "not_squared": 1}.get(wrong, 2) * cross_entropy
    return (loss.mean(dim=1) if wrong == "mean" else loss.sum(dim=1)) * _factor(t, wrong)


def _dfl_loss(student: Tensor, teacher: Tensor, t: float, wrong: str) -> Tensor:
    """kd_dfl_loss with one fault."""
    log_p, log_q = (x.log_softmax(1 if wrong == "over_sides" else 2) for x in _tempered(student, teacher, t, wrong))
    log_p, log_q = (log_q, log_p) if wrong == "exchanged" else (log_p, log_q)
    sides = (log_q.exp() * ((log_q if wrong != "no_entropy" else 0) - log_p)).sum(dim=2)  # (a, 4)
    loss = sides.sum(dim=1) if wrong == "sum" else sides.mean(dim=1)
    return loss * _factor(t, wrong) * (-1 if wrong == "sign" else 1)


def _tempered(student: Tensor, teacher: Tensor, t: float, wrong: str) -> tuple[Tensor, Tensor]:
    teacher = teacher if wrong == "not_detached" else teacher.detach()
    student = student if wrong in ("student_without_t", "without_t") else student / t
    return student, teacher if wrong in ("teacher_without_t", "without_t") else teacher / t


def _factor(t: float, wrong: str) -> float:
    return t ** {"no_factor": 0, "factor_t": 1}.get(wrong, 2)


TEMPERATURE_FAULTS = {
    "not_detached": "the loss also sends a gradient to the teacher, who should not learn: teacher.detach().",
    "no_factor": "the factor T² is missing: dividing the logits by T makes the gradient T² times smaller.",
    "factor_t": "the factor is T², not T: one T comes from p and q, which lie closer together, one from the slope.",
    "student_without_t": "the student's logits must be divided by the temperature, too.",
    "teacher_without_t": "the teacher's logits must be divided by the temperature, too.",
    "without_t": "neither logits are divided by the temperature.",
}


def _with_gradients(fn: Callable[..., Any]) -> Callable[..., Any]:
    """fn's values, and the gradients that their sum sends to the student and to the teacher."""

    def loss_and_gradients(student: Tensor, teacher: Tensor, temperature: float) -> Any:
        leaves = student.clone().requires_grad_(), teacher.clone().requires_grad_()
        loss = fn(*leaves, temperature)
        if not isinstance(loss, Tensor):
            return loss
        if not loss.requires_grad:
            raise CheckFailed("no gradient comes back at all: detach the teacher alone, not the student.")
        gradients = torch.autograd.grad(loss.sum(), leaves, allow_unused=True, materialize_grads=True)
        return loss.detach(), *gradients

    return loss_and_gradients


def _random_logits(seed: int, *shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator) * 2, torch.randn(*shape, generator=generator) * 2


def _class_cases() -> list[Case]:
    by_hand = torch.tensor([[0.4, 0.1]]).logit(), torch.tensor([[0.8, 0.1]]).logit()
    return [
        Case((*by_hand, 1.0), "the two classes of the text, temperature 1"),
        Case((*by_hand, 2.0), "the same logits at temperature 2"),
        Case((*_random_logits(0, 5, 6), 1.0), "5 points, 6 classes, random"),
        Case((*_random_logits(1, 5, 6), 3.0), "5 points, 6 classes, temperature 3"),
    ]


def _dfl_cases() -> list[Case]:
    teacher = torch.tensor([0.1, 0.6, 0.3]).log().expand(1, 4, 3).clone()
    student = teacher.clone()
    student[0, 1] = torch.tensor([0.2, 0.5, 0.3]).log()
    return [
        Case((student, teacher, 1.0), "one side differs, three agree"),
        Case((student, teacher, 2.0), "the same logits at temperature 2"),
        Case((*_random_logits(2, 5, 4, 9), 1.0), "5 points, 9 bins, random"),
        Case((*_random_logits(3, 5, 4, 9), 3.0), "5 points, 9 bins, temperature 3"),
    ]


EXERCISES = Exercises(
    Exercise(
        kd_class_loss,
        hints=(
            "Four steps: logits to scores at the temperature, the cross-entropy, its weight, the sum over the classes.",
            "p = (student / temperature).sigmoid(), and q likewise from teacher.detach(). The weight of a class is "
            "(q - p) ** 2. At the end, temperature ** 2.",
            "cross_entropy = -(q * p.log() + (1 - q) * (1 - p).log()); return the sum over dim 1 of (q - p) ** 2 times "
            "it, times temperature ** 2.",
        ),
        cases=_class_cases,
        probe=_with_gradients,
        mistakes=faults(
            _class_loss,
            softmax="these scores add up to 1: each class of a detector has a sigmoid of its own, no softmax.",
            no_weight="the weight (q - p)² is missing.",
            not_squared="the weight is (q - p) squared.",
            no_negatives="the second half of the cross-entropy is missing: (1 - q) · log(1 - p), what is not there.",
            exchanged="teacher and student have changed places: the teacher's score q is the target, the student's p "
            "stands in the logarithm.",
            mean="take the sum over the classes, not their mean.",
            **TEMPERATURE_FAULTS,
        ),
    ),
    Exercise(
        kd_dfl_loss,
        hints=(
            "A softmax over the bins for each side, then the divergence over the bins, then the mean over the four "
            "sides.",
            "log_softmax(dim=2) of student / temperature and of teacher.detach() / temperature. KL(q ‖ p) is the sum "
            "of q · (log q - log p): the teacher's probabilities stand in front.",
            "(log_q.exp() * (log_q - log_p)).sum(dim=2).mean(dim=1) * temperature ** 2",
        ),
        cases=_dfl_cases,
        probe=_with_gradients,
        mistakes=faults(
            _dfl_loss,
            over_sides="this softmax runs over the four sides; it must run over the bins, the last axis.",
            exchanged="the divergence is the wrong way round: the teacher's probabilities stand in front, KL(q ‖ p).",
            no_entropy="this is the cross-entropy; subtract the teacher's own entropy, so that agreement costs 0.",
            sign="the sign: a divergence is never below 0.",
            sum="take the mean over the four sides, not their sum.",
            **TEMPERATURE_FAULTS,
        ),
    ),
)
hint, solution = EXERCISES.hint, EXERCISES.solution
check_kd_class_loss, check_kd_dfl_loss = EXERCISES["kd_class_loss"].check, EXERCISES["kd_dfl_loss"].check
