"""Exercises of notebook 08 (distillation): kd_class_loss, kd_dfl_loss."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from yolonas_lab.teaching.exercises import Case, CheckFailed, Exercise, Exercises


def kd_class_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    p, q = (student / temperature).sigmoid(), (teacher.detach() / temperature).sigmoid()  # (a, k)
    cross_entropy = -(q * p.log() + (1 - q) * (1 - p).log())
    return ((q - p) ** 2 * cross_entropy).sum(dim=1) * temperature**2


def kd_dfl_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    log_p = (student / temperature).log_softmax(dim=2)  # (a, 4, r)
    log_q = (teacher.detach() / temperature).log_softmax(dim=2)
    divergence = (log_q.exp() * (log_q - log_p)).sum(dim=2)  # (a, 4)
    return divergence.mean(dim=1) * temperature**2


# Both losses name and use the temperature alike.
TEMPERATURE_MISTAKES = {
    "teacher.detach() -> teacher": "the loss also sends a gradient to the teacher, who should not learn: "
    "teacher.detach().",
    "* temperature**2 ->": "the factor T² is missing: dividing the logits by T makes the gradient T² times smaller.",
    "temperature**2 -> temperature": "the factor is T², not T: one T comes from p and q, which lie closer together, "
    "one from the slope.",
    "student / temperature -> student": "the student's logits must be divided by the temperature, too.",
    "teacher.detach() / temperature -> teacher.detach()": "the teacher's logits must be divided by the temperature, "
    "too.",
    "/ temperature) -> )": "neither logits are divided by the temperature.",
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
        mistakes={
            "sigmoid() -> softmax(dim=1)": "these scores add up to 1: each class of a detector has a sigmoid of its "
            "own, no softmax.",
            "(q - p) ** 2 * ->": "the weight (q - p)² is missing.",
            "(q - p) ** 2 -> (q - p).abs()": "the weight is (q - p) squared.",
            " + (1 - q) * (1 - p).log() ->": "the second half of the cross-entropy is missing: (1 - q) · log(1 - p), "
            "what is not there.",
            "p, q = -> q, p =": "teacher and student have changed places: the teacher's score q is the target, the "
            "student's p stands in the logarithm.",
            ".sum(dim=1) -> .mean(dim=1)": "take the sum over the classes, not their mean.",
            **TEMPERATURE_MISTAKES,
        },
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
        mistakes={
            "log_softmax(dim=2) -> log_softmax(dim=1)": "this softmax runs over the four sides; it must run over the "
            "bins, the last axis.",
            "divergence = -> log_p, log_q = log_q, log_p; divergence =": "the divergence is the wrong way round: the "
            "teacher's probabilities stand in front, KL(q ‖ p).",
            "(log_q - log_p) -> (-log_p)": "this is the cross-entropy; subtract the teacher's own entropy, so that "
            "agreement costs 0.",
            "return divergence -> return -divergence": "the sign: a divergence is never below 0.",
            ".mean(dim=1) -> .sum(dim=1)": "take the mean over the four sides, not their sum.",
            **TEMPERATURE_MISTAKES,
        },
    ),
)
hint, solution = EXERCISES.hint, EXERCISES.solution
check_kd_class_loss, check_kd_dfl_loss = EXERCISES["kd_class_loss"].check, EXERCISES["kd_dfl_loss"].check
