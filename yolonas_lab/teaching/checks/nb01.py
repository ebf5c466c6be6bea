"""Exercises of notebook 01: IoU of all pairs, GIoU of partners, the letterbox undone, NMS class by class."""

import torch
from torch import Tensor

from yolonas_lab.teaching.exercises import Case, Exercise, Exercises, tensor_from


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


def _dropped_boxes_drop(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    hit = (iou(boxes, boxes) > iou_threshold) & (labels[:, None] == labels) & (scores[:, None] > scores)
    order = scores.argsort(descending=True)
    return order[~hit.any(dim=0)[order]]


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
            ").clamp(min=0) -> )": "boxes that lie apart give a negative width and a negative height, and their "
            "product is positive: clamp both at 0 before you multiply.",
            "area_b - intersection -> area_b": "the shared part is counted twice in the union: subtract the "
            "intersection once from the sum of the two areas.",
            "area_a[:, None] + area_b - intersection -> "
            "(torch.maximum(a[:, None, 2:], b[:, 2:]) - torch.minimum(a[:, None, :2], b[:, :2])).prod(-1)": (
                "you divide by the hull, the smallest box around both; the union is area A + area B − intersection."
            ),
            "area_a[:, None] + area_b - intersection -> torch.minimum(area_a[:, None], area_b)": "you divide by the "
            "smaller area; IoU divides by the union of both.",
            "left_top = -> a, b = a[:, [0, 2, 1, 3]], b[:, [0, 2, 1, 3]]; left_top =": "x and y got mixed up: the four "
            "numbers are left, top, right, bottom, so the sides are box[2] − box[0] and box[3] − box[1].",
            "left_top = -> a, b = (x + torch.tensor([0.0, 0, 1, 1]) for x in (a, b)); left_top =": "no + 1: edges are "
            "positions, not pixel numbers, so a box from 1 to 6 is 5 px wide.",
            "left_top = -> a, b = (torch.cat([x[:, :2], x[:, :2] + x[:, 2:]], 1) for x in (a, b)); left_top =": (
                "you read the last two numbers as width and height, but they are the right and bottom edges."
            ),
            "left_top = -> a, b = b, a; left_top =": "rows and columns are exchanged: row i belongs to a[i], so it is "
            "a that needs the extra axis: a[:, None].",
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
            ").clamp(min=0) -> )": "boxes that lie apart give a negative width and a negative height, and their "
            "product is positive: clamp both at 0 before you multiply.",
            "hull - union -> hull - intersection": "the empty part of the hull is hull − union; you subtracted the "
            "intersection.",
            "/ union - ( -> / union + (": "the empty share of the hull is a penalty: subtract it from the IoU.",
            "/ hull -> / union": "the empty part is measured as a share of the hull: divide it by the hull, not by the "
            "union.",
            "intersection / union - ( -> 1 - intersection / union + (": "this is the loss, 1 − GIoU; the exercise asks "
            "for GIoU itself.",
            "torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2] -> "
            "torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2]": "the hull must contain both boxes: the "
            "smaller of the left top corners, the larger of the right bottom ones.",
            ("a[:, -> a[:, None, ", "dim=1 -> dim=-1"): "here each box meets only its partner in the same row: n "
            "numbers, not n × n.",
            "(hull - union) / hull -> 0": "this is plain IoU: the share of the hull that stays empty is still to be "
            "subtracted.",
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
        mistakes={
            ("- pad_left) / scale -> / scale) - pad_left", "- pad_top) / scale -> / scale) - pad_top"): (
                "undo the last step first: subtract the padding, then divide by the scale."
            ),
            ("- pad_left ->", "- pad_top ->"): "the image does not start at the corner of the input: subtract the "
            "padding first.",
            ") // 2 -> )": "the padding is shared by both sides: what is left of size, divided by 2 (//).",
            (
                "pad_left = (size - round(width -> pad_left = (size - round(height",
                "pad_top = (size - round(height -> pad_top = (size - round(width",
            ): "x goes with the left padding and y with the top padding; you have them exchanged.",
            "resize_to / max -> size / max": "the longest side became resize_to px, not size px: the scale is "
            "resize_to / longest.",
            "max(height, width) -> min(height, width)": "it is the longest side of the image, max(height, width), that "
            "becomes resize_to px.",
            ") / scale -> ) * scale": "going back you divide by the scale; multiplying is the way there.",
            (".clamp(0, width) ->", ".clamp(0, height) ->"): "a box may reach into the padding: clip x to 0 … width "
            "and y to 0 … height.",
            (
                ".clamp(0, width) -> .clamp(0, h)",
                ".clamp(0, height) -> .clamp(0, width)",
                ".clamp(0, h) -> .clamp(0, height)",
            ): "x is clipped to the width and y to the height; you have the two exchanged.",
        },
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
        probe=tensor_from,
        mistakes={
            " | (labels[rest] != labels[best]) ->": "a box may only be dropped by a better one of its own class: "
            "compare labels.",
            "<= iou_threshold -> < iou_threshold": "an IoU equal to the threshold is still allowed: drop only where "
            "IoU > threshold.",
            _dropped_boxes_drop: "a box that was itself dropped must not drop others: compare with the kept boxes "
            "only.",
            "descending=True -> descending=False": "start with the best score: argsort(descending=True).",
            "<= iou_threshold -> > iou_threshold": "the test is the wrong way round: boxes that overlap a better one "
            "are dropped.",
            "torch.stack(kept) -> torch.stack(kept).sort().values": "return the indices best score first.",
            "torch.stack(kept) -> scores.argsort(descending=True).argsort()[torch.stack(kept)]": "these are positions "
            "in the sorted list: translate them back into indices of `boxes` with order[…].",
        },
    ),
)
hint, solution = EXERCISES.hint, EXERCISES.solution
check_iou, check_giou = EXERCISES["iou"].check, EXERCISES["giou"].check
check_letterbox_inverse, check_nms = EXERCISES["letterbox_inverse"].check, EXERCISES["nms"].check
