"""The checks of notebook 01: the reference and other right answers pass, plausible wrong ones get the right advice."""

import numpy as np
import pytest
import torch

import yolonas_lab as yl
from yolonas_lab.teaching.checks import nb01
from yolonas_lab.teaching.exercises import CheckFailed

CHECKS = {
    "iou": nb01.check_iou,
    "giou": nb01.check_giou,
    "letterbox_inverse": nb01.check_letterbox_inverse,
    "nms": nb01.check_nms,
}


@pytest.mark.parametrize("name", CHECKS)
def test_the_reference_passes_and_is_what_solution_prints(name, capsys):
    CHECKS[name](nb01.SOLUTIONS[name])
    assert f"✓ {name}: all" in capsys.readouterr().out
    nb01.solution(name)
    assert f"def {name}(" in capsys.readouterr().out


@pytest.mark.parametrize("name", CHECKS)
def test_every_exercise_has_three_hints_that_do_not_start_with_the_answer(name, capsys):
    assert len(nb01.HINTS[name]) == 3
    assert "return" not in nb01.HINTS[name][0]
    nb01.hint(name, 3)
    assert "Hint 3 of 3" in capsys.readouterr().out


def test_the_library_passes(capsys):
    nb01.check_iou(yl.boxes.iou)
    nb01.check_giou(yl.boxes.paired_giou)
    nb01.check_nms(yl.boxes.batched_nms)

    def inverse(boxes, height, width, size, resize_to):
        frame = yl.boxes.letterbox(height, width, size, resize_to)
        return yl.boxes.clip(frame.invert(boxes), height, width)

    nb01.check_letterbox_inverse(inverse)
    assert capsys.readouterr().out.count("✓") == 4


def _overlap(p, q):
    """IoU of two boxes given as lists, in plain Python."""
    w, h = min(p[2], q[2]) - max(p[0], q[0]), min(p[3], q[3]) - max(p[1], q[1])
    shared = w * h if w > 0 and h > 0 else 0.0
    return shared / ((p[2] - p[0]) * (p[3] - p[1]) + (q[2] - q[0]) * (q[3] - q[1]) - shared)


def test_plain_python_loops_pass(capsys):
    def iou(a, b):
        return torch.tensor([[_overlap(p, q) for q in b.tolist()] for p in a.tolist()])

    def giou(a, b):
        values = []
        for p, q in zip(a.tolist(), b.tolist(), strict=True):
            hull = (max(p[2], q[2]) - min(p[0], q[0])) * (max(p[3], q[3]) - min(p[1], q[1]))
            areas = (p[2] - p[0]) * (p[3] - p[1]) + (q[2] - q[0]) * (q[3] - q[1])
            together = areas / (1 + _overlap(p, q))  # A + B = union (1 + IoU)
            values.append(_overlap(p, q) - 1 + together / hull)
        return torch.tensor(values)

    def nms(boxes, scores, labels, iou_threshold):
        kept = []
        for i in np.argsort(-scores.numpy()):
            rivals = [j for j in kept if labels[j] == labels[i]]
            if all(_overlap(boxes[j].tolist(), boxes[i].tolist()) <= iou_threshold for j in rivals):
                kept.append(int(i))
        return kept  # a list of indices will do

    nb01.check_iou(iou)
    nb01.check_giou(giou)
    nb01.check_nms(nms)
    assert capsys.readouterr().out.count("✓") == 3


def _iou(a, b, clamp=True, divide_by_sum=False, order=(0, 1, 2, 3), transpose=False, extra=0.0):
    a, b = a[:, list(order)], b[:, list(order)]
    w = torch.minimum(a[:, None, 2], b[:, 2]) - torch.maximum(a[:, None, 0], b[:, 0]) + extra
    h = torch.minimum(a[:, None, 3], b[:, 3]) - torch.maximum(a[:, None, 1], b[:, 1]) + extra
    shared = w.clamp(min=0) * h.clamp(min=0) if clamp else w * h
    area_a, area_b = ((x[:, 2] - x[:, 0] + extra) * (x[:, 3] - x[:, 1] + extra) for x in (a, b))
    both = area_a[:, None] + area_b
    value = shared / (both if divide_by_sum else both - shared)
    return value.T if transpose else value


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        ({"clamp": False}, "clamp both at 0"),
        ({"divide_by_sum": True}, "counted twice in the union"),
        ({"order": (0, 2, 1, 3)}, "x and y got mixed up"),
        ({"transpose": True}, "rows and columns are exchanged"),
        ({"extra": 1.0}, "no + 1"),
    ],
)
def test_wrong_iou(fault, advice):
    with pytest.raises(CheckFailed, match="iou, case") as failure:
        nb01.check_iou(lambda a, b: _iou(a, b, **fault))
    assert advice in str(failure.value)


def _giou(a, b, outer=True, subtract="union", sign=-1, divide_by="hull", clamp=True):
    small, large = (torch.minimum, torch.maximum) if outer else (torch.maximum, torch.minimum)
    sides = torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])
    shared = (sides.clamp(min=0) if clamp else sides).prod(dim=1)
    areas = {"intersection": shared, "union": yl.boxes.area(a) + yl.boxes.area(b) - shared}
    areas["hull"] = (large(a[:, 2:], b[:, 2:]) - small(a[:, :2], b[:, :2])).prod(dim=1)
    return shared / areas["union"] + sign * (areas["hull"] - areas[subtract]) / areas[divide_by]


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        (lambda a, b: _giou(a, b, clamp=False), "clamp both at 0"),
        (lambda a, b: _giou(a, b, outer=False), "hull must contain both boxes"),
        (lambda a, b: _giou(a, b, subtract="intersection"), "hull − union"),
        (lambda a, b: _giou(a, b, sign=1), "a penalty"),
        (lambda a, b: _giou(a, b, divide_by="union"), "not by the union"),
        (lambda a, b: 1 - _giou(a, b), "this is the loss"),
        (yl.boxes.paired_iou, "plain IoU"),
        (yl.boxes.giou, "partner in the same row"),
    ],
)
def test_wrong_giou(wrong, advice):
    with pytest.raises(CheckFailed, match="giou, case") as failure:
        nb01.check_giou(wrong)
    assert advice in str(failure.value)


def _inverse(boxes, height, width, size, resize_to, pad_first=True, pad=True, swap=False, clip=True, longest=None):
    frame = yl.boxes.letterbox(height, width, size, longest(size) if longest else resize_to)
    left, top = (frame.pad_top, frame.pad_left) if swap else (frame.pad_left, frame.pad_top)
    shift = torch.tensor([left, top, left, top]) * pad
    back = (boxes - shift) / frame.scale if pad_first else boxes / frame.scale - shift
    return yl.boxes.clip(back, height, width) if clip else back


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        ({"pad_first": False}, "undo the last step first"),
        ({"pad": False}, "subtract the padding first"),
        ({"swap": True}, "you have them exchanged"),
        ({"clip": False}, "may reach into the padding"),
        ({"longest": lambda size: size}, "the scale is resize_to / longest"),
    ],
)
def test_wrong_letterbox_inverse(fault, advice):
    with pytest.raises(CheckFailed, match="letterbox_inverse, case") as failure:
        nb01.check_letterbox_inverse(lambda *arguments: _inverse(*arguments, **fault))
    assert advice in str(failure.value)


def test_letterbox_inverse_with_height_and_width_exchanged():
    def inverse(boxes, height, width, size, resize_to):
        frame = yl.boxes.letterbox(height, width, size, resize_to)
        return yl.boxes.clip(frame.invert(boxes), width, height)

    with pytest.raises(CheckFailed, match="x is clipped to the width"):
        nb01.check_letterbox_inverse(inverse)


def _nms(boxes, scores, labels, iou_threshold, descending=True, strict=True, dropped_drop=False):
    kept, overlap = [], yl.boxes.iou(boxes, boxes)
    alive = torch.ones(len(boxes), dtype=torch.bool)
    for i in scores.argsort(descending=descending).tolist():
        if not alive[i] and not dropped_drop:
            continue
        if alive[i]:
            kept.append(i)
        hit = overlap[i] > iou_threshold if strict else overlap[i] >= iou_threshold
        hit[torch.tensor(kept)] = False
        alive &= ~(hit & (labels == labels[i]))
    return torch.tensor(kept)


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        (lambda b, s, c, t: yl.boxes.nms(b, s, t), "a better one of its own class"),
        (lambda b, s, c, t: _nms(b, s, c, t, strict=False), "drop only where IoU > threshold"),
        (lambda b, s, c, t: _nms(b, s, c, t, descending=False), "start with the best score"),
        (lambda b, s, c, t: _nms(b, s, c, t, dropped_drop=True), "must not drop others"),
        (lambda b, s, c, t: _nms(b, s, c, t).sort().values, "best score first"),
        (lambda b, s, c, t: s.argsort(descending=True).argsort()[_nms(b, s, c, t)], "positions in the sorted list"),
    ],
)
def test_wrong_nms(wrong, advice):
    with pytest.raises(CheckFailed, match="nms, case") as failure:
        nb01.check_nms(wrong)
    assert advice in str(failure.value)


def test_a_mask_instead_of_indices_is_told_apart():
    def mask(boxes, scores, labels, iou_threshold):
        kept = torch.zeros(len(boxes), dtype=torch.bool)
        kept[_nms(boxes, scores, labels, iou_threshold)] = True
        return kept

    with pytest.raises(CheckFailed, match=r"True and False instead of whole numbers|Its shape is"):
        nb01.check_nms(mask)


@pytest.mark.parametrize("name", CHECKS)
def test_an_unwritten_or_crashing_answer_is_reported(name):
    def unwritten(*arguments):
        raise NotImplementedError

    with pytest.raises(CheckFailed, match="is not written yet"):
        CHECKS[name](unwritten)
    with pytest.raises(CheckFailed, match="raised IndexError"):
        CHECKS[name](lambda first, *others: first[:, 9])
    with pytest.raises(CheckFailed, match="give the check your function itself"):
        CHECKS[name](torch.zeros(3))  # type: ignore[arg-type]
