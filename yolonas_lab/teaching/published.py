"""What was published about YOLO-NAS and its rivals: mAP on COCO, milliseconds on a T4, and who measured how.

Notebook 00 reads YOLO-NAS's own table (YOLONAS.md of super-gradients; Deci, 2023), notebook 09 the families'. Nothing
here is measured by us: each row is read in the document that its source names. They measured differently (YOLOv8 L: 9
to 14 ms), so a frontier holds within one source. Left out: Deci's chart of all five families, which comes without a
table, and times on other GPUs. No time in INT8 on a T4 was found but for YOLO-NAS and three sizes of YOLOv6.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from yolonas_lab.latency import pareto_front
from yolonas_lab.teaching.figures import FP32, HIGHLIGHT, INT8, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Source(NamedTuple):
    """Who measured, in which document and table, and under which conditions, as far as the document states them."""

    name: str
    document: str
    conditions: str  # engine, batch size, NMS


class PublishedResult(NamedTuple):
    """One row: mAP in percent (COCO val2017, IoU 0.50 to 0.95), milliseconds on a T4 for an image of 640×640 px."""

    family: str
    size: str
    number_format: str
    map: float
    ms: float
    source: Source

    @property
    def name(self) -> str:
        """Size and number format, such as "S INT8"."""
        return f"{self.size} {self.number_format}"


DECI = Source("Deci", "super-gradients, YOLONAS.md, table", "engine not stated, batch not stated, NMS not stated")
YOLOV6 = Source("YOLOv6", "YOLOv6, README.md, quantized models", "TensorRT 8.4, batch 1, without NMS")
ULTRALYTICS = Source(
    "Ultralytics",
    "Ultralytics, docs/model_data.py and the chart of it",
    "TensorRT 10, batch not stated, NMS not stated",
)
GOLD_YOLO = Source("Gold-YOLO", "Gold-YOLO (Wang et al., 2023), table 1", "TensorRT 7, batch 1, NMS not stated")
LW_DETR = Source("LW-DETR", "LW-DETR (Chen et al., 2024), table 3, model", "TensorRT 8.6, batch 1, without NMS")
LW_DETR_NMS = Source("LW-DETR", "LW-DETR (Chen et al., 2024), table 3, total", "TensorRT 8.6, batch 1, with NMS")
RT_DETR = Source("RT-DETR", "RT-DETR (Zhao et al., 2024), tables 2 and B", "TensorRT, batch 1, with NMS")

# (source, family, format, unit) and size, mAP, time of each network, the time in ms or in images a second (fps).
# YOLOv7 L is the network that its authors call YOLOv7; T is tiny. Deci and Ultralytics do not name a format: FP16 is
# our reading of the one (it is usual on that GPU), and the axis of the chart that the other draws. YOLOv6 is its third
# version, trained with self-distillation, but for its own table of quantized models, which is of the second. LW-DETR:
# YOLOv8 as released, not as pretrained by that paper; YOLO-NAS is pretrained by Deci.
TABLES = {
    (DECI, "YOLO-NAS", "FP16", "ms"): "S 47.5 3.21  M 51.55 5.85  L 52.22 7.87",
    (DECI, "YOLO-NAS", "INT8", "ms"): "S 47.03 2.36  M 51.0 3.78  L 52.1 4.78",
    (YOLOV6, "YOLOv6", "FP16", "fps"): "N 35.9 802  T 40.3 449  S 43.5 377",
    (YOLOV6, "YOLOv6", "INT8", "fps"): "N 34.8 1114  T 39.8 741  S 43.3 619",
    (ULTRALYTICS, "YOLOv5", "FP16", "ms"): "N 28.0 1.12  S 37.4 1.92  M 45.4 4.03  L 49.0 6.61  X 50.7 11.89",
    (ULTRALYTICS, "YOLOv6", "FP16", "ms"): "N 37.5 1.17  S 45.0 2.66  M 50.0 5.28  L 52.8 8.95",
    (ULTRALYTICS, "YOLOv7", "FP16", "ms"): "L 51.4 6.84  X 53.1 11.57",
    (ULTRALYTICS, "YOLOv8", "FP16", "ms"): "N 37.3 1.47  S 44.9 2.66  M 50.2 5.86  L 52.9 9.06  X 53.9 14.37",
    (ULTRALYTICS, "YOLO-NAS", "FP16", "ms"): "S 47.5 3.09  M 51.6 6.07  L 52.2 7.84",
    (GOLD_YOLO, "YOLOv5", "FP16", "ms"): "N 28.0 1.7  S 37.4 2.7  M 45.4 5.5  L 49.0 8.8",
    (GOLD_YOLO, "YOLOv6", "FP16", "ms"): "N 37.5 1.3  S 45.0 2.9  M 50.0 5.7  L 52.8 10.3",
    (GOLD_YOLO, "YOLOv7", "FP16", "ms"): "T 37.4 2.4  L 51.2 9.0",
    (GOLD_YOLO, "YOLOv8", "FP16", "ms"): "N 37.3 1.8  S 44.9 3.2  M 50.2 7.0  L 52.9 11.0",
    (LW_DETR, "YOLOv8", "FP16", "ms"): "N 37.4 1.5  S 45.0 2.6  M 50.3 5.9  L 53.0 9.3  X 54.0 14.8",
    (LW_DETR, "YOLO-NAS", "FP16", "ms"): "S 47.6 2.8  M 51.6 5.5  L 52.3 7.5",
    (LW_DETR_NMS, "YOLOv8", "FP16", "ms"): "N 37.4 6.2  S 45.0 7.0  M 50.3 10.1  L 53.0 13.2  X 54.0 19.1",
    (LW_DETR_NMS, "YOLO-NAS", "FP16", "ms"): "S 47.6 4.7  M 51.6 7.8  L 52.3 8.8",
    (RT_DETR, "YOLOv5", "FP16", "fps"): "S 37.4 74  M 45.4 64  L 49.0 54  X 50.7 43",
    (RT_DETR, "YOLOv6", "FP16", "fps"): "S 45.0 201  M 50.0 121  L 52.8 99",
    (RT_DETR, "YOLOv7", "FP16", "fps"): "L 51.2 55  X 52.9 45",
    (RT_DETR, "YOLOv8", "FP16", "fps"): "S 44.9 136  M 50.2 97  L 52.9 71  X 53.9 50",
}
PUBLISHED = tuple(
    PublishedResult(
        family, size, number_format, float(ap), 1000 / float(time) if unit == "fps" else float(time), source
    )
    for (source, family, number_format, unit), table in TABLES.items()
    for size, ap, time in (row.split() for row in table.split("  "))
)
YOLO_NAS = tuple(row for row in PUBLISHED if row.source == DECI)
MAP_LOSS_IN_TEXT = {"S": 0.51, "M": 0.65, "L": 0.45}  # the sentence below Deci's table; its own rows say otherwise
MAP_LOSS_OF_OTHERS = (1.0, 2.0)  # from … to: what the same sentence says of other models, without names and source

# Apart under color blindness too; what this course is about in the color of what to look at.
FAMILY_COLORS = {"YOLOv5": "#C98A00", "YOLOv6": "#3E9BD6", "YOLOv7": "#6B4E16", "YOLOv8": "#111111"} | {
    "YOLO-NAS": HIGHLIGHT
}
MARKERS = {"FP16": "o", "INT8": "s"}


def frontier(results: Sequence[PublishedResult]) -> list[PublishedResult]:
    """Return the results than which no other is at least as fast and at least as accurate, the fastest first.

    >>> [result.name for result in frontier(YOLO_NAS)]
    ['S INT8', 'S FP16', 'M INT8', 'L INT8', 'L FP16']
    """
    return [results[index] for index in pareto_front([(row.map, row.ms) for row in results])]


def draw_frontier(ax: "Axes", results: Sequence[PublishedResult] = YOLO_NAS) -> "Axes":
    """Draw mAP against latency, an arrow from FP16 to INT8 per size, the best mAP within each latency; returns `ax`."""
    last = max(result.ms for result in results) + 1
    _draw_stairs(ax, results, last, linewidth=1.6, label="best mAP within a latency")
    for number_format, color in (("FP16", FP32), ("INT8", INT8)):
        rows = [result for result in results if result.number_format == number_format]
        look = {"color": color, "markersize": 9, "zorder": 3, "label": number_format}
        ax.plot([row.ms for row in rows], [row.map for row in rows], MARKERS[number_format], **look)
    by_name = {result.name: result for result in results}
    for size in dict.fromkeys(result.size for result in results):
        before, after = by_name[f"{size} FP16"], by_name[f"{size} INT8"]
        arrow = {"arrowstyle": "-|>", "color": "#555555", "linewidth": 1.4, "shrinkA": 6, "shrinkB": 6}
        ax.annotate("", (after.ms, after.map), (before.ms, before.map), arrowprops=arrow, zorder=2)
        for row, color, offset, side in ((before, FP32, (8, -13), "left"), (after, INT8, (-7, 7), "right")):
            look: dict[str, Any] = {"textcoords": "offset points", "color": color, "ha": side, "fontweight": "bold"}
            ax.annotate(size, (row.ms, row.map), offset, **look)
    ax.set(xlabel="latency in ms (lower is better)", ylabel="COCO mAP in % (higher is better)")
    ax.set(xlim=(1.5, last), ylim=(46, 53.3))
    ax.legend(loc="lower right")
    return ax


def plot_published_frontier(ax: "Axes | None" = None, source: Source = ULTRALYTICS) -> "Axes":
    """Draw what one source says, by default the one that lists all five families: a dot for each network beside its
    size, families joined, filled where no other network of the source beats it; returns the axes.
    """
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    own = [row for row in PUBLISHED if row.source == source]
    ax = ax if ax is not None else plt.subplots(figsize=(7.0, 4.6), layout="constrained")[1]
    _draw_stairs(ax, own, 29, linewidth=5.2, alpha=0.5)
    unbeaten = frontier(own)
    for family, number_format in dict.fromkeys((row.family, row.number_format) for row in own):
        rows = [row for row in own if (row.family, row.number_format) == (family, number_format)]
        color, marker = FAMILY_COLORS[family], MARKERS[number_format]
        ax.plot([row.ms for row in rows], [row.map for row in rows], color=color, linewidth=1.1, alpha=0.6, zorder=2)
        for row in rows:
            look = {"markersize": 6.4, "markeredgewidth": 1.5, "markerfacecolor": color if row in unbeaten else "white"}
            ax.plot(row.ms, row.map, marker, color=color, zorder=3, **look)
    ax.set(xscale="log", xlim=(0.72, 29), ylim=(24.5, 57))
    ax.set_xticks([1, 2, 3, 5, 10, 20], ["1", "2", "3", "5", "10", "20"])
    ax.minorticks_off()
    ax.set_title(f"{source.name}\n{source.conditions}", fontsize=9.5)
    ax.set(xlabel="ms for one image on a T4 (logarithmic, lower is better)", ylabel="COCO mAP in % (higher is better)")
    gray: dict[str, Any] = {"color": "#555555", "linestyle": ""}
    handles = [Line2D([], [], color=c, marker="o", linestyle="", label=name) for name, c in FAMILY_COLORS.items()]
    handles += [Line2D([], [], marker=MARKERS[f], label=f, **gray) for f in sorted({row.number_format for row in own})]
    handles += [Line2D([], [], marker="o", markerfacecolor="white", label="beaten", **gray)]
    handles += [Line2D([], [], color=MUTED, linewidth=4, alpha=0.5, label="frontier of this source")]
    ax.legend(handles=handles, loc="lower right", ncols=2, fontsize=9.5)
    ax.figure.draw_without_rendering()  # type: ignore[union-attr]  # gives the axes the size they will have
    _name_dots(ax, own, 9.5)
    return ax


def _draw_stairs(ax: "Axes", results: Sequence[PublishedResult], last: float, **look) -> None:
    """The best mAP within each latency, up to the latency `last`."""
    steps = frontier(results)
    ms, best = [*(row.ms for row in steps), last], [*(row.map for row in steps), steps[-1].map]
    ax.step(ms, best, where="post", color=MUTED, zorder=1, **look)


def _name_dots(ax: "Axes", rows: Sequence[PublishedResult], fontsize: float) -> None:
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
        color = FAMILY_COLORS[row.family]
        ax.annotate(row.size, (row.ms, row.map), (dx, dy), textcoords="offset points", color=color, **look)
