"""From many boxes to few: by hand and against a plain-Python reference."""

import math

import pytest
import torch

from yolonas_lab.boxes import iou
from yolonas_lab.detect import postprocess, postprocess_batch

torch.set_num_threads(1)


def plain_postprocess(boxes, scores, conf, threshold, top_k, max_detections):
    overlap = iou(boxes, boxes).tolist()
    values = scores.tolist()
    pairs = [(a, k) for a in range(len(boxes)) for k in range(scores.shape[1]) if values[a][k] > conf]
    pairs = sorted(pairs, key=lambda pair: -values[pair[0]][pair[1]])[:top_k]
    kept = []
    for a, k in pairs:
        if all(label != k or overlap[b][a] <= threshold for b, label in kept):
            kept.append((a, k))
    return kept[:max_detections]


def random_predictions(a, k, seed):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(a, 2, generator=generator) * 60
    boxes = torch.cat([corner, corner + 5 + torch.rand(a, 2, generator=generator) * 40], dim=1)
    return boxes, torch.randint(0, 40, (a, k), generator=generator) / 40  # many ties


def test_by_hand():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]])
    scores = torch.tensor([[0.9, 0.2], [0.8, 0.7], [0.25, 0.3]])
    kept = postprocess(boxes, scores, conf=0.25, iou=0.7)
    # box 1 loses to box 0 in class 0 but not in class 1; box 2 in class 0 is not above 0.25
    assert kept.boxes.tolist() == [[0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]]
    assert kept.scores.tolist() == pytest.approx([0.9, 0.7, 0.3])
    assert kept.labels.tolist() == [0, 1, 1] and kept.labels.dtype == torch.int64


def test_a_box_may_have_several_labels():
    kept = postprocess(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[0.6, 0.1, 0.9]]), conf=0.5)
    assert kept.labels.tolist() == [2, 0]


def test_conf_is_the_score_and_iou_the_overlap():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5]])  # IoU 0.5
    scores = torch.tensor([[0.9], [0.4]])
    assert len(postprocess(boxes, scores, conf=0.3, iou=0.6).scores) == 2
    assert len(postprocess(boxes, scores, conf=0.3, iou=0.4).scores) == 1
    assert len(postprocess(boxes, scores, conf=0.45, iou=0.6).scores) == 1


@pytest.mark.parametrize(
    ("conf", "threshold", "top_k", "max_detections"),
    [(0.25, 0.7, 1024, 300), (0.0, 0.5, 50, 300), (0.01, 0.3, 17, 5), (0.9, 0.0, 1, 1), (0.5, 1.0, 120, 119)],
)
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_plain_python(conf, threshold, top_k, max_detections, seed):
    boxes, scores = random_predictions(40, 5, seed)
    kept = postprocess(boxes, scores, conf, threshold, top_k, max_detections)
    expected = plain_postprocess(boxes, scores, conf, threshold, top_k, max_detections)
    assert len(expected) > 0
    assert kept.labels.tolist() == [k for _, k in expected]
    assert torch.equal(kept.boxes, boxes[[a for a, _ in expected]])
    assert kept.scores.tolist() == [scores[a, k].item() for a, k in expected]


def test_full_size_is_cut_to_the_limits_and_sorted():
    boxes, scores = random_predictions(8400, 80, seed=0)
    kept = postprocess(boxes, scores, conf=0.01, iou=1.0, top_k=1000, max_detections=300)
    assert len(kept.scores) == 300
    assert kept.scores.tolist() == sorted(kept.scores.tolist(), reverse=True)
    assert len(postprocess(boxes, scores, 0.01, 1.0, 100, 300).scores) == 100


def test_nothing_above_conf():
    kept = postprocess(torch.rand(3, 4), torch.rand(3, 2) / 10, conf=0.5)
    assert kept.boxes.shape == (0, 4) and kept.scores.shape == kept.labels.shape == (0,)
    assert postprocess(torch.zeros(0, 4), torch.zeros(0, 2)).boxes.shape == (0, 4)


def test_batch_is_image_by_image():
    images = [random_predictions(30, 4, seed) for seed in range(3)]
    boxes, scores = (torch.stack(part) for part in zip(*images))
    batch = postprocess_batch(boxes, scores, 0.3, 0.5, 40, 9)
    assert len(batch) == 3
    for ours, image in zip(batch, images):
        for got, expected in zip(ours, postprocess(*image, 0.3, 0.5, 40, 9)):
            assert torch.equal(got, expected)


ok, score = torch.rand(3, 4), torch.rand(3, 2)
BAD = [
    (lambda: postprocess(torch.rand(3, 5), score), r"boxes must have shape \(a, 4\), but has \(3, 5\)"),
    (lambda: postprocess(torch.rand(1, 3, 4), score), r"boxes must have shape \(a, 4\), but has \(1, 3, 4\)"),
    (lambda: postprocess(ok, torch.rand(2, 2)), r"scores must have shape \(3, k\), one row per box.*\(2, 2\)"),
    (lambda: postprocess(ok, torch.rand(3)), r"scores must have shape \(3, k\).*\(3,\)"),
    (lambda: postprocess(ok, score, conf=1.01), r"conf must lie in \[0, 1\], but is 1.01"),
    (lambda: postprocess(ok, score, conf=math.nan), r"conf must lie in \[0, 1\], but is nan"),
    (lambda: postprocess(ok, score, iou=-0.5), r"iou must lie in \[0, 1\], but is -0.5"),
    (lambda: postprocess(ok, score, top_k=0), r"top_k must be at least 1, but is 0"),
    (lambda: postprocess(ok, score, max_detections=0), r"max_detections must be at least 1, but is 0"),
    (lambda: postprocess(ok, score * math.nan), r"the predicted scores contain NaN or infinite numbers"),
    (lambda: postprocess(ok * math.inf, score), r"the predicted boxes contain NaN or infinite numbers"),
    (lambda: postprocess_batch(ok, score), r"boxes must be \(b, a, 4\) and scores \(b, a, k\), but are \(3, 4\)"),
    (lambda: postprocess_batch(ok[None], torch.rand(2, 3, 2)), r"but are \(1, 3, 4\) and \(2, 3, 2\)"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
