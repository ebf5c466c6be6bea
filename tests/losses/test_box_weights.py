"""Weights per box: by hand, against the per-image oracle, and in the two limits, 1 and nearly 0."""

import math

import pytest
import torch
from cases import CASES, objects, predictions
from per_image_loss import per_image_loss

from yolonas_lab.losses import DetectionLoss, Targets, assign
from yolonas_lab.models.yolo_nas import RawPredictions

LN2, LN3 = math.log(2), math.log(3)


def weighted(target, *weights):
    return target._replace(weights=torch.tensor(weights, dtype=torch.float32))


def random_weights(targets, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [t._replace(weights=0.05 + 0.95 * torch.rand(len(t.labels), generator=generator)) for t in targets]


def gradients(loss, raw):
    return torch.autograd.grad(loss, [raw.class_logits, raw.box_logits])


def two_images_by_hand():
    """Two images, alike: all logits 0, two anchor points; the first one's box is exactly that of the only object."""
    raw = RawPredictions(
        torch.zeros(2, 2, 2), torch.zeros(2, 2, 4, 3), torch.tensor([[4.0, 4.0], [44.0, 44.0]]), torch.full((2, 1), 8.0)
    )  # three equal bins: each side 1 stride away
    return raw, objects((-4, -4, 12, 12, 1))


@pytest.mark.parametrize(("first", "second"), [(1.0, 0.5), (0.25, 0.25), (1.0, 1.0)])
def test_weights_by_hand(first, second):
    raw, target = two_images_by_hand()
    parts = DetectionLoss(2)(raw, [weighted(target, first), weighted(target, second)])
    divide_by = max(first + second, 1)  # the quality of both objects is 1
    easy = 0.75 * 0.25 * LN2  # the negative of one class, at p = 1/2
    positive_point, background = LN2 + easy, 2 * 2 * easy
    assert parts.classification.item() == pytest.approx(
        ((first + second) * positive_point + background) / divide_by, rel=1e-5
    )
    assert parts.iou.item() == pytest.approx(0, abs=1e-5)
    assert parts.dfl.item() == pytest.approx(0.5 * (first + second) * LN3 / divide_by, rel=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_weights_of_1_are_the_loss_without_weights_bit_by_bit(name):
    raw, targets = predictions(seed=len(name)), CASES[name]
    ones = [t._replace(weights=torch.ones(len(t.labels))) for t in targets]
    plain, weighted_ones = (DetectionLoss(3)(raw, t) for t in (targets, ones))
    assert all(torch.equal(a, b) for a, b in zip(plain, weighted_ones, strict=True))
    both = zip(gradients(plain.total, raw), gradients(weighted_ones.total, raw), strict=True)
    assert all(torch.equal(a, b) for a, b in both)


@pytest.mark.parametrize("class_shift", [-6.0, 0.0])
@pytest.mark.parametrize("name", [name for name in CASES if name != "no boxes at all"])
def test_equals_the_per_image_oracle(name, class_shift):
    raw = predictions(class_shift=class_shift, seed=len(name))
    targets = random_weights(CASES[name])
    parts, expected = DetectionLoss(3)(raw, targets), per_image_loss(raw, targets)
    torch.testing.assert_close(tuple(parts), expected, rtol=1e-5, atol=1e-6)
    for got, wanted in zip(gradients(parts.total, raw), gradients(expected[0], raw), strict=True):
        assert (got - wanted).abs().max() <= 1e-4 * wanted.abs().max()


def test_an_object_without_weight_teaches_its_points_nothing_and_leaves_the_others_alone():
    raw, targets = predictions(), CASES["ordinary"]
    doubted = [weighted(targets[0], 1e-12, 1), targets[1]]
    assignment = assign(raw, doubted)
    its_points = assignment.weights < 0.5  # (b, a)
    assert 0 < its_points.sum() < 20
    plain = assign(raw, targets)
    assert torch.equal(assignment.labels, plain.labels) and torch.equal(assignment.quality, plain.quality)

    sums = DetectionLoss(3, normalizer=torch.ones_like)  # not divided: the sums themselves
    class_gradient, box_gradient = gradients(sums(raw, doubted).total, raw)
    assert class_gradient[its_points].abs().max() < 1e-9 and box_gradient[its_points].abs().max() < 1e-9
    plain_gradients = gradients(sums(raw, targets).total, raw)
    assert torch.equal(class_gradient[~its_points], plain_gradients[0][~its_points])
    torch.testing.assert_close(box_gradient[~its_points], plain_gradients[1][~its_points])


def test_weights_of_some_images_only():
    raw, targets = predictions(), CASES["ordinary"]
    some = DetectionLoss(3)(raw, [targets[0], weighted(targets[1], 0.3)])
    all_of_them = DetectionLoss(3)(raw, [weighted(targets[0], 1, 1), weighted(targets[1], 0.3)])
    assert all(torch.equal(a, b) for a, b in zip(some, all_of_them, strict=True))
    assert (assign(raw, targets).weights == 1).all()


@pytest.mark.parametrize("bad", [0.0, -0.5, 1.01, float("nan"), float("inf")])
def test_weights_outside_their_range_are_refused(bad):
    with pytest.raises(ValueError, match=r"outside \(0, 1\]: leave an object out"):
        DetectionLoss(3)(predictions(), [weighted(objects((4, 4, 30, 40, 0)), bad), objects()])


def test_another_number_of_weights_than_objects_is_refused():
    with pytest.raises(ValueError, match=r"targets\[1\] .*weights \(n,\), but has \(1, 4\), \(1,\), \(2,\)"):
        DetectionLoss(3)(predictions(), [objects(), weighted(objects((4, 4, 30, 40, 0)), 1, 1)])
    with pytest.raises(ValueError, match=r"targets\[0\] must hold"):
        Targets_without_objects = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.ones(1))
        DetectionLoss(3)(predictions(), [Targets_without_objects, objects()])
