"""The assignment: super-gradients' own numbers, and a per-image version written straightforwardly."""

import pytest
import torch
from cases import CASES, objects, predictions, reference
from per_image_loss import assign_image

from yolonas_lab.losses import assign
from yolonas_lab.models.yolo_nas import decode


def soft_scores(assignment, k):
    """Soft class targets (b, a, k): the quality at the assigned class, 0 elsewhere."""
    one_hot = torch.nn.functional.one_hot(assignment.labels, k + 1)[..., :k]
    return one_hot * assignment.quality[..., None]


def test_reference_assignment():
    ref, raw, targets = reference()
    got = assign(raw, targets)
    assert torch.equal(got.labels, ref["labels"])
    torch.testing.assert_close(soft_scores(got, 5), ref["scores"], rtol=1e-4, atol=1e-6)
    positive = got.labels < 5
    assert torch.equal(got.boxes[positive], ref["boxes"][positive])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CASES)
def test_equals_the_per_image_oracle(name, seed):
    raw, targets = predictions(seed=seed), CASES[name]
    got = assign(raw, targets)
    boxes, scores = decode(raw)
    for i, target in enumerate(targets):
        labels, wanted, soft = assign_image(scores[i], boxes[i], raw.anchor_points, target)
        assert torch.equal(got.labels[i], labels)
        torch.testing.assert_close(soft_scores(got, 3)[i], soft)
        assert torch.equal(got.boxes[i][labels < 3], wanted[labels < 3])


def test_at_most_top_k_points_per_object_all_inside():
    raw = predictions(b=1, side=256)
    box = torch.tensor([20.0, 20.0, 220.0, 220.0])
    for top_k in (1, 5, 13):
        got = assign(raw, [objects((*box.tolist(), 0))], top_k=top_k)
        mine = raw.anchor_points[got.labels[0] < 3]
        assert len(mine) == top_k and ((mine > box[:2]) & (mine < box[2:])).all()


@pytest.mark.parametrize("name", CASES)
def test_candidates_list_every_positive_with_weights_that_add_up_to_one(name):
    got = assign(predictions(seed=5), CASES[name])
    total = torch.zeros_like(got.quality).scatter_add_(1, got.candidates, got.candidate_weights)
    torch.testing.assert_close(total, (got.labels < 3).float())
