"""Exercises of notebook 01: IoU of all pairs, GIoU of partners, the letterbox undone, NMS class by class."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from yolonas_lab.teaching.exercises import Case, Exercise, Exercises, faults


def iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of every box in a (n, 4) with every box in b (m, 4): (n, m)."""
    left_top = torch.maximum(a[:, None, :2], b[:, :2])  # (n, m, 2)
    right_bottom = torch.minimum(a[:, None, 2:], b[:, 2:])  # (n, m, 2)
    sides = (right_bottom - left_top).clamp(min=0)
    intersection = sides[..., 0] * sides[..., 1]  # (n, m)
    area_a = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1])  # (n,)
    area_b = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])  # (m,)
    return intersection / (area_a[:, None] + area_b - intersection)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """GIoU of each box in a (n, 4) with its partner in b (n, 4): (n,)."""
    sides = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0)
    intersection = sides.prod(dim=1)  # (n,)
    union = (a[:, 2:] - a[:, :2]).prod(dim=1) + (b[:, 2:] - b[:, :2]).prod(dim=1) - intersection
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(dim=1)
    return intersection / union - (hull - union) / hull


def letterbox_inverse(boxes: Tensor, height: int, width: int, size: int, resize_to: int) -> Tensor:
    """Boxes (n, 4) from px of the network input back to px of the image, clipped to it."""
    scale = resize_to / max(height, width)
    pad_left = (size - round(width * scale)) // 2
    pad_top = (size - round(height * scale)) // 2
    x = ((boxes[:, [0, 2]] - pad_left) / scale).clamp(0, width)
    y = ((boxes[:, [1, 3]] - pad_top) / scale).clamp(0, height)
    return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], dim=1)


def nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Indices of the boxes that survive NMS class by class, best score first."""
    order = scores.argsort(descending=True)
    kept = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        overlap = iou(boxes[best][None], boxes[rest])[0]
        order = rest[(overlap <= iou_threshold) | (labels[rest] != labels[best])]
    return torch.stack(kept)


def _parts(a: Tensor, b: Tensor, clamp: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Intersection, hull, area of a and area of b for boxes that broadcast; wrong where `clamp` is False."""
    sides = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    sides = sides.clamp(min=0) if clamp else sides
    return sides.prod(-1), hull, (a[..., 2:] - a[..., :2]).prod(-1), (b[..., 2:] - b[..., :2]).prod(-1)


def _all_pairs(formula: Callable[..., Tensor], clamp: bool = True) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda a, b: formula(*_parts(a[:, None], b, clamp))


def _partners(formula: Callable[..., Tensor], clamp: bool = True) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda a, b: formula(*_parts(a, b, clamp))


def _iou(shared: Tensor, hull: Tensor, area_a: Tensor, area_b: Tensor) -> Tensor:
    return shared / (area_a + area_b - shared)


def _giou(shared: Tensor, hull: Tensor, area_a: Tensor, area_b: Tensor) -> Tensor:
    union = area_a + area_b - shared
    return shared / union - (hull - union) / hull


def _hull_from_inner_corners(a: Tensor, b: Tensor) -> Tensor:
    shared, _, area_a, area_b = _parts(a, b)
    hull = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).prod(-1)
    return _giou(shared, hull, area_a, area_b)


def _one_pixel_more(a: Tensor, b: Tensor) -> Tensor:
    wider = torch.tensor([0.0, 0, 1, 1])
    return iou(a + wider, b + wider)


def _as_xywh(a: Tensor, b: Tensor) -> Tensor:
    return iou(*(torch.cat([box[:, :2], box[:, :2] + box[:, 2:]], dim=1) for box in (a, b)))


def _undo(boxes: Tensor, height: int, width: int, size: int, resize_to: int, wrong: str = "") -> Tensor:
    """The letterbox undone with one fault."""
    side = min(height, width) if wrong == "shortest_side" else max(height, width)
    scale = (size if wrong == "to_size" else resize_to) / side
    free = torch.tensor([size - round(width * scale), size - round(height * scale)])  # px that the image does not fill
    padding = free if wrong == "one_side" else free // 2  # (2,) left and top
    padding = padding.flip(0) if wrong == "paddings_swapped" else padding
    padding = (padding * (wrong != "no_padding")).repeat(2)  # (4,)
    if wrong == "divided_first":
        boxes = boxes / scale - padding
    else:
        boxes = (boxes - padding) * (scale if wrong == "multiplied" else 1 / scale)
    if wrong == "not_clipped":
        return boxes
    limits = [height, width] if wrong == "limits_swapped" else [width, height]
    return torch.minimum(boxes.clamp(min=0), torch.tensor(limits).repeat(2))


def _greedy(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float, wrong: str = "") -> Tensor:
    """NMS class by class with one fault."""
    overlap = iou(boxes, boxes)
    order = scores.argsort(descending=wrong != "worst_first").tolist()
    labels = labels * (wrong != "labels_ignored")
    kept: list[int] = []
    for place, i in enumerate(order):
        rivals = order[:place] if wrong == "dropped_boxes_drop" else kept
        values = [overlap[j, i].item() for j in rivals if labels[j] == labels[i]]
        hit = [v >= threshold if wrong == "greater_or_equal" else v > threshold for v in values]
        if not any(hit) if wrong != "inverted" else all(hit):
            kept.append(i)
    kept = [order.index(i) for i in kept] if wrong == "positions" else kept
    return torch.tensor(sorted(kept) if wrong == "sorted" else kept)


def _as_indices(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A list of indices passes for a tensor of them."""

    @wraps(fn)
    def with_tensor(*arguments: Any) -> Any:
        kept = fn(*arguments)
        return torch.tensor([int(i) for i in kept], dtype=torch.int64) if isinstance(kept, list | tuple) else kept

    return with_tensor


def _random_boxes(count: int, seed: int) -> Tensor:
    """(count, 4) xyxy boxes with sides of 1 to 7 px, all within 16 px."""
    random = torch.Generator().manual_seed(seed)
    left_top = 9 * torch.rand(count, 2, generator=random)
    return torch.cat([left_top, left_top + 1 + 6 * torch.rand(count, 2, generator=random)], dim=1)


def _random_candidates(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor, float]:
    """Boxes, scores that all differ, labels 0 … 2, and a threshold."""
    random = torch.Generator().manual_seed(seed)
    scores = (torch.randperm(count, generator=random) + 1) / (count + 1)
    return _random_boxes(count, seed), scores, torch.randint(3, (count,), generator=random), 0.3


def _iou_cases() -> list[Case]:
    one, many = torch.tensor([[1.0, 1, 6, 5]]), torch.tensor([[4.0, 3, 9, 6], [1, 1, 6, 5], [0, 0, 12, 7]])
    apart = torch.tensor([[8.0, 7, 10, 9], [6, 1, 8, 5], [0, 8, 5, 9]])
    return [
        Case((one, many[:1]), "the two boxes on grid paper"),
        Case((one, many), "partly shared, equal, and one inside the other"),
        Case((one, apart), "boxes that lie apart, touch, and lie one above the other"),
        Case((_random_boxes(5, seed=1), _random_boxes(3, seed=2)), "5 and 3 random boxes"),
        Case((_random_boxes(4, seed=3), _random_boxes(4, seed=4)), "4 and 4 random boxes"),
    ]


def _giou_cases() -> list[Case]:
    far = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2], [3, 3, 5, 4]])
    targets = torch.tensor([[4.0, 0, 6, 2], [4, 5, 6, 7], [3, 3, 5, 4]])
    return [
        Case((torch.tensor([[1.0, 1, 6, 5]]), torch.tensor([[4.0, 3, 9, 6]])), "the two boxes on grid paper"),
        Case((far, targets), "beside each other, far apart, and equal"),
        Case((_random_boxes(6, seed=5), _random_boxes(6, seed=6)), "6 random pairs"),
    ]


def _letterbox_cases() -> list[Case]:
    photo = torch.tensor([[217.6, 145.1, 445.5, 351.8]])
    sticking_out = torch.tensor([[10.0, -5, 630, 650], [300, 200, 639, 639]])
    return [
        Case((photo, 600, 512, 640, 636), "a photograph 512 wide and 600 high"),
        Case((photo, 200, 320, 640, 640), "a wide image that fills the input from left to right"),
        Case((sticking_out, 600, 512, 640, 636), "boxes that reach into the padding"),
        Case((_random_boxes(5, seed=7) * 40, 427, 640, 640, 636), "5 random boxes of a landscape photograph"),
        Case((_random_boxes(5, seed=8) * 6, 75, 33, 96, 95), "5 random boxes of a tiny image"),
    ]


def _nms_cases() -> list[Case]:
    five = torch.tensor([[1.0, 1, 6, 6], [2, 1, 7, 6], [3, 1, 8, 6], [9, 2, 13, 6], [9, 3, 13, 7]])
    scores, same = torch.tensor([0.9, 0.8, 0.7, 0.5, 0.6]), torch.zeros(5, dtype=torch.int64)
    chain = torch.tensor([[0.0, 0, 6, 4], [2, 0, 8, 4], [4, 0, 10, 4]])
    half = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 1]])
    return [
        Case((five, scores, same, 0.5), "the five boxes above, one class"),
        Case((chain, scores[:3], same[:3], 0.4), "a chain: the middle box goes, so the last may stay"),
        Case((half, scores[:2], same[:2], 0.5), "two boxes whose IoU is exactly the threshold"),
        Case((five, scores, torch.tensor([0, 1, 0, 1, 1]), 0.5), "the five boxes, two classes"),
        Case(_random_candidates(30, seed=9), "30 random boxes of three classes"),
        Case(_random_candidates(60, seed=10), "60 random boxes of three classes"),
    ]


NO_CLAMP = (
    "boxes that lie apart give a negative width and a negative height, and their product is positive: "
    "clamp both at 0 before you multiply."
)

EXERCISES = Exercises(
    Exercise(
        iou,
        hints=(
            "The scalar version above compares two numbers with max and min. Which torch functions compare two "
            "tensors number by number, and which shapes must they have so that every row of a meets every row of b?",
            "a[:, None] has shape (n, 1, 4) and b has shape (m, 4): in torch.maximum(a[:, None, :2], b[:, :2]) they "
            "broadcast to (n, m, 2), the left top corner of every intersection.",
            "sides = (torch.minimum(right bottoms) - torch.maximum(left tops)).clamp(min=0) is (n, m, 2). Then "
            "intersection = sides[..., 0] * sides[..., 1], and union = area_a[:, None] + area_b - intersection.",
        ),
        cases=_iou_cases,
        mistakes={
            NO_CLAMP: _all_pairs(_iou, clamp=False),
            "the shared part is counted twice in the union: subtract the intersection once from the sum of the two "
            "areas.": _all_pairs(lambda shared, hull, area_a, area_b: shared / (area_a + area_b)),
            "you divide by the hull, the smallest box around both; the union is area A + area B − intersection.": (
                _all_pairs(lambda shared, hull, area_a, area_b: shared / hull)
            ),
            "you divide by the smaller area; IoU divides by the union of both.": (
                _all_pairs(lambda shared, hull, area_a, area_b: shared / torch.minimum(area_a, area_b))
            ),
            "x and y got mixed up: the four numbers are left, top, right, bottom, so the sides are box[2] − box[0] "
            "and box[3] − box[1].": lambda a, b: iou(a[:, [0, 2, 1, 3]], b[:, [0, 2, 1, 3]]),
            "no + 1: edges are positions, not pixel numbers, so a box from 1 to 6 is 5 px wide.": _one_pixel_more,
            "you read the last two numbers as width and height, but they are the right and bottom edges.": _as_xywh,
            "rows and columns are exchanged: row i belongs to a[i], so it is a that needs the extra axis: "
            "a[:, None].": lambda a, b: iou(b, a),
        },
    ),
    Exercise(
        giou,
        hints=(
            "You need three areas for each pair: intersection, union and hull. You have the first two already from "
            "IoU; the hull is the box from the smallest left top to the largest right bottom.",
            "Here each box meets its partner only, so nothing has to be unsqueezed: a[:, :2] and b[:, :2] fit as they "
            "are. The hull's left top corner is torch.minimum(a[:, :2], b[:, :2]).",
            "return intersection / union - (hull - union) / hull",
        ),
        cases=_giou_cases,
        mistakes={
            NO_CLAMP: _partners(_giou, clamp=False),
            "the empty part of the hull is hull − union; you subtracted the intersection.": (
                _partners(lambda s, hull, a, b: s / (a + b - s) - (hull - s) / hull)
            ),
            "the empty share of the hull is a penalty: subtract it from the IoU.": (
                _partners(lambda s, hull, a, b: s / (a + b - s) + (hull - (a + b - s)) / hull)
            ),
            "the empty part is measured as a share of the hull: divide it by the hull, not by the union.": (
                _partners(lambda s, hull, a, b: s / (a + b - s) - (hull - (a + b - s)) / (a + b - s))
            ),
            "this is the loss, 1 − GIoU; the exercise asks for GIoU itself.": lambda a, b: 1 - giou(a, b),
            "the hull must contain both boxes: the smaller of the left top corners, the larger of the right bottom "
            "ones.": _hull_from_inner_corners,
            "here each box meets only its partner in the same row: n numbers, not n × n.": _all_pairs(_giou),
            "this is plain IoU: the share of the hull that stays empty is still to be subtracted.": _partners(_iou),
        },
    ),
    Exercise(
        letterbox_inverse,
        hints=(
            "Write down what the letterbox did to x, in order: times the scale, plus the left padding. To undo it, "
            "undo the last step first.",
            "scale = resize_to / max(height, width). The padding follows from it: the resized width is "
            "round(width * scale), and what is left of size is shared by both sides: (size - resized width) // 2.",
            "x = (boxes[:, [0, 2]] - pad_left) / scale, then .clamp(0, width); the same for columns [1, 3] with "
            "pad_top and height. Put the columns back in order, for example with torch.stack.",
        ),
        cases=_letterbox_cases,
        tolerance=1e-3,
        mistakes=faults(
            _undo,
            divided_first="undo the last step first: subtract the padding, then divide by the scale.",
            no_padding="the image does not start at the corner of the input: subtract the padding first.",
            one_side="the padding is shared by both sides: what is left of size, divided by 2 (//).",
            paddings_swapped="x goes with the left padding and y with the top padding; you have them exchanged.",
            to_size="the longest side became resize_to px, not size px: the scale is resize_to / longest.",
            shortest_side="it is the longest side of the image, max(height, width), that becomes resize_to px.",
            multiplied="going back you divide by the scale; multiplying is the way there.",
            not_clipped="a box may reach into the padding: clip x to 0 … width and y to 0 … height.",
            limits_swapped="x is clipped to the width and y to the height; you have the two exchanged.",
        ),
    ),
    Exercise(
        nms,
        hints=(
            "Start from the loop above. What does it have to ask, besides the IoU, before it drops a box?",
            "Keep a list of the indices still in play, best score first: order = "
            "scores.argsort(descending=True).tolist(). Take the first, then filter the others; only a box that was "
            "kept may drop another one.",
            "order = [i for i in order if labels[i] != labels[best] or yl.boxes.iou(boxes[[best]], boxes[[i]]).item() "
            "<= iou_threshold]",
        ),
        cases=_nms_cases,
        probe=_as_indices,
        mistakes=faults(
            _greedy,
            labels_ignored="a box may only be dropped by a better one of its own class: compare labels.",
            greater_or_equal="an IoU equal to the threshold is still allowed: drop only where IoU > threshold.",
            dropped_boxes_drop="a box that was itself dropped must not drop others: compare with the kept boxes only.",
            worst_first="start with the best score: argsort(descending=True).",
            inverted="the test is the wrong way round: boxes that overlap a better one are dropped.",
            sorted="return the indices best score first.",
            positions="these are positions in the sorted list: translate them back into indices of `boxes` with "
            "order[…].",
        ),
    ),
)
hint, solution = EXERCISES.hint, EXERCISES.solution
check_iou, check_giou = EXERCISES["iou"].check, EXERCISES["giou"].check
check_letterbox_inverse, check_nms = EXERCISES["letterbox_inverse"].check, EXERCISES["nms"].check
