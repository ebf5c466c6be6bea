"""Box formats, IoU, GIoU, NMS and letterbox geometry: by hand, by property, and against plain-Python references."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from yolonas_lab import boxes as B

coordinate = st.integers(-4000, 4000).map(lambda n: n / 4)
side = st.integers(0, 2000).map(lambda n: n / 4)


def box_lists(max_size=6):
    """(n, 4) xyxy with sides of at least 0 on a grid of a quarter pixel (exact in float32)."""
    box = st.tuples(coordinate, coordinate, side, side).map(lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]])
    return st.lists(box, max_size=max_size).map(lambda rows: torch.tensor(rows).reshape(-1, 4))


def plain_iou_and_giou(a, b):
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    iou = w * h / union if union > 0 else 0.0
    return iou, iou - ((hull - union) / hull if hull > 0 else 0.0)


def plain_nms(boxes, scores, labels, threshold):
    """Greedy NMS, one box after the other, in float32 like the code under test."""
    overlap, kept = B.iou(boxes, boxes).tolist(), []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):  # sorted is stable
        if all(labels[j] != labels[i] or overlap[j][i] <= threshold for j in kept):
            kept.append(i)
    return kept


def random_boxes(n, seed, span=100.0):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=generator) * span
    size = torch.rand(n, 2, generator=generator) * 40 + 1
    scores = torch.randint(0, 50, (n,), generator=generator) / 50  # many ties
    labels = torch.randint(0, 5, (n,), generator=generator)
    return torch.cat([corner, corner + size], dim=1), scores, labels


@given(box_lists())
def test_formats_come_back(boxes):
    torch.testing.assert_close(B.cxcywh_to_xyxy(B.xyxy_to_cxcywh(boxes)), boxes)
    torch.testing.assert_close(B.xywh_to_xyxy(B.xyxy_to_xywh(boxes)), boxes)


def test_formats_area_and_clip_by_hand():
    box = torch.tensor([[10.0, 20.0, 30.0, 60.0], [5, 5, 1, 1]])
    assert B.xyxy_to_cxcywh(box)[0].tolist() == [20, 40, 20, 40]
    assert B.xyxy_to_xywh(box)[0].tolist() == [10, 20, 20, 40]
    assert B.area(box).tolist() == [800, 0]  # an inverted box has none
    boxes = torch.tensor([[-5.0, -5.0, 50.0, 5.0], [2.0, 3.0, 4.0, 5.0], [90.0, 90.0, 95.0, 99.0]])
    assert B.clip(boxes, height=10, width=20).tolist() == [[0, 0, 20, 5], [2, 3, 4, 5], [20, 10, 20, 10]]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.float16, torch.bfloat16, torch.float64])
def test_integers_and_half_precision_are_computed_in_float32(dtype):
    boxes = torch.tensor([[0, 0, 240, 240], [0, 0, 120, 240]]).to(dtype)  # exact in all of them
    overlap = B.iou(boxes, boxes)
    assert overlap.dtype == (torch.float64 if dtype == torch.float64 else torch.float32) and overlap[0, 1] == 0.5
    assert B.area(boxes)[0] == 57600  # would overflow uint8
    assert B.area(torch.tensor([[0, 0, 512, 512]], dtype=torch.float16)) == 2**18


@given(box_lists(), box_lists())
def test_pairwise_iou_and_giou_agree_with_plain_python(a, b):
    expected = torch.tensor([[plain_iou_and_giou(p, q) for q in b.tolist()] for p in a.tolist()])
    expected = expected.reshape(len(a), len(b), 2)
    for index, ours in enumerate((B.iou, B.giou)):
        values = ours(a, b)
        torch.testing.assert_close(values, expected[..., index], atol=1e-5, rtol=1e-5)
        assert torch.equal(values, ours(b, a).T) and ((values >= -index) & (values <= 1)).all()


def test_paired_broadcasts_and_equals_the_diagonal():
    a, b = random_boxes(12, seed=1)[0], random_boxes(12, seed=2)[0]
    torch.testing.assert_close(B.paired_iou(a, b), B.iou(a, b).diagonal())
    torch.testing.assert_close(B.paired_giou(a, b), B.giou(a, b).diagonal())
    assert B.paired_iou(a.reshape(3, 4, 4), b[:4]).shape == (3, 4)
    assert B.iou(a.reshape(2, 6, 4), b.reshape(2, 6, 4)).shape == (2, 6, 6)
    assert B.iou(np.array([[0, 0, 2, 2]]), [[1, 0, 3, 2]]).item() == pytest.approx(1 / 3)  # type: ignore[arg-type]


def test_giou_has_a_gradient_where_iou_has_none_and_never_nan():
    a = torch.tensor([[0.0, 0.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0]], requires_grad=True)
    b = torch.tensor([[5.0, 5.0, 6.0, 6.0], [2.0, 2.0, 2.0, 2.0]])
    iou_grad, giou_grad = (torch.autograd.grad(f(a, b).sum(), a)[0] for f in (B.paired_iou, B.paired_giou))
    assert iou_grad.eq(0).all() and giou_grad[0].ne(0).any() and giou_grad.isfinite().all()


@pytest.mark.parametrize("n", [0, 1, 2, B.NMS_BLOCK - 1, B.NMS_BLOCK, B.NMS_BLOCK + 1, 500])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
def test_nms_agrees_with_plain_python(n, threshold):
    boxes, scores, labels = random_boxes(n, seed=n)
    assert B.nms(boxes, scores, threshold).tolist() == plain_nms(boxes, scores.tolist(), [0] * n, threshold)
    expected = plain_nms(boxes, scores.tolist(), labels.tolist(), threshold)
    assert B.batched_nms(boxes, scores, labels, threshold).tolist() == expected


@given(box_lists(max_size=12), st.sampled_from([0.0, 0.2, 0.5, 0.9]), st.data())
def test_nms_agrees_with_plain_python_on_a_grid(boxes, threshold, data):
    scores = data.draw(st.lists(st.integers(0, 4), min_size=len(boxes), max_size=len(boxes)))
    kept = B.nms(boxes, torch.tensor(scores, dtype=torch.float32), threshold)
    assert kept.tolist() == plain_nms(boxes, scores, [0] * len(boxes), threshold)


def test_the_longest_chain():
    # every box falls or stays because of its neighbor: the rounds inside a block and the blocks must hand on
    x = torch.arange(3 * B.NMS_BLOCK + 5) * 10.0
    boxes = torch.stack([x, 0 * x, x + 40, 0 * x + 40], dim=1)
    assert B.nms(boxes, torch.linspace(1, 0.1, len(x)), 0.5).tolist() == list(range(0, len(x), 2))


@pytest.mark.parametrize("far", [0.0, 1e6, -1e6, 1.6e7])
def test_classes_do_not_meet_wherever_the_boxes_are(far):
    boxes = torch.tensor([[0.0, 0, 8, 8]]).repeat(6, 1) + far
    labels = torch.tensor([0, 1, 2, 0, 79, -1])
    kept = B.batched_nms(boxes, torch.tensor([0.9, 0.8, 0.7, 0.95, 0.6, 0.5]), labels, 0.5)
    assert kept.tolist() == [3, 1, 2, 4, 5]
    near = torch.tensor([[0.0, 0, 8, 8], [0, 0, 8, 4]]) + far  # IoU 0.5, also in class 1000
    assert B.batched_nms(near, torch.tensor([0.9, 0.8]), torch.tensor([1000, 1000]), 0.6).tolist() == [0, 1]


def test_many_boxes_need_little_memory(monkeypatch):
    sizes, original = [], B._overlaps
    monkeypatch.setattr(B, "_overlaps", lambda *a: sizes.append((made := original(*a)).numel()) or made)
    B.batched_nms(*random_boxes(10_000, seed=3, span=2000), 0.7)
    assert 0 < max(sizes) <= B.NMS_BLOCK * 10_000  # times 4 bytes times a dozen intermediate results: 30 MB


@given(st.integers(1, 6000), st.integers(1, 6000), st.integers(32, 1280), st.integers(0, 8), st.booleans(), box_lists())
def test_letterbox_inverse_and_content_inside(height, width, size, margin, center, boxes):
    frame = B.letterbox(height, width, size, size - margin, "center" if center else "bottom_right")
    assert max(frame.resized_h, frame.resized_w) == size - margin
    for resized, pad in ((frame.resized_w, frame.pad_left), (frame.resized_h, frame.pad_top)):
        assert 0 <= size - resized - 2 * pad <= 1 if center else pad == 0
    whole = frame.apply(torch.tensor([0.0, 0.0, width, height], dtype=torch.float64))
    content = [frame.pad_left, frame.pad_top, frame.pad_left + frame.resized_w, frame.pad_top + frame.resized_h]
    assert whole.tolist() == pytest.approx(content, abs=1)  # rounded, and at least 1 px
    exact = boxes.double()
    torch.testing.assert_close(frame.invert(frame.apply(exact)), exact, atol=1e-9, rtol=0)


ok = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
BAD = [
    (lambda: B.xyxy_to_cxcywh(torch.rand(3)), r"boxes .*\(3,\)"),
    (lambda: B.iou(torch.rand(2, 3), ok), r"^a must .*\(2, 3\)"),
    (lambda: B.giou(ok, ok[0]), r"^b must .*\(4,\)"),
    (lambda: B.nms(ok[0], torch.rand(1), 0.5), r"boxes .*\(4,\)"),
    (lambda: B.nms(ok, torch.rand(2), 0.5), r"scores .*\(1,\).*\(2,\)"),
    (lambda: B.nms(ok, torch.rand(1), math.nan), r"iou_threshold .* nan"),
    (lambda: B.batched_nms(ok, torch.rand(1), torch.tensor([0, 1]), 0.5), r"labels .*\(1,\)"),
    (lambda: B.letterbox(5, 5, size=64, resize_to=65), r"resize_to .*64.* 65"),
    (lambda: B.letterbox(5, 5, pad="left"), r"pad .* 'left'"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
