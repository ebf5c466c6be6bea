from pathlib import Path

import numpy as np
import pytest
import torch
from cases import CASES, objects, predictions
from per_image_loss import per_image_loss, per_image_loss_vectorised_over_points

from yolonas_lab.losses import DetectionLoss, Targets
from yolonas_lab.models.yolo_nas import RawPredictions

REFERENCE = Path(__file__).parent.parent / "data" / "loss_reference.npz"


def gradients(loss, raw):
    return torch.autograd.grad(loss, [raw.class_logits, raw.box_logits], allow_unused=True)


def assert_close_relative(got, expected, tolerance):
    for a, b in zip(got, expected, strict=True):
        a = torch.zeros(()) if a is None else a
        b = torch.zeros(()) if b is None else b
        assert (a - b).abs().max() <= tolerance * b.abs().max().clamp(min=1e-3)


def test_values_and_gradients_equal_super_gradients():
    ref = {key: torch.from_numpy(value) for key, value in np.load(REFERENCE).items()}
    raw = RawPredictions(
        ref["class_logits"].requires_grad_(),
        ref["box_logits"].unflatten(2, (4, 17)).requires_grad_(),
        ref["anchor_points"],
        ref["strides"],
    )
    targets = []
    for i in range(3):
        rows = ref["targets"][ref["targets"][:, 0] == i]
        center, size = rows[:, 2:4], rows[:, 4:6]
        targets.append(Targets(torch.cat([center - size / 2, center + size / 2], dim=1), rows[:, 1].long()))
    parts = DetectionLoss(5)(raw, targets)
    classification, iou, dfl, total = ref["loss"]
    assert_close_relative(parts, (total, classification, iou, dfl), 1e-4)
    class_gradient, box_gradient = gradients(parts.total, raw)
    assert_close_relative([class_gradient, box_gradient.flatten(2)], [ref["class_gradient"], ref["box_gradient"]], 1e-4)


@pytest.mark.parametrize("oracle", [per_image_loss, per_image_loss_vectorised_over_points])
@pytest.mark.parametrize("class_shift", [-6.0, 0.0])  # early in training nothing is sure; later some of it is
@pytest.mark.parametrize("name", CASES)
def test_equals_the_per_image_oracle(name, class_shift, oracle):
    raw = predictions(class_shift=class_shift, seed=len(name))
    parts = DetectionLoss(3)(raw, CASES[name])
    expected = oracle(raw, CASES[name])
    assert_close_relative(parts, expected, 1e-5)
    assert_close_relative(gradients(parts.total, raw), gradients(expected[0], raw), 1e-4)


def test_a_batch_without_boxes_still_teaches_the_background():
    raw = predictions()
    parts = DetectionLoss(3)(raw, [objects(), objects()])
    assert parts.total > 0 and parts.iou == 0 and parts.dfl == 0
    class_gradient, _ = gradients(parts.total, raw)
    assert (class_gradient > 0).all()  # every score is pushed down


def test_parts_are_weighted_and_add_up():
    raw, targets = predictions(), CASES["ordinary"]
    parts = DetectionLoss(3)(raw, targets)
    doubled = DetectionLoss(3, classification_weight=2.0, iou_weight=5.0, dfl_weight=1.0)(raw, targets)
    torch.testing.assert_close(parts.total, parts.classification + parts.iou + parts.dfl)
    for one, two in zip(parts, doubled, strict=True):
        torch.testing.assert_close(2 * one, two)


def test_the_loss_falls_when_it_is_followed():
    raw, targets = predictions(), CASES["ordinary"]
    loss = DetectionLoss(3)
    optimizer = torch.optim.Adam([raw.class_logits, raw.box_logits], lr=0.1)
    first = loss(raw, targets).total.item()
    for _ in range(150):
        optimizer.zero_grad()
        loss(raw, targets).total.backward()
        optimizer.step()
    assert loss(raw, targets).total.item() < 0.25 * first


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([objects()], "targets for 1 images and predictions for 2"),
        ([objects((1, 1, 9, 9, 3)), objects()], "outside 0 … 2"),
        ([objects((1, 1, 9, 9, -1)), objects()], "outside 0 … 2"),
        ([Targets(torch.zeros(2, 4), torch.zeros(1, dtype=torch.int64)), objects()], r"targets\[0\] must hold"),
        ([objects(), Targets(torch.zeros(4), torch.zeros(1, dtype=torch.int64))], r"targets\[1\] must hold"),
    ],
)
def test_targets_that_do_not_fit_are_refused(targets, message):
    with pytest.raises(ValueError, match=message):
        DetectionLoss(3)(predictions(), targets)


def test_a_loss_for_another_class_count_is_refused():
    with pytest.raises(ValueError, match="predicts 3 classes, but the loss was made for 4"):
        DetectionLoss(4)(predictions(), [objects(), objects()])
