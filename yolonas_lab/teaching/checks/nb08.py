"""Exercises of notebook 08 (distillation): kd_class_loss, kd_dfl_loss."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from yolonas_lab.teaching.exercises import Case, CheckFailed, Mistake, check_cases, show_hint, show_solution

# Material of notebook 08's checks: what goes wrong in a distillation loss, and seeded random arguments.


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


def kd_class_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    p, q = (student / temperature).sigmoid(), (teacher.detach() / temperature).sigmoid()  # (a, k)
    cross_entropy = -(q * p.log() + (1 - q) * (1 - p).log())
    return ((q - p) ** 2 * cross_entropy).sum(dim=1) * temperature**2


def kd_dfl_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    log_p = (student / temperature).log_softmax(dim=2)  # (a, 4, r)
    log_q = (teacher.detach() / temperature).log_softmax(dim=2)
    divergence = (log_q.exp() * (log_q - log_p)).sum(dim=2)  # (a, 4)
    return divergence.mean(dim=1) * temperature**2


SOLUTIONS: dict[str, Callable[..., Any]] = {"kd_class_loss": kd_class_loss, "kd_dfl_loss": kd_dfl_loss}
HINTS = {
    "kd_class_loss": (
        "Four steps: logits to scores at the temperature, the cross-entropy, its weight, the sum over the classes.",
        "p = (student / temperature).sigmoid(), and q likewise from teacher.detach(). The weight of a class is "
        "(q - p) ** 2. At the end, temperature ** 2.",
        "cross_entropy = -(q * p.log() + (1 - q) * (1 - p).log()); return the sum over dim 1 of (q - p) ** 2 times "
        "it, times temperature ** 2.",
    ),
    "kd_dfl_loss": (
        "A softmax over the bins for each side, then the divergence over the bins, then the mean over the four sides.",
        "log_softmax(dim=2) of student / temperature and of teacher.detach() / temperature. KL(q ‖ p) is the sum of "
        "q · (log q - log p): the teacher's probabilities stand in front.",
        "(log_q.exp() * (log_q - log_p)).sum(dim=2).mean(dim=1) * temperature ** 2",
    ),
}


def hint(name: str, level: int = 1) -> None:
    """Print a hint for an exercise of this notebook; level 1 is the gentlest."""
    show_hint(HINTS, name, level)


def solution(name: str) -> None:
    """Print the reference solution of an exercise of this notebook."""
    show_solution(SOLUTIONS, name)


def check_kd_class_loss(fn) -> None:
    """Check kd_class_loss(student (a, k), teacher (a, k), temperature) -> (a,), values and gradients."""
    by_hand = log_of([[0.4, 0.1]]), log_of([[0.8, 0.1]])
    settings = {
        "the two classes of the text, temperature 1": (*by_hand, 1.0),
        "the same logits at temperature 2": (*by_hand, 2.0),
        "5 points, 6 classes, random": (*random_logits(0, 5, 6), 1.0),
        "5 points, 6 classes, temperature 3": (*random_logits(1, 5, 6), 3.0),
    }
    _check("kd_class_loss", fn, kd_class_loss, settings, CLASS_MISTAKES)


def check_kd_dfl_loss(fn) -> None:
    """Check kd_dfl_loss(student (a, 4, r), teacher (a, 4, r), temperature) -> (a,), values and gradients."""
    teacher = torch.tensor([0.1, 0.6, 0.3]).log().expand(1, 4, 3).clone()
    student = teacher.clone()
    student[0, 1] = torch.tensor([0.2, 0.5, 0.3]).log()
    settings = {
        "one side differs, three agree": (student, teacher, 1.0),
        "the same logits at temperature 2": (student, teacher, 2.0),
        "5 points, 9 bins, random": (*random_logits(2, 5, 4, 9), 1.0),
        "5 points, 9 bins, temperature 3": (*random_logits(3, 5, 4, 9), 3.0),
    }
    _check("kd_dfl_loss", fn, kd_dfl_loss, settings, DFL_MISTAKES)


def _check(name: str, fn: Any, reference: Callable, settings: dict[str, tuple], wrong: dict[Callable, str]) -> None:
    if not callable(fn):
        raise CheckFailed(f"{name}: give the check your function itself, as in check_{name}({name}), not {fn!r:.60}.")
    cases = [Case(args, _with_gradients(name, reference)(*args), about) for about, args in settings.items()]
    mistakes = [Mistake(_with_gradients(name, function), says) for function, says in wrong.items()]
    check_cases(name, _with_gradients(name, fn), cases, mistakes)


def _with_gradients(name: str, fn: Callable[..., Any]) -> Callable[..., Any]:
    """fn's values, and the gradients that their sum sends to the student and to the teacher."""

    def loss_and_gradients(student: Tensor, teacher: Tensor, temperature: float) -> Any:
        leaves = student.clone().requires_grad_(), teacher.clone().requires_grad_()
        loss = fn(*leaves, temperature)
        if not isinstance(loss, Tensor):
            return loss
        if not loss.requires_grad:
            raise CheckFailed(f"{name}: no gradient comes back at all: detach the teacher alone, not the student.")
        gradients = torch.autograd.grad(loss.sum(), leaves, allow_unused=True, materialize_grads=True)
        return loss.detach(), *gradients

    return loss_and_gradients
