"""What was published about YOLO-NAS: mAP and latency of S, M and L, before and after INT8, and their picture.

Notebook 00 reads the table. Source: YOLONAS.md of super-gradients (Deci, 2023). Nothing here is measured by us.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from yolonas_lab.latency import pareto_front
from yolonas_lab.teaching.figures import FP32, HIGHLIGHT, INT8, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class PublishedResult:
    """One row of the table: size, number format, mAP in percent (COCO 2017 val), milliseconds (T4, 640×640 px)."""

    size: str
    number_format: str
    map: float
    ms: float

    @property
    def name(self) -> str:
        """Size and number format, such as "S INT8"."""
        return f"{self.size} {self.number_format}"


# The table does not name the format of its first three rows; FP16 is our reading (the usual one on that GPU).
YOLO_NAS = (
    PublishedResult("S", "FP16", 47.5, 3.21),
    PublishedResult("M", "FP16", 51.55, 5.85),
    PublishedResult("L", "FP16", 52.22, 7.87),
    PublishedResult("S", "INT8", 47.03, 2.36),
    PublishedResult("M", "INT8", 51.0, 3.78),
    PublishedResult("L", "INT8", 52.1, 4.78),
)

# The sentence below the same table gives other losses of mAP than the table's own rows do.
MAP_LOSS_IN_TEXT = {"S": 0.51, "M": 0.65, "L": 0.45}

# The same sentence says that other models lose this much, from … to; it names none and no source.
MAP_LOSS_OF_OTHERS = (1.0, 2.0)


def draw_frontier(ax: "Axes", results: Sequence[PublishedResult] = YOLO_NAS) -> "Axes":
    """Draw mAP against latency, an arrow from FP16 to INT8 per size, the best mAP within each latency; returns `ax`."""
    steps = frontier(results)
    last = max(result.ms for result in results) + 1
    ms, best = [result.ms for result in steps], [result.map for result in steps]
    ax.step(
        [*ms, last],
        [*best, best[-1]],
        where="post",
        color=MUTED,
        linewidth=1.6,
        zorder=1,
        label="best mAP within a latency",
    )
    for number_format, color, marker in (("FP16", FP32, "o"), ("INT8", INT8, "s")):
        rows = [result for result in results if result.number_format == number_format]
        x, y = [result.ms for result in rows], [result.map for result in rows]
        ax.plot(x, y, marker, color=color, markersize=9, zorder=3, label=number_format)
    by_name = {result.name: result for result in results}
    for size in dict.fromkeys(result.size for result in results):
        before, after = by_name[f"{size} FP16"], by_name[f"{size} INT8"]
        arrow = {"arrowstyle": "-|>", "color": "#555555", "linewidth": 1.4, "shrinkA": 6, "shrinkB": 6}
        ax.annotate("", (after.ms, after.map), (before.ms, before.map), arrowprops=arrow, zorder=2)
        for result, color, offset, side in ((before, FP32, (8, -13), "left"), (after, INT8, (-7, 7), "right")):
            ax.annotate(
                size,
                (result.ms, result.map),
                offset,
                textcoords="offset points",
                color=color,
                ha=side,
                fontweight="bold",
            )
    ax.set(xlabel="latency in ms (lower is better)", ylabel="COCO mAP in % (higher is better)")
    ax.set(xlim=(1.5, last), ylim=(46, 53.3))
    ax.legend(loc="lower right")
    return ax


def frontier(results: Sequence[PublishedResult]) -> list[PublishedResult]:
    """Return the results than which no other is at least as fast and at least as accurate, the fastest first."""
    kept: list[PublishedResult] = []
    for result in sorted(results, key=lambda r: (r.ms, -r.map)):
        if not kept or result.map > kept[-1].map:
            kept.append(result)
    return kept


# What was published about YOLOv5 to YOLOv8 and YOLO-NAS on one kind of GPU, the T4, and which of them no other beats.
#
# Notebook 09 shows it. Nothing here is measured by us: each row is read in the document that its source names. They
# measured differently (YOLOv8 L: 9 to 14 ms), so a frontier holds within one source. Left out: Deci's chart of all five
# families, which comes without a table, and times on other GPUs. No time in INT8 on a T4 was found but for YOLO-NAS and
# three sizes of YOLOv6.

# Apart under color blindness too; what this course is about in the color of what to look at.
FAMILY_COLORS = MappingProxyType(
    {"YOLOv5": "#C98A00", "YOLOv6": "#3E9BD6", "YOLOv7": "#6B4E16", "YOLOv8": "#111111", "YOLO-NAS": HIGHLIGHT}
)
MARKERS = MappingProxyType({"FP16": "o", "INT8": "s"})
LIMITS_MS, LIMITS_MAP = (0.72, 29), (24.5, 57)


@dataclass(frozen=True)
class Source:
    """Who measured, in which document and table, and under which conditions, as far as the document states them."""

    name: str
    document: str
    engine: str
    batch: str
    nms: str

    @property
    def conditions(self) -> str:
        """Engine, batch size and NMS in one line."""
        return f"{self.engine}, {self.batch}, {self.nms}"


class PublishedNetwork(NamedTuple):
    """One row: mAP in percent (COCO val2017, IoU 0.50 to 0.95), milliseconds on a T4 for an image of 640×640 px."""

    family: str
    name: str
    map: float
    ms: float
    precision: str
    source: Source


def ms_of_fps(fps: float) -> float:
    """Milliseconds an image takes where fps pass in a second, one at a time. Raises ValueError unless fps > 0."""
    if not fps > 0:
        raise ValueError(f"fps must be larger than 0, not {fps}.")
    return 1000 / fps


DECI = Source("Deci", "super-gradients, YOLONAS.md, table", "engine not stated", "batch not stated", "NMS not stated")
YOLOV6 = Source("YOLOv6", "YOLOv6, README.md, quantized models", "TensorRT 8.4", "batch 1", "without NMS")
ULTRALYTICS = Source(
    "Ultralytics",
    "Ultralytics, docs/model_data.py and the chart of it",
    "TensorRT 10",
    "batch not stated",
    "NMS not stated",
)
GOLD_YOLO = Source("Gold-YOLO", "Gold-YOLO (Wang et al., 2023), table 1", "TensorRT 7", "batch 1", "NMS not stated")
LW_DETR = Source("LW-DETR", "LW-DETR (Chen et al., 2024), table 3, model", "TensorRT 8.6", "batch 1", "without NMS")
LW_DETR_NMS = Source("LW-DETR", "LW-DETR (Chen et al., 2024), table 3, total", "TensorRT 8.6", "batch 1", "with NMS")
RT_DETR = Source("RT-DETR", "RT-DETR (Zhao et al., 2024), tables 2 and B", "TensorRT", "batch 1", "with NMS")


def _rows(
    source: Source, family: str, *networks: tuple[str, float, float], precision: str = "FP16"
) -> tuple[PublishedNetwork, ...]:
    return tuple(PublishedNetwork(family, name, ap, ms, precision, source) for name, ap, ms in networks)


def _fps_rows(
    source: Source, family: str, *networks: tuple[str, float, int], precision: str = "FP16"
) -> tuple[PublishedNetwork, ...]:
    in_ms = ((name, ap, ms_of_fps(fps)) for name, ap, fps in networks)
    return _rows(source, family, *in_ms, precision=precision)


# name, mAP, ms (or images a second). YOLOv7 L is the network that its authors call YOLOv7; T is tiny. Deci and
# Ultralytics do not name a format: FP16 is our reading of the one, and the axis of the chart that the other draws.
# YOLOv6 is its third version, trained with self-distillation, but for its own table of quantized models, which is of
# the second. LW-DETR: YOLOv8 as released, not as pretrained by that paper; YOLO-NAS is pretrained by Deci.
# fmt: off
PUBLISHED: tuple[PublishedNetwork, ...] = (
    *(PublishedNetwork("YOLO-NAS", row.size, row.map, row.ms, row.number_format, DECI) for row in YOLO_NAS),
    *_fps_rows(YOLOV6, "YOLOv6", ("N", 35.9, 802), ("T", 40.3, 449), ("S", 43.5, 377)),
    *_fps_rows(YOLOV6, "YOLOv6", ("N", 34.8, 1114), ("T", 39.8, 741), ("S", 43.3, 619), precision="INT8"),
    *_rows(ULTRALYTICS, "YOLOv5", ("N", 28.0, 1.12), ("S", 37.4, 1.92), ("M", 45.4, 4.03), ("L", 49.0, 6.61),
           ("X", 50.7, 11.89)),
    *_rows(ULTRALYTICS, "YOLOv6", ("N", 37.5, 1.17), ("S", 45.0, 2.66), ("M", 50.0, 5.28), ("L", 52.8, 8.95)),
    *_rows(ULTRALYTICS, "YOLOv7", ("L", 51.4, 6.84), ("X", 53.1, 11.57)),
    *_rows(ULTRALYTICS, "YOLOv8", ("N", 37.3, 1.47), ("S", 44.9, 2.66), ("M", 50.2, 5.86), ("L", 52.9, 9.06),
           ("X", 53.9, 14.37)),
    *_rows(ULTRALYTICS, "YOLO-NAS", ("S", 47.5, 3.09), ("M", 51.6, 6.07), ("L", 52.2, 7.84)),
    *_rows(GOLD_YOLO, "YOLOv5", ("N", 28.0, 1.7), ("S", 37.4, 2.7), ("M", 45.4, 5.5), ("L", 49.0, 8.8)),
    *_rows(GOLD_YOLO, "YOLOv6", ("N", 37.5, 1.3), ("S", 45.0, 2.9), ("M", 50.0, 5.7), ("L", 52.8, 10.3)),
    *_rows(GOLD_YOLO, "YOLOv7", ("T", 37.4, 2.4), ("L", 51.2, 9.0)),
    *_rows(GOLD_YOLO, "YOLOv8", ("N", 37.3, 1.8), ("S", 44.9, 3.2), ("M", 50.2, 7.0), ("L", 52.9, 11.0)),
    *_rows(LW_DETR, "YOLOv8", ("N", 37.4, 1.5), ("S", 45.0, 2.6), ("M", 50.3, 5.9), ("L", 53.0, 9.3),
           ("X", 54.0, 14.8)),
    *_rows(LW_DETR, "YOLO-NAS", ("S", 47.6, 2.8), ("M", 51.6, 5.5), ("L", 52.3, 7.5)),
    *_rows(LW_DETR_NMS, "YOLOv8", ("N", 37.4, 6.2), ("S", 45.0, 7.0), ("M", 50.3, 10.1), ("L", 53.0, 13.2),
           ("X", 54.0, 19.1)),
    *_rows(LW_DETR_NMS, "YOLO-NAS", ("S", 47.6, 4.7), ("M", 51.6, 7.8), ("L", 52.3, 8.8)),
    *_fps_rows(RT_DETR, "YOLOv5", ("S", 37.4, 74), ("M", 45.4, 64), ("L", 49.0, 54), ("X", 50.7, 43)),
    *_fps_rows(RT_DETR, "YOLOv6", ("S", 45.0, 201), ("M", 50.0, 121), ("L", 52.8, 99)),
    *_fps_rows(RT_DETR, "YOLOv7", ("L", 51.2, 55), ("X", 52.9, 45)),
    *_fps_rows(RT_DETR, "YOLOv8", ("S", 44.9, 136), ("M", 50.2, 97), ("L", 52.9, 71), ("X", 53.9, 50)),
)
# fmt: on
SOURCES = tuple(dict.fromkeys(row.source for row in PUBLISHED))


def frontier_of(source: Source, rows: Sequence[PublishedNetwork] = PUBLISHED) -> list[PublishedNetwork]:
    """The networks of one source that no other of the same source beats, the fastest first.

    Raises ValueError where the source has no row.
    """
    own = [row for row in rows if row.source == source]
    if not own:
        raise ValueError(f"There is no row of {source.name} ({source.document}).")
    return [own[index] for index in pareto_front([(row.map, row.ms) for row in own])]


def plot_published_frontier(ax: "Axes | None" = None, source: Source = ULTRALYTICS) -> "Axes":
    """Draw what one source says, by default the one that lists all five families: a dot for each network beside its
    size, families joined, filled where no other network of the source beats it; returns the axes.

    Raises ValueError where the source has no row.
    """
    import matplotlib.pyplot as plt

    ax = ax if ax is not None else plt.subplots(figsize=(7.0, 4.6), layout="constrained")[1]
    _draw_source(ax, source, 9.5)
    ax.set(xlabel="ms for one image on a T4 (logarithmic, lower is better)", ylabel="COCO mAP in % (higher is better)")
    _draw_legend(ax, sorted({precision for _, precision in _series(source)}), "lower right", 9.5)
    ax.figure.draw_without_rendering()  # type: ignore[union-attr]  # gives the axes the size they will have
    _name_dots(ax, source, 9.5)
    return ax


def plot_sources(axes: Any = None) -> Any:
    """Draw each source in an axes of its own and the legend in one more; returns the axes.

    `axes`: an array of len(SOURCES) + 1 of them, by default a new figure of the notebook's width. Raises ValueError
    for another number.
    """
    import matplotlib.pyplot as plt
    import numpy as np

    if axes is None:
        axes = plt.subplots(4, 2, figsize=(7.0, 9.2), sharex=True, sharey=True, layout="constrained")[1]
    panels = np.ravel(axes)
    if len(panels) != len(SOURCES) + 1:
        raise ValueError(f"axes must be {len(SOURCES) + 1}, one a source and one for the legend, not {len(panels)}.")
    for ax, source in zip(panels, SOURCES):
        _draw_source(ax, source, 7.5)
    panels[0].figure.supxlabel("ms for one image on a T4 (logarithmic, lower is better)", fontsize=10)
    panels[0].figure.supylabel("COCO mAP in % (higher is better)", fontsize=10)
    panels[-1].axis("off")
    _draw_legend(panels[-1], list(MARKERS), "center", 9)
    panels[0].figure.draw_without_rendering()  # gives the axes the size they will have
    for ax, source in zip(panels, SOURCES):
        _name_dots(ax, source, 7.5)
    return axes


def _draw_source(ax: "Axes", source: Source, fontsize: float) -> None:
    steps = frontier_of(source)
    ms, ap = [row.ms for row in steps], [row.map for row in steps]
    ax.step(
        [*ms, LIMITS_MS[1]], [*ap, ap[-1]], where="post", color=MUTED, linewidth=0.55 * fontsize, alpha=0.5, zorder=1
    )
    for (family, precision), color in ((pair, FAMILY_COLORS[pair[0]]) for pair in _series(source)):
        rows = [r for r in PUBLISHED if (r.family, r.precision, r.source) == (family, precision, source)]
        ax.plot(
            [r.ms for r in rows], [r.map for r in rows], color=color, linewidth=0.12 * fontsize, alpha=0.6, zorder=2
        )
        for row in rows:
            inside = color if row in steps else "white"
            look = {"markersize": 0.67 * fontsize, "markeredgewidth": 0.16 * fontsize, "markerfacecolor": inside}
            ax.plot(row.ms, row.map, MARKERS[precision], color=color, zorder=3, **look)
    ax.set_xscale("log")
    ax.set_xticks([1, 2, 3, 5, 10, 20], ["1", "2", "3", "5", "10", "20"])
    ax.minorticks_off()
    ax.set(xlim=LIMITS_MS, ylim=LIMITS_MAP)
    ax.set_title(f"{source.name}\n{source.conditions}", fontsize=fontsize)


def _series(source: Source) -> list[tuple[str, str]]:
    """The families and formats of a source, each once."""
    return list(dict.fromkeys((row.family, row.precision) for row in PUBLISHED if row.source == source))


def _name_dots(ax: "Axes", source: Source, fontsize: float) -> None:
    """Write each size where it is far from the other dots and from the sizes already written."""
    rows = [row for row in PUBLISHED if row.source == source]
    points = 72 / ax.figure.dpi  # of a pixel
    dots = [tuple(points * value for value in ax.transData.transform((row.ms, row.map))) for row in rows]
    angles = [math.radians(degrees) for degrees in (135, 315, 90, 270, 180, 0, 45, 225)]
    places = [(r * math.cos(angle), r * math.sin(angle)) for r in (fontsize, 1.6 * fontsize) for angle in angles]
    taken = list(dots)
    for (x, y), row in zip(dots, rows):
        room = [min(math.dist((x + dx, y + dy), other) for other in taken if other != (x, y)) for dx, dy in places]
        dx, dy = places[max(range(len(places)), key=lambda i: min(room[i], 1.2 * fontsize))]  # the first that suffices
        taken.append((x + dx, y + dy))
        ax.annotate(
            row.name,
            (row.ms, row.map),
            (dx, dy),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=fontsize,
            fontweight="bold",
            color=FAMILY_COLORS[row.family],
        )


def _draw_legend(ax: Any, precisions: Sequence[str], place: str, fontsize: float) -> None:
    from matplotlib.lines import Line2D

    families = [Line2D([], [], color=c, marker="o", linestyle="", label=name) for name, c in FAMILY_COLORS.items()]
    formats = [Line2D([], [], color="#555555", marker=MARKERS[p], linestyle="", label=p) for p in precisions]
    beaten = Line2D([], [], color="#555555", marker="o", linestyle="", markerfacecolor="white", label="beaten")
    frontier = Line2D([], [], color=MUTED, linewidth=4, alpha=0.5, label="frontier of this source")
    ax.legend(handles=[*families, *formats, beaten, frontier], loc=place, ncols=2, fontsize=fontsize)
