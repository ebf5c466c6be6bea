"""What a trained detector hands to NMS, made up: one box and k scores at every anchor point, drawn at random.

Notebook 01 uses it, where no network has been trained yet. Several points on one object claim it with slightly
different boxes, the best near its center on the level that fits its size; all other scores are a low murmur.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from yolonas_lab.models.heads import STRIDES, anchor_points

MURMUR = 0.003  # mean score where there is nothing


class Candidates(NamedTuple):
    """One image's predictions before any selection; `a` counts the anchor points."""

    boxes: Tensor  # (a, 4) xyxy px
    scores: Tensor  # (a, k) in [0, 1]


def simulate_candidates(
    boxes: Tensor, labels: Tensor, num_classes: int, image_size: int = 640, jitter: float = 0.03, seed: int = 0
) -> Candidates:
    """Make up predictions for an image of image_size² px with these true boxes (g, 4) xyxy px and labels (g,).

    jitter is the standard deviation of each side as a share of the object's size, for the best points; it doubles
    towards the rim. Raises ValueError for an image_size that is no multiple of 32 and for labels that do not fit.
    """
    boxes, labels = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.as_tensor(labels)
    if image_size < 1 or image_size % STRIDES[-1]:
        raise ValueError(f"image_size must be a multiple of {STRIDES[-1]} px, but is {image_size}.")
    if len(labels) != len(boxes) or any(not 0 <= label < num_classes for label in labels.tolist()):
        raise ValueError(f"labels must be {len(boxes)} numbers in 0 … {num_classes - 1}, but are {labels.tolist()}.")
    random = torch.Generator().manual_seed(seed)
    points, strides = anchor_points([(image_size // s, image_size // s) for s in STRIDES])  # (a, 2), (a, 1)
    predicted, scores = _murmur(points, strides, num_classes, random)
    if not len(boxes):
        return Candidates(predicted, scores)
    claim, owner = _claims(points, strides, boxes).max(dim=1)  # (a,), (a,)
    own = boxes[owner]  # (a, 4)
    size = (own[:, 2:] - own[:, :2]).repeat(1, 2)  # (a, 4)
    spread = jitter * (2 - claim)[:, None] * size
    claimed = own + spread * torch.randn(own.shape, generator=random)
    confidence = claim * (0.75 + 0.2 * torch.rand(len(claim), generator=random))
    on_object = claim > 0
    predicted[on_object] = claimed[on_object]
    rows = on_object.nonzero().squeeze(1)
    scores[rows, labels[owner[rows]]] = confidence[rows].clamp(min=MURMUR)
    return Candidates(predicted, scores)


def _murmur(points: Tensor, strides: Tensor, num_classes: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Boxes of 2 to 8 strides around every point and low scores, exponentially distributed."""
    half = strides * (1 + 3 * torch.rand(len(points), 2, generator=random))  # (a, 2)
    scores = -MURMUR * torch.log1p(-torch.rand(len(points), num_classes, generator=random))  # (a, k)
    return torch.cat([points - half, points + half], dim=1), scores.clamp(max=1)


def _claims(points: Tensor, strides: Tensor, boxes: Tensor) -> Tensor:
    """How strongly each point claims each box, (a, g) in [0, 1]: 1 at its center on the fitting level, 0 outside."""
    size = boxes[:, 2:] - boxes[:, :2]  # (g, 2)
    offset = (points[:, None] - (boxes[:, :2] + boxes[:, 2:]) / 2) / size  # (a, g, 2), within ±0.5 inside
    nearness = torch.exp(-(offset / 0.22).square().sum(dim=2) / 2)
    side = size.prod(dim=1).sqrt()  # (g,)
    fit = torch.exp(-torch.log2(side / (7 * strides)).square() / 2)  # (a, g): best where a box is about 7 cells wide
    return nearness * fit * (offset.abs().amax(dim=2) < 0.5)
