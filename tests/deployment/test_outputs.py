"""undecode is the inverse of decode."""

import torch

from yolonas_lab.deployment.graph_passes import one_hot_scores, undecode
from yolonas_lab.models import decode


def test_decode_undoes_undecode():
    generator = torch.Generator().manual_seed(0)
    corner, size = torch.rand(2, 3, 50, 2, generator=generator).mul(600).unbind(0)
    boxes, scores = torch.cat([corner, corner + size], dim=-1), torch.rand(3, 50, 7, generator=generator)
    found_boxes, found_scores = decode(undecode(boxes, scores))
    torch.testing.assert_close(found_boxes, boxes, rtol=0, atol=2e-4)
    torch.testing.assert_close(found_scores, scores, rtol=0, atol=5e-7)


def test_extremes_come_back():
    boxes = torch.tensor([[[0.0, 0.0, 0.0, 0.0], [5.0, 6.0, 4.0, 3.0]]])  # without area, and inside out
    scores = torch.tensor([[[0.0, 1.0], [1e-30, 0.5]]])
    found_boxes, found_scores = decode(undecode(boxes, scores))
    assert torch.equal(found_boxes, boxes)
    torch.testing.assert_close(found_scores, scores)


def test_broken_scores_stay_visible():
    assert decode(undecode(torch.zeros(1, 1, 4), torch.full((1, 1, 1), torch.nan)))[1].isnan().all()


def test_one_hot_by_hand():
    scores = one_hot_scores(torch.tensor([[0.9, 0.3]]), torch.tensor([[2, 0]]), 3)
    torch.testing.assert_close(scores, torch.tensor([[[0, 0, 0.9], [0.3, 0, 0]]]))
