"""Plausible wrong answers to the exercises of notebook 01, and what to say to each (used by the checks nb01)."""

from collections.abc import Callable

import torch
from torch import Tensor

from yolonas_lab.teaching.checks.check import Mistake


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
