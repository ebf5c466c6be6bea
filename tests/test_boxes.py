"""Box formats, IoU, GIoU, NMS and letterbox geometry: by hand, by property, and against plain-Python references."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yolonas_lab import boxes as B

torch.set_num_threads(1)
settings.register_profile("steady", deadline=None)  # a busy machine is no failure
settings.load_profile("steady")
coordinate = st.integers(-4000, 4000).map(lambda n: n / 4)


@st.composite
def box_lists(draw, max_size=6):
    """(n, 4) xyxy with sides of at least 0 on a grid of a quarter pixel (exact in float32)."""
    n = draw(st.integers(0, max_size))
    rows = []
    for _ in range(n):
        x, y = draw(coordinate), draw(coordinate)
        rows.append([x, y, x + draw(st.integers(0, 2000)) / 4, y + draw(st.integers(0, 2000)) / 4])
    return torch.tensor(rows).reshape(-1, 4)


def plain_iou_and_giou(a, b):
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    iou = w * h / union if union > 0 else 0.0
    return iou, iou - ((hull - union) / hull if hull > 0 else 0.0)


def plain_nms(boxes, scores, labels, threshold):
    """Greedy NMS, one box after the other, in float32 like the code under test."""
    overlap = B.iou(boxes, boxes).tolist()
    order = sorted(range(len(boxes)), key=lambda i: -scores[i])  # sorted is stable
    kept = []
    for i in order:
        if all(labels[j] != labels[i] or overlap[j][i] <= threshold for j in kept):
            kept.append(i)
    return kept


def random_boxes(n, seed, span=100.0, side=40.0):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=generator) * span
    size = torch.rand(n, 2, generator=generator) * side + 1
    scores = torch.randint(0, 50, (n,), generator=generator) / 50  # many ties
    labels = torch.randint(0, 5, (n,), generator=generator)
    return torch.cat([corner, corner + size], dim=1), scores, labels


# formats


def test_formats_by_hand():
    box = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    assert B.xyxy_to_cxcywh(box).tolist() == [[20, 40, 20, 40]]
    assert B.xyxy_to_xywh(box).tolist() == [[10, 20, 20, 40]]
    assert B.area(box).tolist() == [800]


@given(box_lists())
def test_formats_come_back(boxes):
    torch.testing.assert_close(B.cxcywh_to_xyxy(B.xyxy_to_cxcywh(boxes)), boxes)
    torch.testing.assert_close(B.xywh_to_xyxy(B.xyxy_to_xywh(boxes)), boxes)


def test_inverted_box_has_area_zero_and_leading_dimensions_are_kept():
    assert B.area(torch.tensor([[[5.0, 5.0, 1.0, 1.0], [5.0, 5.0, 1.0, 9.0]]])).tolist() == [[0, 0]]
    assert B.xyxy_to_cxcywh(torch.rand(2, 3, 5, 4)).shape == (2, 3, 5, 4)


def test_clip_by_hand():
    boxes = torch.tensor([[-5.0, -5.0, 50.0, 5.0], [2.0, 3.0, 4.0, 5.0], [90.0, 90.0, 95.0, 99.0]])
    assert B.clip(boxes, height=10, width=20).tolist() == [[0, 0, 20, 5], [2, 3, 4, 5], [20, 10, 20, 10]]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.float16, torch.bfloat16])
def test_integers_and_half_precision_are_computed_in_float32(dtype):
    boxes = torch.tensor([[0, 0, 240, 240], [0, 0, 120, 240]]).to(dtype)  # exact in all of them
    assert B.iou(boxes, boxes).dtype == torch.float32
    assert B.iou(boxes, boxes)[0, 1] == 0.5
    assert B.area(boxes)[0] == 57600  # would overflow uint8


def test_half_precision_does_not_overflow_and_float64_stays():
    assert B.area(torch.tensor([[0, 0, 512, 512]], dtype=torch.float16)) == 2**18
    boxes = torch.tensor([[0, 0, 3, 1]], dtype=torch.float64)
    assert B.iou(boxes, boxes).dtype == B.giou(boxes, boxes).dtype == B.xyxy_to_cxcywh(boxes).dtype == torch.float64


def test_arrays_and_lists_are_taken_too():
    assert B.iou(np.array([[0, 0, 2, 2]]), [[1, 0, 3, 2]]).item() == pytest.approx(1 / 3)  # type: ignore[arg-type]


# IoU and GIoU


def test_iou_and_giou_by_hand():
    a = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    b = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0], [3.0, 0.0, 4.0, 2.0], [2.0, 0.0, 4.0, 2.0]])
    assert B.iou(a, b)[0].tolist() == pytest.approx([1, 1 / 3, 0, 0])
    # third: hull 4 x 2 = 8, union 4 + 2 = 6, so -2/8; fourth: they touch, the hull is filled
    assert B.giou(a, b)[0].tolist() == pytest.approx([1, 1 / 3, -0.25, 0])


@given(box_lists(), box_lists())
def test_pairwise_agrees_with_plain_python(a, b):
    expected = torch.tensor([[plain_iou_and_giou(p, q) for q in b.tolist()] for p in a.tolist()])
    expected = expected.reshape(len(a), len(b), 2)
    for index, ours in enumerate((B.iou, B.giou)):
        torch.testing.assert_close(ours(a, b), expected[..., index], atol=1e-5, rtol=1e-5)


@given(box_lists(), box_lists())
def test_iou_and_giou_are_symmetric_and_bounded(a, b):
    for function, low in ((B.iou, 0), (B.giou, -1)):
        values = function(a, b)
        assert torch.equal(values, function(b, a).T)
        assert ((values >= low) & (values <= 1)).all()
    assert (B.giou(a, b) <= B.iou(a, b)).all()
    real = (B.area(a) > 0)[:, None] & (B.area(b) > 0)
    assert (B.giou(a, b)[real] > -1).all()


@given(box_lists(), st.integers(-500, 500), st.integers(-500, 500), st.sampled_from([0.25, 0.5, 2.0, 8.0]))
def test_iou_does_not_depend_on_place_and_scale(a, dx, dy, scale):
    moved = (a + torch.tensor([dx, dy, dx, dy])) * scale
    torch.testing.assert_close(B.iou(moved, moved), B.iou(a, a), atol=1e-6, rtol=0)
    torch.testing.assert_close(B.giou(moved, moved), B.giou(a, a), atol=1e-6, rtol=0)


def test_boxes_without_area_give_zero_and_finite_numbers():
    boxes = torch.tensor([[3.0, 3.0, 3.0, 3.0], [3.0, 3.0, 9.0, 3.0], [0.0, 0.0, 5.0, 5.0], [8.0, 8.0, 2.0, 2.0]])
    overlap = B.iou(boxes, boxes)
    without = [0, 1, 3]
    assert overlap[without].eq(0).all() and overlap[:, without].eq(0).all()
    assert B.giou(boxes, boxes).isfinite().all()
    assert B.giou(boxes, boxes)[0, 0] == 0


def test_paired_broadcasts_and_equals_the_diagonal():
    a, _, _ = random_boxes(12, seed=1)
    b, _, _ = random_boxes(12, seed=2)
    torch.testing.assert_close(B.paired_iou(a, b), B.iou(a, b).diagonal())
    torch.testing.assert_close(B.paired_giou(a, b), B.giou(a, b).diagonal())
    assert B.paired_iou(a.reshape(3, 4, 4), b[:4]).shape == (3, 4)
    assert B.iou(a.reshape(2, 6, 4), b.reshape(2, 6, 4)).shape == (2, 6, 6)


@pytest.mark.parametrize("function", [B.paired_iou, B.paired_giou])
def test_gradients_agree_with_differences(function):
    a = torch.tensor([[0, 0, 4, 3], [5, 5, 9, 9.5]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([[1, 1, 6, 7], [0, 0, 2, 3]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda boxes: function(boxes, b), (a,))


def test_giou_has_a_gradient_where_iou_has_none_and_never_nan():
    a = torch.tensor([[0.0, 0.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0]], requires_grad=True)
    b = torch.tensor([[5.0, 5.0, 6.0, 6.0], [2.0, 2.0, 2.0, 2.0]])
    (iou_grad,) = torch.autograd.grad(B.paired_iou(a, b).sum(), a)
    (giou_grad,) = torch.autograd.grad(B.paired_giou(a, b).sum(), a)
    assert iou_grad.eq(0).all()
    assert giou_grad[0].ne(0).any() and giou_grad.isfinite().all()


# NMS


def test_nms_by_hand():
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 5], [20, 20, 30, 30]])
    scores = torch.tensor([0.8, 0.9, 0.7, 0.95])
    assert B.nms(boxes, scores, 0.6).tolist() == [3, 1, 2]  # IoU of 1 and 0 is 0.9, of 1 and 2 is 5/9
    assert B.nms(boxes, scores, 0.5).tolist() == [3, 1]
    assert B.nms(boxes, scores, 0.5).dtype == torch.int64


def test_a_dropped_box_drops_none():
    # in a row, each overlaps only its neighbors: 1 falls to 0, so that 2 stays
    boxes = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]])
    assert B.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.3).tolist() == [0, 2]


def test_equal_scores_keep_their_order():
    boxes = torch.tensor([[0.0, 0, 1, 1]]).repeat(300, 1) + torch.arange(300)[:, None] * 2
    assert B.nms(boxes, torch.full((300,), 0.5), 0.5).tolist() == list(range(300))
    same = torch.tensor([[0.0, 0, 1, 1]]).repeat(4, 1)
    assert B.nms(same, torch.tensor([0.1, 0.5, 0.5, 0.5]), 0.5).tolist() == [1]


@pytest.mark.parametrize("n", [0, 1, 2, B.NMS_BLOCK - 1, B.NMS_BLOCK, B.NMS_BLOCK + 1, 500])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
def test_nms_agrees_with_plain_python(n, threshold):
    boxes, scores, labels = random_boxes(n, seed=n)
    assert B.nms(boxes, scores, threshold).tolist() == plain_nms(boxes, scores.tolist(), [0] * n, threshold)
    expected = plain_nms(boxes, scores.tolist(), labels.tolist(), threshold)
    assert B.batched_nms(boxes, scores, labels, threshold).tolist() == expected


@settings(max_examples=60)
@given(box_lists(max_size=12), st.sampled_from([0.0, 0.2, 0.5, 0.9]), st.data())
def test_nms_properties(boxes, threshold, data):
    n = len(boxes)
    scores = torch.tensor(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)), dtype=torch.float32)
    kept = B.nms(boxes, scores, threshold)
    assert scores[kept].tolist() == sorted(scores[kept].tolist(), reverse=True)
    overlap = B.iou(boxes[kept], boxes[kept]).fill_diagonal_(0)
    assert (overlap <= threshold).all()  # the kept leave each other alone,
    dropped = [i for i in range(n) if i not in kept.tolist()]
    for i in dropped:  # and each dropped box has a kept one at least as good that overlaps it
        rivals = kept[scores[kept] >= scores[i]]
        assert (B.iou(boxes[i : i + 1], boxes[rivals]) > threshold).any()
    assert torch.equal(B.nms(boxes[kept], scores[kept], threshold), torch.arange(len(kept)))


def test_the_longest_chain():
    # every box falls or stays because of its neighbor: the rounds inside a block and the blocks must hand on
    x = torch.arange(3 * B.NMS_BLOCK + 5) * 10.0
    boxes = torch.stack([x, 0 * x, x + 40, 0 * x + 40], dim=1)
    scores = torch.linspace(1, 0.1, len(x))
    assert B.nms(boxes, scores, 0.5).tolist() == list(range(0, len(x), 2))


@pytest.mark.parametrize("far", [0.0, 1e6, -1e6, 1.6e7])
def test_classes_do_not_meet_wherever_the_boxes_are(far):
    boxes = torch.tensor([[0.0, 0, 8, 8]]).repeat(6, 1) + far
    labels = torch.tensor([0, 1, 2, 0, 79, -1])
    kept = B.batched_nms(boxes, torch.tensor([0.9, 0.8, 0.7, 0.95, 0.6, 0.5]), labels, 0.5)
    assert kept.tolist() == [3, 1, 2, 4, 5]
    near = torch.tensor([[0.0, 0, 8, 8], [0, 0, 8, 4]]) + far  # IoU 0.5, also in class 1000
    assert B.batched_nms(near, torch.tensor([0.9, 0.8]), torch.tensor([1000, 1000]), 0.6).tolist() == [0, 1]


def test_many_boxes_need_little_memory(monkeypatch):
    boxes, scores, labels = random_boxes(10_000, seed=3, span=2000)
    largest = 0
    original = B._overlaps

    def watch(*arguments):
        nonlocal largest
        result = original(*arguments)
        largest = max(largest, result.numel())
        return result

    monkeypatch.setattr(B, "_overlaps", watch)
    B.batched_nms(boxes, scores, labels, 0.7)
    assert 0 < largest <= B.NMS_BLOCK * 10_000  # times 4 bytes times a dozen intermediate results: 30 MB


# letterbox


def test_letterbox_by_hand():
    center = B.letterbox(height=300, width=600, size=640, resize_to=636)
    assert (center.resized_h, center.resized_w, center.pad_left, center.pad_top) == (318, 636, 2, 161)
    assert center.apply(torch.tensor([0.0, 0.0, 600.0, 300.0])).tolist() == pytest.approx([2, 161, 638, 479])
    corner = B.letterbox(height=300, width=600, size=640, pad="bottom_right")
    assert (corner.pad_left, corner.pad_top, corner.scale) == (0, 0, 640 / 600)
    odd = B.letterbox(height=97, width=64, size=96, resize_to=95)
    assert (odd.resized_h, odd.resized_w, odd.pad_top, odd.pad_left) == (95, 63, 0, 16)


@given(st.integers(1, 6000), st.integers(1, 6000), st.integers(32, 1280), st.integers(0, 8), st.booleans(), box_lists())
def test_letterbox_inverse_and_content_inside(height, width, size, margin, center, boxes):
    frame = B.letterbox(height, width, size, size - margin, "center" if center else "bottom_right")
    assert max(frame.resized_h, frame.resized_w) == size - margin
    assert 0 <= frame.pad_left <= size - frame.resized_w and 0 <= frame.pad_top <= size - frame.resized_h
    if center:
        assert abs(size - frame.resized_w - 2 * frame.pad_left) <= 1
        assert abs(size - frame.resized_h - 2 * frame.pad_top) <= 1
    exact = boxes.double()
    torch.testing.assert_close(frame.invert(frame.apply(exact)), exact, atol=1e-9, rtol=0)


# bad input: what was wrong, by name

ok = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
BAD = [
    (lambda: B.xyxy_to_cxcywh(torch.rand(3)), r"boxes .*\(3,\)"),
    (lambda: B.cxcywh_to_xyxy(torch.rand(2, 5)), r"boxes .*\(2, 5\)"),
    (lambda: B.xywh_to_xyxy(torch.tensor(1.0)), r"boxes .*\(\)"),
    (lambda: B.iou(torch.rand(2, 3), ok), r"^a must .*\(2, 3\)"),
    (lambda: B.iou(ok, torch.rand(2, 3)), r"^b must .*\(2, 3\)"),
    (lambda: B.giou(ok[0], ok), r"^a must .*\(4,\)"),
    (lambda: B.nms(ok[0], torch.rand(1), 0.5), r"boxes .*\(4,\)"),
    (lambda: B.nms(ok, torch.rand(2), 0.5), r"scores .*\(1,\).*\(2,\)"),
    (lambda: B.nms(ok, torch.rand(1), 1.5), r"iou_threshold .* 1.5"),
    (lambda: B.nms(ok, torch.rand(1), math.nan), r"iou_threshold .* nan"),
    (lambda: B.batched_nms(ok, torch.rand(1), torch.tensor([0, 1]), 0.5), r"labels .*\(1,\)"),
    (lambda: B.letterbox(5, -1), r"5 x -1"),
    (lambda: B.letterbox(5, 5, size=64, resize_to=65), r"resize_to .*64.* 65"),
    (lambda: B.letterbox(5, 5, pad="left"), r"pad .* 'left'"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
