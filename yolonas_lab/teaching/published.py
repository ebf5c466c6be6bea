"""What was published about YOLO-NAS and its rivals: mAP on COCO, milliseconds on a T4, and who measured how.

Notebook 00 reads YOLO-NAS's own table (YOLONAS.md of super-gradients; Deci, 2023), notebook 09 that of Ultralytics, who
lists five families. Nothing here is measured by us. Others measured differently (YOLOv8 L takes 9 to 14 ms in papers of
2023 and 2024), so a frontier holds within one source.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from yolonas_lab.latency import pareto_front
from yolonas_lab.teaching.figures import FP32, HIGHLIGHT, INT8, MUTED, draw_arrow, draw_stairs, note


class PublishedResult(NamedTuple):
    """One row: mAP in percent (COCO val2017, IoU 0.50 to 0.95), milliseconds on a T4 for an image of 640×640 px."""

    family: str
    size: str
    number_format: str
    map: float
    ms: float

    @property
    def name(self) -> str:
        """Size and number format, such as "S INT8"."""
        return f"{self.size} {self.number_format}"


def _rows(family: str, number_format: str, table: str) -> tuple[PublishedResult, ...]:
    """The rows of a table of size, mAP and milliseconds."""
    rows = (row.split() for row in table.split("  "))
    return tuple(PublishedResult(family, size, number_format, float(ap), float(ms)) for size, ap, ms in rows)


# Neither party names the format of floats: FP16 is our reading of Deci's table (it is usual on that GPU), and the axis
# of the chart that Ultralytics draws. YOLOv7 L is the network that its authors call YOLOv7.
YOLO_NAS = (  # super-gradients, YOLONAS.md, table; engine, batch size and NMS are not stated
    *_rows("YOLO-NAS", "FP16", "S 47.5 3.21  M 51.55 5.85  L 52.22 7.87"),
    *_rows("YOLO-NAS", "INT8", "S 47.03 2.36  M 51.0 3.78  L 52.1 4.78"),
)
FAMILIES = (  # Ultralytics, docs/model_data.py and the chart of it
    *_rows("YOLOv5", "FP16", "N 28.0 1.12  S 37.4 1.92  M 45.4 4.03  L 49.0 6.61  X 50.7 11.89"),
    *_rows("YOLOv6", "FP16", "N 37.5 1.17  S 45.0 2.66  M 50.0 5.28  L 52.8 8.95"),
    *_rows("YOLOv7", "FP16", "L 51.4 6.84  X 53.1 11.57"),
    *_rows("YOLOv8", "FP16", "N 37.3 1.47  S 44.9 2.66  M 50.2 5.86  L 52.9 9.06  X 53.9 14.37"),
    *_rows("YOLO-NAS", "FP16", "S 47.5 3.09  M 51.6 6.07  L 52.2 7.84"),
)
MAP_LOSS_IN_TEXT = {"S": 0.51, "M": 0.65, "L": 0.45}  # the sentence below Deci's table; its own rows say otherwise
MAP_LOSS_OF_OTHERS = (1.0, 2.0)  # from … to: what the same sentence says of other models, without names and source

# Apart under color blindness too; what this course is about in the color of what to look at.
FAMILY_COLORS = {"YOLOv5": "#C98A00", "YOLOv6": "#3E9BD6", "YOLOv7": "#6B4E16", "YOLOv8": "#111111"}
FAMILY_COLORS["YOLO-NAS"] = HIGHLIGHT


def frontier(results: Sequence[PublishedResult]) -> list[PublishedResult]:
    """Return the results than which no other is at least as fast and at least as accurate, the fastest first.

    >>> [result.name for result in frontier(YOLO_NAS)]
    ['S INT8', 'S FP16', 'M INT8', 'L INT8', 'L FP16']
    """
    return [results[index] for index in pareto_front([(row.map, row.ms) for row in results])]


def draw_frontier(ax: Any) -> Any:
    """Draw YOLO-NAS's mAP against latency, an arrow from FP16 to INT8 per size, the best mAP within each latency."""
    last = max(result.ms for result in YOLO_NAS) + 1
    _draw_stairs(ax, YOLO_NAS, last, linewidth=1.6, label="best mAP within a latency")
    floats, integers = YOLO_NAS[:3], YOLO_NAS[3:]
    for rows, marker, color in ((floats, "o", FP32), (integers, "s", INT8)):
        look = {"color": color, "markersize": 9, "zorder": 3, "label": rows[0].number_format}
        ax.plot([row.ms for row in rows], [row.map for row in rows], marker, **look)
    for before, after in zip(floats, integers):
        arrow = {"linewidth": 1.4, "shrinkA": 6, "shrinkB": 6, "zorder": 2}
        draw_arrow(ax, (before.ms, before.map), (after.ms, after.map), "#555555", **arrow)
        note(ax, before.size, (before.ms, before.map), (8, -13), color=FP32, ha="left", fontweight="bold")
        note(ax, after.size, (after.ms, after.map), (-7, 7), color=INT8, ha="right", fontweight="bold")
    ax.set(xlabel="latency in ms (lower is better)", ylabel="COCO mAP in % (higher is better)")
    ax.set(xlim=(1.5, last), ylim=(46, 53.3))
    ax.legend(loc="lower right")
    return ax


def plot_published_frontier(ax: Any = None) -> Any:
    """Draw what the one source says that lists all five families: a dot for each network beside its size, families
    joined, filled where no other network beats it; returns the axes.
    """
    import matplotlib.pyplot as plt

    ax = ax if ax is not None else plt.subplots(figsize=(7.0, 4.6), layout="constrained")[1]
    _draw_stairs(ax, FAMILIES, 29, linewidth=5.2, alpha=0.5)
    unbeaten = frontier(FAMILIES)
    for family, color in FAMILY_COLORS.items():
        rows = [row for row in FAMILIES if row.family == family]
        ax.plot([row.ms for row in rows], [row.map for row in rows], color=color, linewidth=1.1, alpha=0.6, zorder=2)
        for row in rows:
            look = {"markersize": 6.4, "markeredgewidth": 1.5, "markerfacecolor": color if row in unbeaten else "white"}
            ax.plot(row.ms, row.map, "o", color=color, zorder=3, **look)
        ax.plot([], [], "o", color=color, label=family)
    for face, label in (("#555555", "FP16"), ("white", "beaten")):
        ax.plot([], [], "o", color="#555555", markerfacecolor=face, label=label)
    ax.plot([], [], color=MUTED, linewidth=4, alpha=0.5, label="frontier of this source")
    ax.set(xscale="log", xlim=(0.72, 29), ylim=(24.5, 57))
    ax.set_xticks([1, 2, 3, 5, 10, 20], ["1", "2", "3", "5", "10", "20"])
    ax.minorticks_off()
    ax.set_title("Ultralytics\nTensorRT 10, batch not stated, NMS not stated", fontsize=9.5)
    ax.set(xlabel="ms for one image on a T4 (logarithmic, lower is better)", ylabel="COCO mAP in % (higher is better)")
    ax.legend(loc="lower right", ncols=2, fontsize=9.5)
    ax.figure.draw_without_rendering()  # gives the axes the size they will have
    _name_dots(ax, FAMILIES, 9.5)
    return ax


def _draw_stairs(ax: Any, results: Sequence[PublishedResult], until: float, **look: Any) -> None:
    draw_stairs(ax, [(row.ms, row.map) for row in frontier(results)], until, color=MUTED, zorder=1, **look)


def _name_dots(ax: Any, rows: Sequence[PublishedResult], fontsize: float) -> None:
    """Write each size where it is far from the other dots and from the sizes already written."""
    points = 72 / ax.figure.dpi  # of a pixel
    dots = [tuple(points * value for value in ax.transData.transform((row.ms, row.map))) for row in rows]
    angles = [math.radians(degrees) for degrees in (135, 315, 90, 270, 180, 0, 45, 225)]
    places = [(r * math.cos(angle), r * math.sin(angle)) for r in (fontsize, 1.6 * fontsize) for angle in angles]
    taken = list(dots)
    for (x, y), row in zip(dots, rows):
        room = [min(math.dist((x + dx, y + dy), other) for other in taken if other != (x, y)) for dx, dy in places]
        dx, dy = places[max(range(len(places)), key=lambda i: min(room[i], 1.2 * fontsize))]  # the first that suffices
        taken.append((x + dx, y + dy))
        look = {"ha": "center", "va": "center", "fontsize": fontsize, "fontweight": "bold"}
        note(ax, row.size, (row.ms, row.map), (dx, dy), color=FAMILY_COLORS[row.family], **look)
