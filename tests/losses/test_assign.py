from pathlib import Path

import numpy as np
import pytest
import torch
from cases import CASES, objects, predictions
from per_image_loss import assign_image

from yolonas_lab.losses import Targets, assign
from yolonas_lab.models.yolo_nas import RawPredictions, decode

REFERENCE = Path(__file__).parent.parent / "data" / "loss_reference.npz"


def sure_of(raw, image, box, label, near):
    """Make every point within `near` px of the box's center predict exactly this box with a high score."""
    x1, y1, x2, y2 = box
    center = torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2])
    points = ((raw.anchor_points - center).abs() < near).all(dim=1).nonzero()[:, 0]
    with torch.no_grad():
        for i in points:
            x, y = raw.anchor_points[i]
            sides = torch.tensor([x - x1, y - y1, x2 - x, y2 - y]) / raw.strides[i]
            raw.box_logits[image, i] = -20.0
            for side, distance in enumerate(sides.clamp(0, raw.box_logits.shape[-1] - 1.01).tolist()):
                low = int(distance)
                raw.box_logits[image, i, side, low] = float(np.log(max(1 - (distance - low), 1e-9)))
                raw.box_logits[image, i, side, low + 1] = float(np.log(max(distance - low, 1e-9)))
            raw.class_logits[image, i, label] = 4.0
    return points


def test_reference_assignment():
    ref = {key: torch.from_numpy(value) for key, value in np.load(REFERENCE).items()}
    raw = RawPredictions(
        ref["class_logits"], ref["box_logits"].unflatten(2, (4, 17)), ref["anchor_points"], ref["strides"]
    )
    targets = []
    for i in range(3):
        rows = ref["targets"][ref["targets"][:, 0] == i]
        center, size = rows[:, 2:4], rows[:, 4:6]
        targets.append(Targets(torch.cat([center - size / 2, center + size / 2], dim=1), rows[:, 1].long()))
    got = assign(raw, targets)
    assert torch.equal(got.labels, ref["labels"])
    torch.testing.assert_close(got.scores(5), ref["scores"], rtol=1e-4, atol=1e-6)
    positive = got.labels < 5
    assert torch.equal(got.boxes[positive], ref["boxes"][positive])


@pytest.mark.parametrize("name", CASES)
def test_equals_the_per_image_oracle(name):
    raw, targets = predictions(seed=3), CASES[name]
    got = assign(raw, targets)
    boxes, scores = decode(raw)
    for i, target in enumerate(targets):
        labels, wanted, soft = assign_image(scores[i], boxes[i], raw.anchor_points, target)
        assert torch.equal(got.labels[i], labels)
        torch.testing.assert_close(got.scores(3)[i], soft)
        assert torch.equal(got.boxes[i][labels < 3], wanted[labels < 3])


def test_a_perfect_prediction_gets_quality_one_and_its_own_box():
    raw = predictions(b=1, bins=17)
    box = (8.0, 8.0, 40.0, 40.0)
    sure_of(raw, 0, box, label=1, near=10)
    got = assign(raw, [objects((*box, 1))])
    best = got.quality[0].argmax()
    assert got.quality[0, best] == pytest.approx(1, abs=0.02) and got.labels[0, best] == 1
    assert got.boxes[0, best].tolist() == list(box)


def test_at_most_top_k_points_per_object_all_inside():
    raw = predictions(b=1, side=256)
    box = torch.tensor([20.0, 20.0, 220.0, 220.0])
    for top_k in (1, 5, 13):
        got = assign(raw, [objects((*box.tolist(), 0))], top_k=top_k)
        mine = raw.anchor_points[got.labels[0] < 3]
        assert len(mine) == top_k and ((mine > box[:2]) & (mine < box[2:])).all()


def test_a_disputed_point_keeps_one_class_only():
    raw = predictions(b=1, bins=17)
    a, b = (8.0, 8.0, 40.0, 40.0), (10.0, 8.0, 42.0, 40.0)
    sure_of(raw, 0, a, label=0, near=10)
    got = assign(raw, [objects((*a, 0), (*b, 2))])
    assert ((got.scores(3)[0] > 0).sum(dim=1) <= 1).all()
    sure = got.quality[0] > 0.9
    assert sure.any() and (got.labels[0][sure] == 0).all()  # the larger IoU wins


def test_candidates_list_every_positive_with_weights_that_add_up_to_one():
    raw = predictions(b=2, seed=5)
    got = assign(raw, CASES["crowded"])
    total = torch.zeros_like(got.quality).scatter_add_(1, got.candidates, got.candidate_weights)
    torch.testing.assert_close(total, (got.labels < 3).float())


def test_images_of_a_batch_are_assigned_independently():
    raw, targets = predictions(seed=9), CASES["ordinary"]
    together = assign(raw, targets)
    for i in range(2):
        one = RawPredictions(raw.class_logits[i : i + 1], raw.box_logits[i : i + 1], raw.anchor_points, raw.strides)
        alone = assign(one, targets[i : i + 1])
        assert torch.equal(alone.labels[0], together.labels[i])
        torch.testing.assert_close(alone.quality[0], together.quality[i])
