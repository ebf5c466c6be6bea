"""Drawings of boxes as geometry: on grid paper, over each other, and as the numbers of a box format (notebook 01)."""

from collections.abc import Sequence
from typing import Any

from yolonas_lab.teaching.figures import GROUND_TRUTH, HIGHLIGHT, MUTED, PREDICTION

HULL = "#555555"


def grid_paper(ax: Any, width: int, height: int, every: int = 1) -> Any:
    """Turn an axis into grid paper of width x height cells, y downwards as in images; ticks `every` so many cells."""
    ax.set(xlim=(0, width), ylim=(height, 0), aspect="equal", xlabel="x (px)", ylabel="y (px)")
    ax.set_xticks(range(0, width + 1, every))
    ax.set_yticks(range(0, height + 1, every))
    return ax


def draw_pair(ax: Any, a: Sequence[float], b: Sequence[float], hull: bool = True) -> Any:
    """Shade two xyxy boxes (a: the target, b: the prediction), their intersection and, dashed, their hull."""
    from matplotlib.patches import Rectangle

    left, top, right, bottom = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
    if hull:
        corners = (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
        style: dict[str, Any] = {"facecolor": MUTED, "edgecolor": HULL, "linestyle": "--", "label": "hull"}
        ax.add_patch(_rectangle(corners, alpha=0.35, linewidth=1.5, **style))
    for box, color, name in ((a, GROUND_TRUTH, "target A"), (b, PREDICTION, "prediction B")):
        ax.add_patch(_rectangle(box, facecolor="white", edgecolor="none"))
        ax.add_patch(_rectangle(box, facecolor=color, edgecolor="none", alpha=0.45, label=name))
    shared = Rectangle((0, 0), 0, 0, facecolor=HIGHLIGHT, label="intersection")
    if right > left and bottom > top:
        shared = _rectangle((left, top, right, bottom), facecolor=HIGHLIGHT, edgecolor="none", label="intersection")
    ax.add_patch(shared)
    for box, color in ((a, GROUND_TRUTH), (b, PREDICTION)):
        ax.add_patch(_rectangle(box, fill=False, edgecolor=color, linewidth=2.5))
    return ax


def count_cells(ax: Any, a: Sequence[int], b: Sequence[int]) -> Any:
    """Number the cells that two integer boxes share (1, 2, …, white) and go on with the rest of their union."""
    cells = [(x, y) for y in range(min(a[1], b[1]), max(a[3], b[3])) for x in range(min(a[0], b[0]), max(a[2], b[2]))]
    shared = [cell for cell in cells if _covers(a, cell) and _covers(b, cell)]
    rest = [cell for cell in cells if _covers(a, cell) != _covers(b, cell)]
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
        ax.add_patch(_rectangle(box, fill=False, edgecolor=color, **style))
        ax.text(box[0] + 0.2, box[1] + 0.2, names[i], va="top", color=color, fontweight="bold" if stays else "normal")
    return ax


def draw_format(ax: Any, box: Sequence[float], name: str) -> Any:
    """Mark on xyxy box `box` the four numbers that the format "xyxy", "cxcywh" or "xywh" stores; ValueError else."""
    x1, y1, x2, y2 = box
    width, height, middle_x, middle_y = x2 - x1, y2 - y1, (x1 + x2) / 2, (y1 + y2) / 2
    ax.add_patch(_rectangle(box, fill=False, edgecolor="white", linewidth=2.5))
    if name == "xyxy":
        _point(ax, x1, y1, f"({x1:g}, {y1:g})", above=True)
        _point(ax, x2, y2, f"({x2:g}, {y2:g})", above=False)
    elif name == "cxcywh":
        _point(ax, middle_x, middle_y, f"({middle_x:g}, {middle_y:g})", above=True)
        _lengths(ax, box, width, height)
    elif name == "xywh":
        _point(ax, x1, y1, f"({x1:g}, {y1:g})", above=True)
        _lengths(ax, box, width, height)
    else:
        raise ValueError(f'name must be "xyxy", "cxcywh" or "xywh", but is {name!r}.')
    return ax


def draw_funnel(ax: Any, counts: dict[str, int], color: str = PREDICTION) -> Any:
    """Bars for the numbers that are left after each step, first step on top, on a logarithmic axis."""
    names, values = list(counts), list(counts.values())
    ax.barh(names, values, color=color, height=0.65)
    for row, value in enumerate(values):
        ax.annotate(f"{value:,}", (value, row), xytext=(4, 0), textcoords="offset points", va="center")
    ax.set_xscale("log")
    ax.set_xlim(0.8, 12 * max(values))
    ax.set_ylim(len(values) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    return ax


def _lengths(ax: Any, box: Sequence[float], width: float, height: float) -> None:
    """Draw w below the box and h to the right of it, as arrows with their lengths."""
    x1, y1, x2, y2 = box
    gap = 0.06 * max(width, height)
    arrow = {"arrowstyle": "<->", "color": "white", "lw": 1.8}
    ax.annotate("", (x1, y2 + gap), (x2, y2 + gap), arrowprops=arrow)
    ax.annotate("", (x2 + gap, y1), (x2 + gap, y2), arrowprops=arrow)
    _plate(ax, (x1 + x2) / 2, y2 + gap, f"w = {width:g}", (0, -3), "center", "top")
    _plate(ax, x2 + gap, (y1 + y2) / 2, f"h = {height:g}", (4, 0), "left", "center")


def _point(ax: Any, x: float, y: float, text: str, above: bool) -> None:
    ax.plot(x, y, "o", color=HIGHLIGHT, markersize=9, markeredgecolor="white", clip_on=False)
    _plate(ax, x, y, text, (0, 8 if above else -8), "center", "bottom" if above else "top")


def _plate(ax: Any, x: float, y: float, text: str, shift: tuple[int, int], ha: str, va: str) -> None:
    plate = {"boxstyle": "square,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.9}
    ax.annotate(text, (x, y), xytext=shift, textcoords="offset points", ha=ha, va=va, fontsize=9.5, bbox=plate)


def _rectangle(box: Sequence[float], **style: Any) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((box[0], box[1]), box[2] - box[0], box[3] - box[1], **style)


def _covers(box: Sequence[int], cell: tuple[int, int]) -> bool:
    return box[0] <= cell[0] < box[2] and box[1] <= cell[1] < box[3]
