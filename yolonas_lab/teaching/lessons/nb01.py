"""Boxes as geometry: on grid paper, over each other, and as the numbers of a box format (notebook 01).

And what a trained detector hands to NMS, made up: one box and k scores at every anchor point, drawn at random. Several
points on one object claim it with slightly different boxes, the best near its center on the level that fits its size;
all other scores are a low murmur.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from yolonas_lab.models.yolo_nas import STRIDES, anchor_points
from yolonas_lab.teaching.figures import GROUND_TRUTH, HIGHLIGHT, MUTED, PREDICTION, add_rectangle, note

HULL = "#555555"
PLATE = {"boxstyle": "square,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.9}


def grid_paper(ax: Any, width: int, height: int, every: int = 1) -> Any:
    """Turn an axis into grid paper of width x height cells, y downwards as in images; ticks `every` so many cells."""
    ax.set(xlim=(0, width), ylim=(height, 0), aspect="equal", xlabel="x (px)", ylabel="y (px)")
    ax.set(xticks=range(0, width + 1, every), yticks=range(0, height + 1, every))
    return ax


def draw_pair(ax: Any, a: Sequence[float], b: Sequence[float], hull: bool = True) -> Any:
    """Shade two xyxy boxes (a: the target, b: the prediction), their intersection and, dashed, their hull."""
    if hull:
        corners = (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
        style = {"facecolor": MUTED, "alpha": 0.35, "edgecolor": HULL, "linestyle": "--", "linewidth": 1.5}
        add_rectangle(ax, corners, label="hull", **style)
    for box, color, name in ((a, GROUND_TRUTH, "target A"), (b, PREDICTION, "prediction B")):
        add_rectangle(ax, box, facecolor="white", edgecolor="none")
        add_rectangle(ax, box, facecolor=color, edgecolor="none", alpha=0.45, label=name)
    shared = [max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])]
    if shared[2] <= shared[0] or shared[3] <= shared[1]:
        shared = [0, 0, 0, 0]  # seen in the legend alone
    add_rectangle(ax, shared, facecolor=HIGHLIGHT, edgecolor="none", label="intersection")
    for box, color in ((a, GROUND_TRUTH), (b, PREDICTION)):
        add_rectangle(ax, box, fill=False, edgecolor=color, linewidth=2.5)
    return ax


def count_cells(ax: Any, a: Sequence[int], b: Sequence[int]) -> Any:
    """Number the cells that two integer boxes share (1, 2, …, white) and go on with the rest of their union."""
    in_a, in_b = ([(x, y) for y in range(y1, y2) for x in range(x1, x2)] for x1, y1, x2, y2 in (a, b))
    shared = [cell for cell in in_a if cell in in_b]
    rest = sorted(set(in_a) ^ set(in_b), key=lambda cell: cell[::-1])  # row by row
    for number, (x, y) in enumerate(shared + rest, start=1):
        style = {"fontweight": "bold", "color": "white"} if number <= len(shared) else {}
        ax.text(x + 0.5, y + 0.5, str(number), ha="center", va="center", fontsize=9, **style)
    return ax


def draw_kept(ax: Any, boxes: Any, kept: Sequence[int], names: Sequence[str], colors: Sequence[str]) -> Any:
    """Draw boxes (n, 4) xyxy with a name in the corner of each: the kept ones in their colors, the others dashed."""
    for i, box in enumerate(boxes.tolist()):
        stays = i in kept
        style: dict[str, Any] = {"linewidth": 3} if stays else {"linewidth": 1.3, "linestyle": "--"}
        color = colors[i] if stays else HULL
        add_rectangle(ax, box, fill=False, edgecolor=color, **style)
        ax.text(box[0] + 0.2, box[1] + 0.2, names[i], va="top", color=color, fontweight="bold" if stays else "normal")
    return ax


def draw_format(ax: Any, box: Sequence[float], name: str) -> Any:
    """Mark on the xyxy box the four numbers that the format `name` ("xyxy", "cxcywh" or "xywh") stores."""
    x1, y1, x2, y2 = box
    add_rectangle(ax, box, fill=False, edgecolor="white", linewidth=2.5)
    x, y = ((x1 + x2) / 2, (y1 + y2) / 2) if name == "cxcywh" else (x1, y1)
    points = [(x, y, 8, "bottom")] + [(x2, y2, -8, "top")] * (name == "xyxy")
    for x, y, up, side in points:
        ax.plot(x, y, "o", color=HIGHLIGHT, markersize=9, markeredgecolor="white", clip_on=False)
        note(ax, f"({x:g}, {y:g})", (x, y), (0, up), ha="center", va=side, fontsize=9.5, bbox=PLATE)
    if name != "xyxy":  # width and height as arrows below and beside the box
        gap = 0.06 * max(x2 - x1, y2 - y1)
        for start, end, text, shift, ha, va in (
            ((x1, y2 + gap), (x2, y2 + gap), f"w = {x2 - x1:g}", (0, -3), "center", "top"),
            ((x2 + gap, y2), (x2 + gap, y1), f"h = {y2 - y1:g}", (4, 0), "left", "center"),
        ):
            ax.annotate("", start, end, arrowprops={"arrowstyle": "<->", "color": "white", "lw": 1.8})
            middle = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
            note(ax, text, middle, shift, ha=ha, va=va, fontsize=9.5, bbox=PLATE)
    return ax


def draw_funnel(ax: Any, counts: dict[str, int]) -> Any:
    """Bars for the numbers that are left after each step, first step on top, on a logarithmic axis."""
    values = list(counts.values())
    bars = ax.barh(list(counts), values, color=PREDICTION, height=0.65)
    ax.bar_label(bars, [f"{value:,}" for value in values], padding=4)
    ax.set(xscale="log", xlim=(0.8, 12 * max(values)), ylim=(len(values) - 0.5, -0.5))
    ax.grid(axis="y", visible=False)
    return ax


MURMUR = 0.003  # mean score where there is nothing


class Candidates(NamedTuple):
    """One image's predictions before any selection; `a` counts the anchor points."""

    boxes: Tensor  # (a, 4) xyxy px
    scores: Tensor  # (a, k) in [0, 1]


def simulate_candidates(
    boxes: Tensor, labels: Tensor, num_classes: int, image_size: int = 640, jitter: float = 0.03, seed: int = 0
) -> Candidates:
    """Make up predictions for an image of image_size² px with these true boxes (g, 4) xyxy px and labels (g,), g > 0.

    jitter: standard deviation of each side as a share of the object's size, at the best points; doubled at the rim.

    >>> found = simulate_candidates([[8.0, 8.0, 56.0, 56.0]], [1], num_classes=2, image_size=64)
    >>> found.boxes.shape, found.scores.argmax().item() % 2
    (torch.Size([84, 4]), 1)
    """
    boxes, labels = torch.as_tensor(boxes, dtype=torch.float32), torch.as_tensor(labels)
    random = torch.Generator().manual_seed(seed)
    points, strides = anchor_points([(image_size // s, image_size // s) for s in STRIDES])  # (a, 2), (a, 1)
    # Where there is nothing: boxes of 2 to 8 strides around every point and low scores, exponentially distributed.
    half = strides * (1 + 3 * torch.rand(len(points), 2, generator=random))  # (a, 2)
    murmur = -MURMUR * torch.log1p(-torch.rand(len(points), num_classes, generator=random))
    predicted, scores = torch.cat([points - half, points + half], dim=1), murmur.clamp(max=1)  # (a, 4), (a, k)
    claim, owner = _claims(points, strides, boxes).max(dim=1)  # (a,), (a,)
    own = boxes[owner]  # (a, 4)
    spread = jitter * (2 - claim)[:, None] * (own[:, 2:] - own[:, :2]).repeat(1, 2)  # (a, 4)
    claimed = own + spread * torch.randn(own.shape, generator=random)
    confidence = claim * (0.75 + 0.2 * torch.rand(len(claim), generator=random))
    rows = claim.nonzero().squeeze(1)
    predicted[rows] = claimed[rows]
    scores[rows, labels[owner[rows]]] = confidence[rows].clamp(min=MURMUR)
    return Candidates(predicted, scores)


def _claims(points: Tensor, strides: Tensor, boxes: Tensor) -> Tensor:
    """How strongly each point claims each box, (a, g) in [0, 1]: 1 at its center on the fitting level, 0 outside."""
    size = boxes[:, 2:] - boxes[:, :2]  # (g, 2)
    offset = (points[:, None] - (boxes[:, :2] + boxes[:, 2:]) / 2) / size  # (a, g, 2), within ±0.5 inside
    nearness = torch.exp(-(offset / 0.22).square().sum(dim=2) / 2)
    side = size.prod(dim=1).sqrt()  # (g,)
    fit = torch.exp(-torch.log2(side / (7 * strides)).square() / 2)  # (a, g): best where a box is about 7 cells wide
    return nearness * fit * (offset.abs().amax(dim=2) < 0.5)
