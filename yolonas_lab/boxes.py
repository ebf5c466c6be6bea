"""Boxes: three ways to write one, how far two agree (IoU, GIoU), greedy suppression (NMS), and the letterbox.

Taught in notebook 01. A box is four numbers in the last dimension, in pixels: xyxy is (left, top, right, bottom),
cxcywh is (center x, center y, width, height), xywh is (left, top, width, height), as in COCO files. Integers and half
precision are computed in float32 (float16 overflows at 256² px). GIoU: Rezatofighi et al., 1902.09630, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

NMS_BLOCK = 64  # boxes that are decided together; bounds memory at NMS_BLOCK x n overlaps


def _float_boxes(boxes: Tensor, name: str = "boxes") -> Tensor:
    boxes = torch.as_tensor(boxes)
    if boxes.ndim == 0 or boxes.shape[-1] != 4:
        raise ValueError(f"{name} must have 4 numbers in the last dimension, but its shape is {tuple(boxes.shape)}.")
    return boxes if boxes.dtype in (torch.float32, torch.float64) else boxes.float()


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Corners to center and size, (..., 4) px to (..., 4) px; ValueError if the last dimension is not 4."""
    x1, y1, x2, y2 = _float_boxes(boxes).unbind(-1)
    return torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], dim=-1)


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Center and size to corners, (..., 4) px to (..., 4) px; ValueError if the last dimension is not 4."""
    cx, cy, w, h = _float_boxes(boxes).unbind(-1)
    return torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], dim=-1)


def xyxy_to_xywh(boxes: Tensor) -> Tensor:
    """Corners to left-top corner and size, (..., 4) px to (..., 4) px; ValueError if the last dimension is not 4."""
    x1, y1, x2, y2 = _float_boxes(boxes).unbind(-1)
    return torch.stack([x1, y1, x2 - x1, y2 - y1], dim=-1)


def xywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Left-top corner and size to corners, (..., 4) px to (..., 4) px; ValueError if the last dimension is not 4."""
    x, y, w, h = _float_boxes(boxes).unbind(-1)
    return torch.stack([x, y, x + w, y + h], dim=-1)


def area(boxes: Tensor) -> Tensor:
    """Area of xyxy boxes, (..., 4) px to (...) px²; a box whose right is left of its left has area 0."""
    x1, y1, x2, y2 = _float_boxes(boxes).unbind(-1)
    return (x2 - x1).clamp(min=0) * (y2 - y1).clamp(min=0)


def clip(boxes: Tensor, height: float, width: float) -> Tensor:
    """Move the corners of xyxy boxes (..., 4) px that lie outside an image of height x width px onto its border."""
    x1, y1, x2, y2 = _float_boxes(boxes).unbind(-1)
    return torch.stack([x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)], dim=-1)


def _divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """0 where the denominator is 0, in the value and in the gradient."""
    positive = denominator > 0
    return torch.where(positive, numerator, 0) / torch.where(positive, denominator, 1)


def _intersection_and_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    ax1, ay1, ax2, ay2 = a.unbind(-1)
    bx1, by1, bx2, by2 = b.unbind(-1)
    w = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0)
    h = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0)
    intersection = w * h
    return intersection, area(a) + area(b) - intersection


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of each xyxy box in a with its partner in b, (..., 4) px and (..., 4) px to (...) in [0, 1].

    The leading dimensions broadcast. Where both boxes have area 0 the IoU is 0, never NaN.
    """
    intersection, union = _intersection_and_union(_float_boxes(a, "a"), _float_boxes(b, "b"))
    return _divide(intersection, union)


def paired_giou(a: Tensor, b: Tensor) -> Tensor:
    """GIoU of each xyxy box in a with its partner in b, (..., 4) px and (..., 4) px to (...) in [-1, 1].

    GIoU = IoU - (share of the smallest enclosing box that the union leaves empty), so it still says which of two far
    pairs is nearer, and has a gradient there. It is -1 only for boxes without area; two equal ones of these give 0.
    """
    a, b = _float_boxes(a, "a"), _float_boxes(b, "b")
    intersection, union = _intersection_and_union(a, b)
    ax1, ay1, ax2, ay2 = a.unbind(-1)
    bx1, by1, bx2, by2 = b.unbind(-1)
    w = (torch.maximum(ax2, bx2) - torch.minimum(ax1, bx1)).clamp(min=0)
    h = (torch.maximum(ay2, by2) - torch.minimum(ay1, by1)).clamp(min=0)
    hull = w * h
    return _divide(intersection, union) - _divide(hull - union, hull)


def _all_pairs(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    a, b = _float_boxes(a, "a"), _float_boxes(b, "b")
    for name, boxes in (("a", a), ("b", b)):
        if boxes.ndim < 2:
            raise ValueError(f"{name} must be a list of boxes of shape (n, 4), but its shape is {tuple(boxes.shape)}.")
    return a.unsqueeze(-2), b.unsqueeze(-3)  # (n, 1, 4), (1, m, 4)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of every xyxy box in a with every one in b, (n, 4) px and (m, 4) px to (n, m) in [0, 1].

    Leading batch dimensions are allowed. Raises ValueError where a or b is no list of boxes.

    >>> iou(torch.tensor([[0, 0, 4, 4]]), torch.tensor([[0, 0, 4, 2], [8, 8, 9, 9]]))
    tensor([[0.5000, 0.0000]])
    """
    return paired_iou(*_all_pairs(a, b))


def giou(a: Tensor, b: Tensor) -> Tensor:
    """GIoU of every xyxy box in a with every one in b, (n, 4) px and (m, 4) px to (n, m) in [-1, 1], as paired_giou.

    >>> giou(torch.tensor([[0, 0, 2, 2]]), torch.tensor([[3, 0, 5, 2]]))  # 2 of the hull's 10 px² are empty
    tensor([[-0.2000]])
    """
    return paired_giou(*_all_pairs(a, b))


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy non-maximum suppression: take the best box, drop all that overlap it with IoU > threshold, repeat.

    boxes (n, 4) xyxy px, scores (n,) -> int64 indices of the kept boxes, best score first; of equal scores the earlier
    box goes first. Raises ValueError for shapes that do not fit together and a threshold outside [0, 1].

    >>> nms(torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]]), torch.tensor([0.8, 0.9, 0.7]), 0.5)
    tensor([1, 2])
    """
    return batched_nms(boxes, scores, torch.zeros_like(torch.as_tensor(scores)), iou_threshold)


def batched_nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """NMS class by class: a box is dropped only for a better box with the same label.

    boxes (n, 4) xyxy px, scores (n,), labels (n,) -> int64 indices of the kept boxes of all classes, best score first.
    Labels are compared, not turned into an offset of the coordinates, so that no coordinate is too large for it.

    >>> batched_nms(torch.tensor([[0, 0, 9, 9], [0, 0, 9, 8]]), torch.tensor([0.8, 0.9]), torch.tensor([3, 5]), 0.5)
    tensor([1, 0])
    """
    boxes, scores = _float_boxes(boxes).detach(), torch.as_tensor(scores).detach()
    labels = torch.as_tensor(labels, device=boxes.device)
    if boxes.ndim != 2:
        raise ValueError(f"boxes must have shape (n, 4), but has {tuple(boxes.shape)}.")
    for name, values in (("scores", scores), ("labels", labels)):
        if values.shape != boxes.shape[:1]:
            raise ValueError(f"{name} must have shape ({len(boxes)},), one per box, but has {tuple(values.shape)}.")
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"iou_threshold must lie in [0, 1], but is {iou_threshold}.")
    # Plainly: take the best candidate, drop what it overlaps, repeat. Here the best NMS_BLOCK candidates are decided
    # among themselves before they drop what they overlap: the same choice in far fewer steps.
    candidates = torch.sort(scores, descending=True, stable=True).indices
    kept = [candidates[:0]]
    while len(candidates):
        block, rest = candidates[:NMS_BLOCK], candidates[NMS_BLOCK:]
        winners = block[_greedy_keep(_overlaps(boxes, labels, block, block, iou_threshold))]
        kept.append(winners)
        candidates = rest[~_overlaps(boxes, labels, winners, rest, iou_threshold).any(dim=0)] if len(rest) else rest
    return torch.cat(kept)


def _overlaps(boxes: Tensor, labels: Tensor, first: Tensor, second: Tensor, iou_threshold: float) -> Tensor:
    same_class = labels[first][:, None] == labels[second]
    return (iou(boxes[first], boxes[second]) > iou_threshold) & same_class  # (first, second)


def _greedy_keep(overlaps: Tensor) -> Tensor:
    """The greedy choice among n boxes sorted best first, from who overlaps whom: bool (n, n) to bool (n,).

    "A box stays if no better box that stays overlaps it" has one solution. Applied again and again to a guess, the rule
    makes at least one more box right per round, from the best down, and a handful of rounds are enough in practice.
    """
    overlaps = overlaps.triu(diagonal=1)  # only a better box (row) can drop a box (column)
    keep = torch.ones(len(overlaps), dtype=torch.bool, device=overlaps.device)
    while True:
        updated = ~(overlaps & keep[:, None]).any(dim=0)
        if torch.equal(updated, keep):
            return keep
        keep = updated


@dataclass(frozen=True)
class Letterbox:
    """How an image of height x width px sits on the network's input: scaled, with padding in px to its left and top."""

    height: int
    width: int
    scale: float
    pad_left: int
    pad_top: int

    @property
    def resized_h(self) -> int:
        """Height in px of the scaled image, without padding; at least 1."""
        return max(1, round(self.height * self.scale))

    @property
    def resized_w(self) -> int:
        """Width in px of the scaled image, without padding; at least 1."""
        return max(1, round(self.width * self.scale))

    def apply(self, boxes: Tensor) -> Tensor:
        """xyxy boxes (..., 4) from px of the original image to px of the network input."""
        return (boxes := _float_boxes(boxes)) * self.scale + self._shift(boxes)

    def invert(self, boxes: Tensor) -> Tensor:
        """xyxy boxes (..., 4) from px of the network input back to px of the original image."""
        return ((boxes := _float_boxes(boxes)) - self._shift(boxes)) / self.scale

    def _shift(self, boxes: Tensor) -> Tensor:
        return boxes.new_tensor([self.pad_left, self.pad_top, self.pad_left, self.pad_top])


def letterbox(
    height: int,
    width: int,
    size: int = 640,
    resize_to: int | None = None,
    pad: Literal["center", "bottom_right"] = "center",
) -> Letterbox:
    """Fit an image of height x width px into a square of size px; its longest side becomes resize_to px (or size).

    The padding goes all around ("center") or to the right and bottom. Raises ValueError for sizes below 1, a resize_to
    larger than size, and another pad.

    >>> letterbox(height=480, width=640, size=320).apply(torch.tensor([0.0, 0, 640, 480]))
    tensor([  0.,  40., 320., 280.])
    """
    resize_to = size if resize_to is None else resize_to
    if height < 1 or width < 1:
        raise ValueError(f"an image must be at least 1 x 1 pixels, but height x width is {height} x {width}.")
    if not 1 <= resize_to <= size:
        raise ValueError(f"resize_to must lie between 1 and size ({size}), but is {resize_to}.")
    if pad not in ("center", "bottom_right"):
        raise ValueError(f'pad must be "center" or "bottom_right", but is {pad!r}.')
    box = Letterbox(height, width, resize_to / max(height, width), pad_left=0, pad_top=0)
    if pad == "bottom_right":
        return box
    return replace(box, pad_left=(size - box.resized_w) // 2, pad_top=(size - box.resized_h) // 2)
