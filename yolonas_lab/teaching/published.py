"""What was published about YOLO-NAS: mAP and latency of S, M and L, before and after INT8, and their picture.

Notebook 00 reads the table. Source: YOLONAS.md of super-gradients (Deci, 2023). Nothing here is measured by us.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from yolonas_lab.teaching.figures import FP32, INT8, MUTED

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
