"""What a student learns from a teacher, against its formula written out and PyTorch's own."""

import math

import pytest
import torch
import torch.nn.functional as F
from cases import predictions
from hypothesis import given
from hypothesis import strategies as st

from yolonas_lab.losses import DistillConfig, distillation_losses, kd_class_loss, kd_dfl_loss
from yolonas_lab.losses.distillation import confidence


def logits(*shape, seed=0):
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("gamma", [0, 1, 2, 2.5])
def test_the_quality_focal_loss_written_out_and_pytorchs_kl_div(temperature, gamma):
    student, teacher = logits(3, 5, 4, 9, seed=1), logits(3, 5, 4, 9, seed=2)
    p, q = ((x / temperature).sigmoid() for x in (student, teacher))
    focal = -((q - p).abs() ** gamma) * ((1 - q) * (1 - p).log() + q * p.log())
    torch.testing.assert_close(kd_class_loss(student, teacher, temperature, gamma), focal.sum(-1) * temperature**2)
    log_p, log_q = (F.log_softmax(x / temperature, dim=-1) for x in (student, teacher))
    kl = F.kl_div(log_p, log_q, reduction="none", log_target=True).sum(dim=-1)  # (3, 5, 4)
    torch.testing.assert_close(kd_dfl_loss(student, teacher, temperature), kl.mean(dim=-1) * temperature**2)


@given(st.floats(0.3, 10), st.sampled_from([1.0, 1.5, 2.0]), st.integers(0, 100))
def test_a_student_like_its_teacher_has_nothing_to_learn(temperature, gamma, seed):
    student, teacher = predictions(seed=seed), predictions(seed=seed)
    parts = distillation_losses(student, teacher, DistillConfig(temperature=temperature, gamma=gamma))
    assert [part.item() for part in parts] == pytest.approx([0, 0], abs=1e-5)
    (parts[0] + parts[1]).backward()
    for leaf in (student.class_logits, student.box_logits):
        assert leaf.grad is not None and leaf.grad.abs().max() < 1e-6
    assert teacher.class_logits.grad is None and teacher.box_logits.grad is None  # no gradient reaches the teacher


@pytest.mark.parametrize("class_shift", [2.0, -9.0])  # a teacher that sees nothing: doubts don't add up to a lesson
def test_a_point_counts_as_much_as_the_teacher_is_sure_of_it(class_shift):
    student, teacher = predictions(seed=1), predictions(seed=2, class_shift=class_shift)
    sure = teacher.class_logits.detach().sigmoid().amax(-1)  # (2, 84)
    divide_by = sure.sum().clamp(min=1)
    assert torch.equal(confidence(teacher.class_logits), sure) and (divide_by > 1) == (class_shift > 0)
    config = DistillConfig(class_weight=2.0, dfl_weight=5.0, temperature=3.0, gamma=1.5)
    expected = torch.zeros(2)
    for i, a in torch.cartesian_prod(torch.arange(2), torch.arange(84)):
        of_classes = kd_class_loss(student.class_logits[i, a], teacher.class_logits[i, a], 3.0, 1.5)
        of_sides = kd_dfl_loss(student.box_logits[i, a], teacher.box_logits[i, a], 3.0)
        expected += sure[i, a] / divide_by * torch.stack([2 * of_classes, 5 * of_sides])
    got = torch.stack(distillation_losses(student, teacher, config))
    torch.testing.assert_close(got, expected)
    halved = distillation_losses(student, teacher, config, normalizer=lambda total: divide_by / 2)
    torch.testing.assert_close(torch.stack(halved), 2 * got)


def test_bfloat16_predictions_are_compared_in_float32():
    student, teacher = predictions(seed=1), predictions(seed=2)
    half = student._replace(class_logits=student.class_logits.bfloat16(), box_logits=student.box_logits.bfloat16())
    got, expected = (torch.stack(distillation_losses(s, teacher, DistillConfig())) for s in (half, student))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=0.02, atol=0)


ZEROS = torch.zeros(4, 3)
BAD = [
    (lambda: DistillConfig(class_weight=-1.0), "class_weight is -1"),
    (lambda: DistillConfig(dfl_weight=math.nan), "dfl_weight is nan"),
    (lambda: DistillConfig(class_weight=0, dfl_weight=0), "both 0"),
    (lambda: DistillConfig(temperature=math.inf), "temperature is inf"),
    (lambda: DistillConfig(gamma=0.5), "gamma is 0.5"),
    (lambda: kd_class_loss(ZEROS, ZEROS, temperature=0), "temperature is 0"),
    (lambda: kd_class_loss(ZEROS, ZEROS, gamma=-1), "gamma is -1"),
    (lambda: compare(k=5), "The teacher predicts 5 classes and the student 3"),
    (lambda: compare(bins=17), "The teacher predicts 17 bins and the student 9"),
    (lambda: compare(side=96), "anchor points"),
]


def compare(**other):
    return distillation_losses(predictions(), predictions(**other), DistillConfig())


@pytest.mark.parametrize(("call", "message"), BAD)
def test_settings_and_teachers_that_cannot_work_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
