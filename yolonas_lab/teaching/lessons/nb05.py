"""Drawings of box distributions and of which anchor points learn which object (notebook 05)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from yolonas_lab.teaching.figures import GROUND_TRUTH, PREDICTION, add_rectangle, as_array, class_color, show_image

SIDES = ("left", "top", "right", "bottom")
BACKGROUND = "#D8D8D8"


def draw_bins(ax: Any, probabilities: Any, title: str, target: Any = None) -> Any:
    """Bars of a distribution (r,) over the bins; its expectation as a line, a target distribution (r,) as outlines."""
    p = as_array(probabilities)
    bins = np.arange(len(p))
    ax.bar(bins, p, color=PREDICTION, width=0.8, label="predicted")
    if target is not None:
        outline_bars(ax, target, width=0.8, label="target")
    mean = float(p @ bins)
    ax.axvline(mean, color="black", linestyle="--", linewidth=1.5, label=f"expectation {mean:.2f}")
    ax.set(ylim=(0, 1), xlabel="bin (strides)")
    ax.set_xticks(bins)
    ax.set_title(title, fontsize=11)
    return ax


def outline_bars(ax: Any, heights: Any, width: float, label: str) -> Any:
    """Bars (n,) of the truth as outlines, without those of height 0, which would look like a dash."""
    heights = as_array(heights)
    (some,) = np.nonzero(heights > 0)
    ax.bar(some, heights[some], width, fill=False, edgecolor=GROUND_TRUTH, linewidth=2.2, label=label)
    return ax


def draw_sides(ax: Any, point: Sequence[float], box: Sequence[float]) -> Any:
    """An anchor point, the box (xyxy px) around it, and the four distances between them as arrows."""
    (x, y), (x1, y1, x2, y2) = point, box
    add_rectangle(ax, box, fill=False, edgecolor=PREDICTION, linewidth=2.5)
    ends = ((x1, y), (x, y1), (x2, y), (x, y2))
    for name, (end_x, end_y) in zip(SIDES, ends):
        ax.annotate("", (end_x, end_y), point, arrowprops={"arrowstyle": "->", "linewidth": 1.5})
        across = end_y == y
        at = ((x + end_x) / 2, y + 0.5) if across else (x + 1, y + 0.72 * (end_y - y))
        text = f"{name}\n{abs(end_x - x) + abs(end_y - y):g} px"
        ax.text(*at, text, ha="center" if across else "left", va="top" if across else "center", fontsize=9)
    ax.plot(x, y, "o", color="black", markersize=8)
    return ax


def hatch_outside(ax: Any, inside: Any) -> Any:
    """Hatch the cells of a shown matrix (g, a) where `inside` is False: that point lies outside that object's box."""
    outside = np.argwhere(~as_array(inside)).tolist()
    for row, column in outside:
        cell = (column - 0.5, row - 0.5, column + 0.5, row + 0.5)
        add_rectangle(ax, cell, facecolor="white", alpha=0.65, linewidth=0)
        add_rectangle(ax, cell, fill=False, edgecolor=BACKGROUND, hatch="////", linewidth=0)
    for text in ax.texts:
        column, row = text.get_position()
        if [row, column] in outside:
            text.set_color("#555555")  # it may have been white, for a dark cell
    return ax


def draw_assignment(
    ax: Any, image: Any, points: Any, strides: Any, owner: Any, quality: Any, boxes: Any, title: str
) -> Any:
    """Anchor points (a, 2) px over an image in the color of their owner's box (g, 4) xyxy px, gray for none (-1); a
    marker's size tells the stride, its opacity the quality (a,).
    """
    from matplotlib.colors import to_rgba

    show_image(ax, image, title)
    points, owner, quality = as_array(points), as_array(owner), as_array(quality)
    sizes = 9.0 * as_array(strides).reshape(-1)
    rest = owner < 0
    ax.scatter(*points[rest].T, s=sizes[rest], facecolor="none", edgecolor=BACKGROUND, linewidth=0.9)
    for j, box in enumerate(as_array(boxes).tolist()):
        color = class_color(j)
        add_rectangle(ax, box, fill=False, edgecolor="white", linewidth=4)
        add_rectangle(ax, box, fill=False, edgecolor=color, linewidth=2.2)
        mine = owner == j
        faces = [to_rgba(color, 0.25 + 0.75 * q) for q in quality[mine].clip(0, 1)]
        ax.scatter(*points[mine].T, s=sizes[mine], facecolors=faces, edgecolor=color, linewidth=1.4)
    return ax


def draw_qualities(ax: Any, owner: Any, quality: Any, names: Sequence[str]) -> Any:
    """The positives' qualities as bars, best first, object by object in the objects' colors."""
    owner, quality = as_array(owner), as_array(quality)
    start, ticks = 0, {}
    for j, name in enumerate(names):
        heights = np.sort(quality[owner == j])[::-1]
        ax.bar(start + np.arange(len(heights)), heights, color=class_color(j))
        ticks[start + max(len(heights) - 1, 0) / 2] = f"{name}: {len(heights)} points"
        start += len(heights) + 1
    ax.set_xticks(list(ticks), list(ticks.values()))
    ax.set(ylim=(0, 1), ylabel="quality: the score to learn")
    ax.grid(False, axis="x")
    return ax
