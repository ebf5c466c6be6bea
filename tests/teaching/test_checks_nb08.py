import pytest
import torch
import torch.nn.functional as F
from open_exercise import assert_called_open

from yolonas_lab import losses
from yolonas_lab.teaching.checks import nb08
from yolonas_lab.teaching.checks import nb08 as made
from yolonas_lab.teaching.exercises import CheckFailed

CHECKS = {"kd_class_loss": nb08.check_kd_class_loss, "kd_dfl_loss": nb08.check_kd_dfl_loss}


@pytest.mark.parametrize("name", CHECKS)
def test_reference_solutions_pass(name, capsys):
    CHECKS[name](nb08.SOLUTIONS[name])
    assert capsys.readouterr().out.startswith(f"✓ {name}")


def test_solutions_written_in_another_way_pass():
    def with_pytorch(student, teacher, temperature):
        q = torch.sigmoid(teacher.detach() / temperature)
        bce = F.binary_cross_entropy_with_logits(student / temperature, q, reduction="none")
        return (bce * (q - torch.sigmoid(student / temperature)) ** 2).sum(-1) * temperature**2

    def with_kl_div(student, teacher, temperature):
        with torch.no_grad():
            q = (teacher / temperature).softmax(-1)
        return F.kl_div((student / temperature).log_softmax(-1), q, reduction="none").sum(-1).mean(-1) * temperature**2

    nb08.check_kd_class_loss(with_pytorch)
    nb08.check_kd_class_loss(losses.kd_class_loss)
    nb08.check_kd_dfl_loss(with_kl_div)
    nb08.check_kd_dfl_loss(losses.kd_dfl_loss)


def changed(function, **changes):
    return lambda student, teacher, temperature: function(student, teacher, temperature, **changes)


WRONG = [
    ("kd_class_loss", changed(made.class_variant, scores=lambda x: x.softmax(dim=1)), "sigmoid of its own"),
    ("kd_class_loss", changed(made.class_variant, focus=0), "weight .* is missing"),
    ("kd_class_loss", changed(made.class_variant, focus=1), "squared"),
    ("kd_class_loss", changed(made.class_variant, negatives=False), "second half"),
    ("kd_class_loss", changed(made.class_variant, swap=True), "changed places"),
    ("kd_class_loss", changed(made.class_variant, detach=False), "should not learn"),
    ("kd_class_loss", changed(made.class_variant, mean=True), "not their mean"),
    ("kd_class_loss", changed(made.class_variant, power=0), "T² is missing"),
    ("kd_class_loss", changed(made.class_variant, power=1), "not T"),
    ("kd_class_loss", changed(made.class_variant, student_t=False), "student's logits"),
    ("kd_class_loss", changed(made.class_variant, teacher_t=False), "teacher's logits"),
    ("kd_class_loss", lambda s, t, temp: nb08.kd_class_loss(s.detach(), t, temp), "teacher alone"),
    ("kd_class_loss", lambda s, t, temp: nb08.kd_class_loss(s, t, temp).sum(), "expected"),
    ("kd_class_loss", lambda s, t, temp: None, "returned None"),
    ("kd_dfl_loss", changed(made.dfl_variant, over=1), "over the bins"),
    ("kd_dfl_loss", changed(made.dfl_variant, swap=True), "wrong way round"),
    ("kd_dfl_loss", changed(made.dfl_variant, entropy=False), "cross-entropy"),
    ("kd_dfl_loss", changed(made.dfl_variant, sign=-1), "the sign"),
    ("kd_dfl_loss", changed(made.dfl_variant, total=True), "not their sum"),
    ("kd_dfl_loss", changed(made.dfl_variant, detach=False), "should not learn"),
    ("kd_dfl_loss", changed(made.dfl_variant, power=0), "T² is missing"),
    ("kd_dfl_loss", changed(made.dfl_variant, power=1), "not T"),
    ("kd_dfl_loss", changed(made.dfl_variant, student_t=False), "student's logits"),
    ("kd_dfl_loss", changed(made.dfl_variant, teacher_t=False), "teacher's logits"),
    ("kd_dfl_loss", lambda s, t, temp: nb08.kd_dfl_loss(s, t, temp).mean(), "expected"),
]


@pytest.mark.parametrize(("name", "wrong", "advice"), WRONG)
def test_wrong_solutions_are_told_what_is_wrong(name, wrong, advice):
    with pytest.raises(CheckFailed, match=advice):
        CHECKS[name](wrong)


@pytest.mark.parametrize("name", CHECKS)
def test_an_open_exercise_is_called_open(name):
    assert_called_open(CHECKS[name])
    with pytest.raises(CheckFailed, match="give the check your function"):
        CHECKS[name](None)


@pytest.mark.parametrize("name", CHECKS)
def test_the_reference_is_the_library_s_function(name):
    shape = (7, 6) if name == "kd_class_loss" else (7, 4, 9)
    student, teacher = made.random_logits(8, *shape)
    for temperature in (1.0, 2.0, 5.0):
        expected = getattr(losses, name)(student, teacher, temperature)
        torch.testing.assert_close(nb08.SOLUTIONS[name](student, teacher, temperature), expected)


@pytest.mark.parametrize("name", CHECKS)
def test_every_exercise_has_graded_hints_and_a_solution(name, capsys):
    assert 2 <= len(nb08.HINTS[name]) <= 3
    for level in range(1, len(nb08.HINTS[name]) + 1):
        nb08.hint(name, level)
    nb08.solution(name)
    assert f"def {name}(" in capsys.readouterr().out
