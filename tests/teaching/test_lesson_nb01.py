import torch

import yolonas_lab as yl
from yolonas_lab.detect import postprocess
from yolonas_lab.models.yolo_nas import anchor_points
from yolonas_lab.teaching.lessons.nb01 import simulate_candidates

BOXES = torch.tensor([[40.0, 60, 280, 300], [380, 330, 560, 600]])
LABELS = torch.tensor([2, 0])


def test_the_objects_are_found_with_echoes_and_nothing_else():
    boxes, scores = simulate_candidates(BOXES, LABELS, num_classes=4)
    assert boxes.shape == (8400, 4) and scores.shape == (8400, 4) and ((scores >= 0) & (scores <= 1)).all()
    strong = (scores > 0.25).nonzero()
    assert len(strong) > 20 and set(strong[:, 1].tolist()) == {0, 2}
    kept = postprocess(boxes, scores, conf=0.25, iou=0.5)
    assert sorted(kept.labels.tolist()) == [0, 2]
    assert (yl.boxes.iou(kept.boxes, BOXES).max(dim=1).values > 0.8).all()


def test_points_outside_an_object_do_not_claim_it():
    _, scores = simulate_candidates(BOXES[:1], LABELS[:1], num_classes=4)
    points, _ = anchor_points([(80, 80), (40, 40), (20, 20)])
    inside = ((points > BOXES[0, :2]) & (points < BOXES[0, 2:])).all(dim=1)
    assert scores[~inside].max() < 0.045 < 0.5 < scores[inside].max()


def test_more_jitter_fits_worse_and_the_seed_decides():
    fits = []
    for jitter in (0.01, 0.1):
        boxes, scores = simulate_candidates(BOXES, LABELS, 4, jitter=jitter)
        fits.append(yl.boxes.iou(boxes[scores.max(dim=1).values > 0.25], BOXES).max(dim=1).values.mean())
    assert fits[0] > 0.9 > fits[1]
    first, same, other = (simulate_candidates(BOXES, LABELS, 4, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.boxes, same.boxes) and torch.equal(first.scores, same.scores)
    assert not torch.equal(first.scores, other.scores)
