"""A benchmark as a waterfall: what each engine spends on preparation, network and NMS, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from yolonas_lab.deployment.benchmark import Benchmark

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = {"prepare": "#BBBBBB", "network": "#4B3F9E", "NMS": "#E69F00"}


def plot_waterfall(result: Benchmark, ax: Axes) -> Axes:
    """Draw one line of three bars per engine, each beginning where the one before ends; whiskers are the network's
    quartiles.
    """
    for y, row in enumerate(result.rows):
        start = right = 0.0
        for stage, timing in zip(COLORS, (row.prepare, row.network, row.nms)):
            ax.barh(y, timing.median_ms, left=start, color=COLORS[stage], label=stage if y == 0 else None)
            if stage == "network":
                right = start + timing.high_ms
                ax.plot([start + timing.low_ms, right], [y, y], color="black", linewidth=1)
            start += timing.median_ms
        ax.annotate(f"{row.total_ms:.1f} ms", (max(start, right), y), (4, 0), textcoords="offset points", va="center")
    ax.set_yticks(range(len(result.rows)), [row.name for row in result.rows])
    ax.invert_yaxis()
    ax.margins(x=0.15)
    ax.set_xlim(left=0)
    ax.set_xlabel(f"ms per image ({result.clock}), {result.image}")
    ax.set_title(result.machine, fontsize="small")
    ax.legend(loc="lower right")
    return ax
