"""The loss: super-gradients' own numbers and gradients, a per-image oracle, weights of objects."""

import math

import pytest
import torch
from cases import CASES, objects, predictions, reference
from per_image_loss import per_image_loss_vectorised_over_points

from yolonas_lab.losses import DetectionLoss, Targets, assign


def gradients(loss, raw):
    found = torch.autograd.grad(loss, [raw.class_logits, raw.box_logits], allow_unused=True)
    return [torch.zeros(1) if gradient is None else gradient for gradient in found]


def assert_close_relative(got, expected, tolerance):
    for a, b in zip(got, expected, strict=True):
        assert (a - b).abs().max() <= tolerance * b.abs().max().clamp(min=1e-3)


def weighted(target, *weights):
    return target._replace(weights=torch.tensor(weights, dtype=torch.float32))


def test_values_and_gradients_equal_super_gradients():
    ref, raw, targets = reference()
    parts = DetectionLoss(5)(raw, targets)
    assert_close_relative(parts, ref["loss"][[3, 0, 1, 2]], 1e-4)
    wanted = ref["class_gradient"], ref["box_gradient"].unflatten(2, (4, 17))
    assert_close_relative(gradients(parts.total, raw), wanted, 1e-4)


@pytest.mark.parametrize("class_shift", [-6.0, 0.0])  # early in training nothing is sure; later some of it is
@pytest.mark.parametrize("all_weights_1", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_equals_the_per_image_oracle(name, all_weights_1, class_shift):
    raw = predictions(class_shift=class_shift, seed=len(name))
    targets = [t if all_weights_1 else weighted(t, *(0.05 + 0.1 * i for i in range(len(t.boxes)))) for t in CASES[name]]
    parts, expected = DetectionLoss(3)(raw, targets), per_image_loss_vectorised_over_points(raw, targets)
    assert_close_relative(parts, expected, 1e-5)
    assert_close_relative(gradients(parts.total, raw), gradients(expected[0], raw), 1e-4)


def test_a_batch_without_boxes_still_teaches_the_background():
    raw = predictions()
    parts = DetectionLoss(3)(raw, [objects(), objects()])
    assert parts.total > 0 and parts.iou == 0 and parts.dfl == 0
    assert (gradients(parts.total, raw)[0] > 0).all()  # every score is pushed down


def test_the_weights_of_the_parts():
    raw, targets = predictions(), CASES["ordinary"]
    doubled = DetectionLoss(3, classification_weight=2.0, iou_weight=5.0, dfl_weight=1.0)(raw, targets)
    for one, two in zip(DetectionLoss(3)(raw, targets), doubled, strict=True):
        torch.testing.assert_close(2 * one, two)


@pytest.mark.parametrize("name", CASES)
def test_weights_of_1_are_the_loss_without_weights_bit_by_bit(name):
    raw, targets = predictions(seed=len(name)), CASES[name]
    ones = [t._replace(weights=torch.ones(len(t.labels))) for t in targets]
    both = [DetectionLoss(3)(raw, t) for t in (targets, ones)]
    both = [(*parts, *gradients(parts.total, raw)) for parts in both]
    assert all(torch.equal(a, b) for a, b in zip(*both, strict=True))


def test_an_object_without_weight_teaches_its_points_nothing_and_leaves_the_others_alone():
    raw, targets = predictions(), CASES["ordinary"]
    doubted = [weighted(targets[0], 1e-12, 1), targets[1]]
    its_points = assign(raw, doubted).weights < 0.5  # (b, a)
    assert 0 < its_points.sum() < 20
    sums = DetectionLoss(3, normalizer=torch.ones_like)  # not divided: the sums themselves
    of_doubted, of_all = (gradients(sums(raw, t).total, raw) for t in (doubted, targets))
    for ours, plain in zip(of_doubted, of_all, strict=True):
        assert ours[its_points].abs().max() < 1e-9
        torch.testing.assert_close(ours[~its_points], plain[~its_points])


ONE = objects((4, 4, 30, 40, 0))
BAD = [
    ([objects()], "targets for 1 images and predictions for 2"),
    ([objects((1, 1, 9, 9, 3)), objects()], "outside 0 … 2"),
    ([objects((1, 1, 9, 9, -1)), objects()], "outside 0 … 2"),
    ([Targets(torch.zeros(2, 4), torch.zeros(1, dtype=torch.int64)), objects()], r"targets\[0\] must hold"),
    ([objects(), Targets(torch.zeros(4), torch.zeros(1, dtype=torch.int64))], r"targets\[1\] must hold"),
    ([objects(), weighted(ONE, 1, 1)], r"targets\[1\] .*\(1, 4\), \(1,\), \(2,\)"),
    *(([weighted(ONE, bad), objects()], r"weight is outside \(0, 1\]") for bad in (0.0, 1.01, math.nan)),
]


@pytest.mark.parametrize(("targets", "message"), BAD)
def test_targets_that_do_not_fit_are_refused(targets, message):
    with pytest.raises(ValueError, match=message):
        DetectionLoss(3)(predictions(), targets)
    with pytest.raises(ValueError, match="predicts 3 classes, but the loss was made for 4"):
        DetectionLoss(4)(predictions(), targets)
