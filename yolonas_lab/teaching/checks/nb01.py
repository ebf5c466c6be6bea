"""Checks of notebook 01: IoU of all pairs, GIoU of partners, the letterbox undone, NMS class by class."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from yolonas_lab.teaching.exercises import Case, Mistake, check_cases, show_hint, show_solution

# Plausible wrong answers to the exercises of notebook 01, and what to say to each (used by the checks nb01).


def _areas(a: Tensor, b: Tensor, clamp: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Intersection, hull, area of a and area of b for boxes that broadcast; wrong where `clamp` is False."""
    sides = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    sides = sides.clamp(min=0) if clamp else sides
    return sides.prod(-1), hull, (a[..., 2:] - a[..., :2]).prod(-1), (b[..., 2:] - b[..., :2]).prod(-1)


def _all_pairs(formula: Callable[..., Tensor], clamp: bool = True) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda a, b: formula(*_areas(a[:, None], b, clamp))


def _partners(formula: Callable[..., Tensor], clamp: bool = True) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda a, b: formula(*_areas(a, b, clamp))


def _right(shared: Tensor, hull: Tensor, area_a: Tensor, area_b: Tensor) -> Tensor:
    return shared / (area_a + area_b - shared)


def _right_giou(shared: Tensor, hull: Tensor, area_a: Tensor, area_b: Tensor) -> Tensor:
    union = area_a + area_b - shared
    return shared / union - (hull - union) / hull


def _one_pixel_more(a: Tensor, b: Tensor) -> Tensor:
    wider = torch.tensor([0.0, 0, 1, 1])
    return _all_pairs(_right)(a + wider, b + wider)


def _as_xywh(a: Tensor, b: Tensor) -> Tensor:
    a, b = (torch.cat([box[:, :2], box[:, :2] + box[:, 2:]], dim=1) for box in (a, b))
    return _all_pairs(_right)(a, b)


NO_CLAMP = (
    "boxes that lie apart give a negative width and a negative height, and their product is positive: "
    "clamp both at 0 before you multiply."
)

IOU_MISTAKES = (
    Mistake(_all_pairs(_right, clamp=False), NO_CLAMP),
    Mistake(
        _all_pairs(lambda shared, hull, area_a, area_b: shared / (area_a + area_b)),
        "the shared part is counted twice in the union: subtract the intersection once from the sum of the two areas.",
    ),
    Mistake(
        _all_pairs(lambda shared, hull, area_a, area_b: shared / hull),
        "you divide by the hull, the smallest box around both; the union is area A + area B − intersection.",
    ),
    Mistake(
        _all_pairs(lambda shared, hull, area_a, area_b: shared / torch.minimum(area_a, area_b)),
        "you divide by the smaller area; IoU divides by the union of both.",
    ),
    Mistake(
        lambda a, b: _all_pairs(_right)(a[:, [0, 2, 1, 3]], b[:, [0, 2, 1, 3]]),
        "x and y got mixed up: the four numbers are left, top, right, bottom, so the sides are box[2] − box[0] and "
        "box[3] − box[1].",
    ),
    Mistake(_one_pixel_more, "no + 1: edges are positions, not pixel numbers, so a box from 1 to 6 is 5 px wide."),
    Mistake(_as_xywh, "you read the last two numbers as width and height, but they are the right and bottom edges."),
    Mistake(
        lambda a, b: _all_pairs(_right)(b, a),
        "rows and columns are exchanged: row i belongs to a[i], so it is a that needs the extra axis: a[:, None].",
    ),
)

GIOU_MISTAKES = (
    Mistake(
        _partners(_right_giou, clamp=False),
        NO_CLAMP,
    ),
    Mistake(
        _partners(lambda s, hull, a, b: s / (a + b - s) - (hull - s) / hull),
        "the empty part of the hull is hull − union; you subtracted the intersection.",
    ),
    Mistake(
        _partners(lambda s, hull, a, b: s / (a + b - s) + (hull - (a + b - s)) / hull),
        "the empty share of the hull is a penalty: subtract it from the IoU.",
    ),
    Mistake(
        _partners(lambda s, hull, a, b: s / (a + b - s) - (hull - (a + b - s)) / (a + b - s)),
        "the empty part is measured as a share of the hull: divide it by the hull, not by the union.",
    ),
    Mistake(
        _partners(lambda s, hull, a, b: 1 - _right_giou(s, hull, a, b)),
        "this is the loss, 1 − GIoU; the exercise asks for GIoU itself.",
    ),
    Mistake(
        lambda a, b: _hull_from_inner_corners(a, b),
        "the hull must contain both boxes: the smaller of the left top corners, the larger of the right bottom ones.",
    ),
    Mistake(_all_pairs(_right_giou), "here each box meets only its partner in the same row: n numbers, not n × n."),
    Mistake(_partners(_right), "this is plain IoU: the share of the hull that stays empty is still to be subtracted."),
)


def _hull_from_inner_corners(a: Tensor, b: Tensor) -> Tensor:
    shared, _, area_a, area_b = _areas(a, b)
    hull = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).prod(-1)
    return _right_giou(shared, hull, area_a, area_b)


def _frame(height: int, width: int, size: int, longest: int, side: int | None = None) -> tuple[float, Tensor, Tensor]:
    """Scale, padding (4,) and limits (4,) of an image whose side of `side` px (default: the longest) gets `longest`."""
    scale = longest / (side or max(height, width))
    left, top = (size - round(width * scale)) // 2, (size - round(height * scale)) // 2
    return scale, torch.tensor([left, top, left, top]), torch.tensor([width, height, width, height])


def _clipped(boxes: Tensor, limits: Tensor) -> Tensor:
    return torch.minimum(boxes.clamp(min=0), limits)


def _divided_first(boxes: Tensor, height: int, width: int, size: int, resize_to: int) -> Tensor:
    scale, pad, limits = _frame(height, width, size, resize_to)
    return _clipped(boxes / scale - pad, limits)


def _without_padding(boxes: Tensor, height: int, width: int, size: int, resize_to: int) -> Tensor:
    scale, _, limits = _frame(height, width, size, resize_to)
    return _clipped(boxes / scale, limits)


def _all_padding_left(boxes: Tensor, height: int, width: int, size: int, resize_to: int) -> Tensor:
    scale, _, limits = _frame(height, width, size, resize_to)
    left, top = size - round(width * scale), size - round(height * scale)
    return _clipped((boxes - torch.tensor([left, top, left, top])) / scale, limits)


def _paddings_swapped(boxes: Tensor, height: int, width: int, size: int, resize_to: int) -> Tensor:
    scale, pad, limits = _frame(height, width, size, resize_to)
    return _clipped((boxes - pad[[1, 0, 3, 2]]) / scale, limits)


def _scaled_to_size(boxes: Tensor, height: int, width: int, size: int, resize_to: int) -> Tensor:
    scale, pad, limits = _frame(height, width, size, size)
    return _clipped((boxes - pad) / scale, limits)


def _from_shortest_side(boxes: Tensor, height: int, width: int, size: int, resize_to: int) -> Tensor:
    scale, pad, limits = _frame(height, width, size, resize_to, side=min(height, width))
    return _clipped((boxes - pad) / scale, limits)


def _multiplied(boxes: Tensor, height: int, width: int, size: int, resize_to: int) -> Tensor:
    scale, pad, limits = _frame(height, width, size, resize_to)
    return _clipped((boxes - pad) * scale, limits)


def _not_clipped(boxes: Tensor, height: int, width: int, size: int, resize_to: int) -> Tensor:
    scale, pad, _ = _frame(height, width, size, resize_to)
    return (boxes - pad) / scale


def _limits_swapped(boxes: Tensor, height: int, width: int, size: int, resize_to: int) -> Tensor:
    scale, pad, limits = _frame(height, width, size, resize_to)
    return _clipped((boxes - pad) / scale, limits[[1, 0, 3, 2]])


INVERSE_MISTAKES = (
    Mistake(_divided_first, "undo the last step first: subtract the padding, then divide by the scale."),
    Mistake(_without_padding, "the image does not start at the corner of the input: subtract the padding first."),
    Mistake(_all_padding_left, "the padding is shared by both sides: what is left of size, divided by 2 (//)."),
    Mistake(_paddings_swapped, "x goes with the left padding and y with the top padding; you have them exchanged."),
    Mistake(_scaled_to_size, "the longest side became resize_to px, not size px: the scale is resize_to / longest."),
    Mistake(_from_shortest_side, "it is the longest side of the image, max(height, width), that becomes resize_to px."),
    Mistake(_multiplied, "going back you divide by the scale; multiplying is the way there."),
    Mistake(_not_clipped, "a box may reach into the padding: clip x to 0 … width and y to 0 … height."),
    Mistake(_limits_swapped, "x is clipped to the width and y to the height; you have the two exchanged."),
)


def _greedy(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float, variant: str = "") -> list[int]:
    """NMS class by class with one fault, named by `variant`."""
    overlap = _all_pairs(_right)(boxes, boxes)
    order = scores.argsort(descending=variant != "worst first").tolist()
    if variant == "ignores labels":
        labels = torch.zeros_like(labels)
    kept: list[int] = []
    for place, i in enumerate(order):
        rivals = order[:place] if variant == "dropped boxes drop" else kept
        rivals = [j for j in rivals if labels[j] == labels[i]]
        values = [overlap[j, i].item() for j in rivals]
        hit = [v >= threshold if variant == "greater or equal" else v > threshold for v in values]
        if not any(hit) if variant != "inverted" else all(hit):
            kept.append(i)
    return kept


def _nms_with(variant: str) -> Callable[..., Tensor]:
    return lambda *arguments: torch.tensor(_greedy(*arguments, variant=variant))


NMS_MISTAKES = (
    Mistake(_nms_with("ignores labels"), "a box may only be dropped by a better one of its own class: compare labels."),
    Mistake(
        _nms_with("greater or equal"),
        "an IoU equal to the threshold is still allowed: drop only where IoU > threshold.",
    ),
    Mistake(
        _nms_with("dropped boxes drop"),
        "a box that was itself dropped must not drop others: compare with the kept boxes only.",
    ),
    Mistake(_nms_with("worst first"), "start with the best score: argsort(descending=True)."),
    Mistake(_nms_with("inverted"), "the test is the wrong way round: boxes that overlap a better one are dropped."),
    Mistake(lambda *arguments: torch.tensor(sorted(_greedy(*arguments))), "return the indices best score first."),
    Mistake(
        lambda boxes, scores, labels, threshold: torch.tensor(
            [scores.argsort(descending=True).tolist().index(i) for i in _greedy(boxes, scores, labels, threshold)]
        ),
        "these are positions in the sorted list: translate them back into indices of `boxes` with order[…].",
    ),
)


HINTS = {
    "iou": [
        "The scalar version above compares two numbers with max and min. Which torch functions compare two tensors "
        "number by number, and which shapes must they have so that every row of a meets every row of b?",
        "a[:, None] has shape (n, 1, 4) and b has shape (m, 4): in torch.maximum(a[:, None, :2], b[:, :2]) they "
        "broadcast to (n, m, 2), the left top corner of every intersection.",
        "sides = (torch.minimum(right bottoms) - torch.maximum(left tops)).clamp(min=0) is (n, m, 2). Then "
        "intersection = sides[..., 0] * sides[..., 1], and union = area_a[:, None] + area_b - intersection.",
    ],
    "giou": [
        "You need three areas for each pair: intersection, union and hull. You have the first two already from IoU; "
        "the hull is the box from the smallest left top to the largest right bottom.",
        "Here each box meets its partner only, so nothing has to be unsqueezed: a[:, :2] and b[:, :2] fit as they are. "
        "The hull's left top corner is torch.minimum(a[:, :2], b[:, :2]).",
        "return intersection / union - (hull - union) / hull",
    ],
    "letterbox_inverse": [
        "Write down what the letterbox did to x, in order: times the scale, plus the left padding. To undo it, undo "
        "the last step first.",
        "scale = resize_to / max(height, width). The padding follows from it: the resized width is "
        "round(width * scale), and what is left of size is shared by both sides: (size - resized width) // 2.",
        "x = (boxes[:, [0, 2]] - pad_left) / scale, then .clamp(0, width); the same for columns [1, 3] with pad_top "
        "and height. Put the columns back in order, for example with torch.stack.",
    ],
    "nms": [
        "Start from the loop above. What does it have to ask, besides the IoU, before it drops a box?",
        "Keep a list of the indices still in play, best score first: order = scores.argsort(descending=True).tolist(). "
        "Take the first, then filter the others; only a box that was kept may drop another one.",
        "order = [i for i in order if labels[i] != labels[best] or yl.boxes.iou(boxes[[best]], boxes[[i]]).item() "
        "<= iou_threshold]",
    ],
}


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


SOLUTIONS = {"iou": iou, "giou": giou, "letterbox_inverse": letterbox_inverse, "nms": nms}


def check_iou(fn: Callable[..., Any]) -> None:
    """Check an IoU of all pairs: a (n, 4), b (m, 4) xyxy px -> (n, m)."""
    one, many = torch.tensor([[1.0, 1, 6, 5]]), torch.tensor([[4.0, 3, 9, 6], [1, 1, 6, 5], [0, 0, 12, 7]])
    apart = torch.tensor([[8.0, 7, 10, 9], [6, 1, 8, 5], [0, 8, 5, 9]])
    pairs = [
        (one, many[:1], "the two boxes on grid paper"),
        (one, many, "partly shared, equal, and one inside the other"),
        (one, apart, "boxes that lie apart, touch, and lie one above the other"),
        (_random_boxes(5, seed=1), _random_boxes(3, seed=2), "5 and 3 random boxes"),
        (_random_boxes(4, seed=3), _random_boxes(4, seed=4), "4 and 4 random boxes"),
    ]
    check_cases("iou", fn, [Case((a, b), iou(a, b), about) for a, b, about in pairs], IOU_MISTAKES)


def check_giou(fn: Callable[..., Any]) -> None:
    """Check a GIoU of partners: a (n, 4), b (n, 4) xyxy px -> (n,)."""
    one, two = torch.tensor([[1.0, 1, 6, 5]]), torch.tensor([[4.0, 3, 9, 6]])
    far = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2], [3, 3, 5, 4]])
    targets = torch.tensor([[4.0, 0, 6, 2], [4, 5, 6, 7], [3, 3, 5, 4]])
    pairs = [
        (one, two, "the two boxes on grid paper"),
        (far, targets, "beside each other, far apart, and equal"),
        (_random_boxes(6, seed=5), _random_boxes(6, seed=6), "6 random pairs"),
    ]
    check_cases("giou", fn, [Case((a, b), giou(a, b), about) for a, b, about in pairs], GIOU_MISTAKES)


def check_letterbox_inverse(fn: Callable[..., Any]) -> None:
    """Check the inverse letterbox: boxes (n, 4) px of the input and the image's sizes -> (n, 4) px of the image."""
    photo = torch.tensor([[217.6, 145.1, 445.5, 351.8]])
    sticking_out = torch.tensor([[10.0, -5, 630, 650], [300, 200, 639, 639]])
    calls = [
        ((photo, 600, 512, 640, 636), "a photograph 512 wide and 600 high"),
        ((photo, 200, 320, 640, 640), "a wide image that fills the input from left to right"),
        ((sticking_out, 600, 512, 640, 636), "boxes that reach into the padding"),
        ((_random_boxes(5, seed=7) * 40, 427, 640, 640, 636), "5 random boxes of a landscape photograph"),
        ((_random_boxes(5, seed=8) * 6, 75, 33, 96, 95), "5 random boxes of a tiny image"),
    ]
    cases = [Case(arguments, letterbox_inverse(*arguments), about) for arguments, about in calls]
    check_cases("letterbox_inverse", fn, cases, INVERSE_MISTAKES, tolerance=1e-3)


def check_nms(fn: Callable[..., Any]) -> None:
    """Check NMS class by class: boxes (n, 4), scores (n,), labels (n,), threshold -> kept indices, best score first."""
    five = torch.tensor([[1.0, 1, 6, 6], [2, 1, 7, 6], [3, 1, 8, 6], [9, 2, 13, 6], [9, 3, 13, 7]])
    scores, same = torch.tensor([0.9, 0.8, 0.7, 0.5, 0.6]), torch.zeros(5, dtype=torch.int64)
    chain = torch.tensor([[0.0, 0, 6, 4], [2, 0, 8, 4], [4, 0, 10, 4]])
    half = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 1]])
    calls = [
        ((five, scores, same, 0.5), "the five boxes above, one class"),
        ((chain, torch.tensor([0.9, 0.8, 0.7]), same[:3], 0.4), "a chain: the middle box goes, so the last may stay"),
        ((half, torch.tensor([0.9, 0.8]), same[:2], 0.5), "two boxes whose IoU is exactly the threshold"),
        ((five, scores, torch.tensor([0, 1, 0, 1, 1]), 0.5), "the five boxes, two classes"),
        (_random_candidates(30, seed=9), "30 random boxes of three classes"),
        (_random_candidates(60, seed=10), "60 random boxes of three classes"),
    ]
    cases = [Case(arguments, nms(*arguments), about) for arguments, about in calls]
    check_cases("nms", _as_indices(fn), cases, NMS_MISTAKES)


def hint(name: str, level: int = 1) -> None:
    """Print hint `level` (1: the gentlest) of exercise `name`."""
    show_hint(HINTS, name, level)


def solution(name: str) -> None:
    """Print the reference solution of exercise `name`."""
    show_solution(SOLUTIONS, name)


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


def _as_indices(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Let a list of indices pass for a tensor of them."""
    if not callable(fn):
        return fn

    @wraps(fn)
    def with_tensor(*arguments: Any) -> Any:
        kept = fn(*arguments)
        return torch.tensor([int(i) for i in kept], dtype=torch.int64) if isinstance(kept, list | tuple) else kept

    return with_tensor
