"""What an engine became, drawn: the precision of every convolution, which nodes were fused, and when a GPU is done.

Notebook 13. Precisions come from a builder's layer report, or, where no builder is installed, from the graph: then
they say what is permitted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from yolonas_lab.deployment import qdq_graph
from yolonas_lab.deployment.engine_report import EngineLayer
from yolonas_lab.deployment.graph import Graph
from yolonas_lab.teaching.figures import FP32, HIGHLIGHT, INT8, MUTED, PREDICTION
from yolonas_lab.teaching.onnx_figures import SHORT, draw_graph

if TYPE_CHECKING:
    from onnx import NodeProto

    from yolonas_lab.deployment.qdq_rules import Violation

PRECISION_COLORS = {"Float": FP32, "Half": "#56B4E9", "Int8": INT8}
# Parts of the network: the beginning of their nodes' names -> column and row of the drawing, as in notebook 04.
PARTS = {
    "backbone.stem": (0, 0, "stem"),
    "backbone.stages.0": (0, 1, "stage 1"),
    "backbone.stages.1": (0, 2, "stage 2"),
    "backbone.stages.2": (0, 3, "stage 3"),
    "backbone.stages.3": (0, 4, "stage 4"),
    "backbone.spp": (0, 5, "SPP"),
    "neck.up1": (1, 3, "up 1"),
    "neck.up2": (1, 2, "up 2"),
    "neck.down1": (2, 3, "down 1"),
    "neck.down2": (2, 4, "down 2"),
    "heads.levels.0": (3, 2, "head, stride 8"),
    "heads.levels.1": (3, 3, "head, stride 16"),
    "heads.levels.2": (3, 4, "head, stride 32"),
}
# Which part feeds which, by number; the finer skips, which come from one stage above, are left out.
FLOW = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (3, 6), (2, 7), (6, 7), (6, 8), (6, 9), (7, 8), (8, 9)]
FLOW += [(7, 10), (8, 11), (9, 12)]
PER_LINE = 8  # squares


def permitted_precisions(graph: Graph) -> dict[str, str]:
    """What the graph permits each convolution at most, by node name: "Int8", "Half" or "Float"."""
    found = {}
    for node in qdq_graph.layers(graph):
        if node.op_type == "Conv":
            weight = graph.constants.get(node.input[1])
            plain = "Half" if weight is not None and weight.dtype.itemsize == 2 else "Float"
            found[node.name] = "Int8" if qdq_graph.is_quantized_layer(graph, node) else plain
    return found


def draw_precisions(ax: Any, convolutions: Mapping[str, str], title: str = "") -> Any:
    """Draw one square for each convolution by node name, in its part of the network and the color of its precision.

    Raises ValueError for a convolution that is in no part of a YOLO-NAS.
    """
    inside: dict[str, list[str]] = {part: [] for part in PARTS}
    for name, precision in convolutions.items():
        part = next((part for part in PARTS if name.startswith((part + ".", part + "/"))), None)
        if part is None:
            raise ValueError(f"{name} is in no part of the network: give the convolutions of a detector of this book.")
        inside[part].append(precision)
    places = list(PARTS.values())
    for a, b in FLOW:
        ax.annotate("", _edge(places[b], places[a]), _edge(places[a], places[b]), arrowprops=_ARROW)
    for part, precisions in inside.items():
        _draw_part(ax, PARTS[part], precisions)
    for index, (precision, color) in enumerate(PRECISION_COLORS.items()):
        count = list(convolutions.values()).count(precision)
        ax.scatter([1.05 + index], [5.05], s=90, marker="s", color=color)
        ax.text(1.15 + index, 5.05, f"{precision}: {count}", va="center", fontsize=10)
    ax.set(xlim=(-0.55, 3.55), ylim=(5.5, -0.5), title=title)
    ax.axis("off")
    return ax


_ARROW = {"arrowstyle": "-|>", "color": "#888888", "linewidth": 1.0, "shrinkA": 0, "shrinkB": 0}
_WIDE, _HIGH = 0.86, 0.72  # of a part; columns and rows are 1 apart


def _edge(start: tuple[int, int, str], end: tuple[int, int, str]) -> tuple[float, float]:
    """The point on the frame of a part where its arrow from or to another one begins."""
    (x, y, _), (to_x, to_y, _) = start, end
    if to_x != x:
        return x + math.copysign(_WIDE / 2, to_x - x), y + (0.18 if to_y > y else -0.18 if to_y < y else 0.0)
    return x, y + math.copysign(_HIGH / 2, to_y - y)


def _draw_part(ax: Any, place: tuple[int, int, str], precisions: Sequence[str]) -> None:
    from matplotlib.patches import Rectangle

    x, y, title = place
    ax.add_patch(
        Rectangle((x - _WIDE / 2, y - _HIGH / 2), _WIDE, _HIGH, facecolor="white", edgecolor="#888888", zorder=2)
    )
    ax.text(x, y - 0.22, title, ha="center", va="center", fontsize=9, zorder=3)
    for index, precision in enumerate(precisions):
        line, column = divmod(index, PER_LINE)
        color = PRECISION_COLORS.get(precision, MUTED)
        left = x - 0.05 * min(len(precisions), PER_LINE) + 0.1 * column
        ax.add_patch(Rectangle((left + 0.008, y - 0.06 + 0.19 * line), 0.084, 0.16, color=color, zorder=3))


def draw_fusion(
    ax: Any, graph: Graph, nodes: Sequence[NodeProto], layers: Sequence[EngineLayer], title: str = ""
) -> Any:
    """Draw nodes of a graph above, the engine's layers that they went into below, and a line for each membership."""
    names = [node.name for node in nodes]
    hit = [layer for layer in layers if set(names).intersection(layer.nodes)]
    if not hit:
        raise ValueError("None of these nodes is in a layer of the engine: give the layers of this graph's plan.")
    spread = (len(nodes) - 1) / max(len(hit), 1)
    below = [spread * (index + 0.5) for index in range(len(hit))]
    for layer, x in zip(hit, below):
        color = PRECISION_COLORS.get(layer.precision, MUTED) if layer.computes else MUTED
        for node in set(layer.nodes).intersection(names):
            ax.plot([names.index(node), x], [1, 0], color=color, linewidth=1.6, zorder=1)
        kind = f"multiply\n{layer.precision}" if layer.computes else "elementwise"
        _chip(ax, x, 0, kind, color)
    for x, node in enumerate(nodes):
        _chip(ax, x, 1, SHORT.get(node.op_type, node.op_type), _node_color(graph, node))
    ax.text(-1.0, 1.32, f"{len(nodes)} nodes of the ONNX graph", fontsize=10)
    ax.text(-1.0, -0.48, f"{len(hit)} layers of the engine", fontsize=10)
    ax.set(xlim=(-1.0, len(nodes)), ylim=(-0.6, 1.5), title=title)
    ax.axis("off")
    return ax


def _node_color(graph: Graph, node: NodeProto) -> str:
    if node.op_type in qdq_graph.LAYERS:
        return INT8 if qdq_graph.is_quantized_layer(graph, node) else FP32
    return MUTED


def _chip(ax: Any, x: float, y: float, text: str, color: str) -> None:
    ink = "black" if color in (MUTED, PRECISION_COLORS["Half"]) else "white"
    look = {"boxstyle": "round,pad=0.25", "facecolor": color, "edgecolor": "none"}
    ax.text(x, y, text, ha="center", va="center", fontsize=8.5, color=ink, bbox=look, zorder=3)


def draw_broken(ax: Any, graph: Graph, violations: Sequence[Violation], title: str = "") -> Any:
    """Draw a small graph, with a frame around each node that breaks a rule."""
    draw_graph(ax, graph, graph.nodes, title)
    marked = {violation.node for violation in violations}
    boxes = [(text, patch) for text in ax.texts if (patch := text.get_bbox_patch()) is not None]  # as the nodes
    for node, (text, patch) in zip(graph.nodes, boxes):
        text.set_fontsize(7.5)  # the network is long
        if (node.name or node.output[0]) in marked:
            patch.set(edgecolor=HIGHLIGHT, linewidth=3)
            text.set_zorder(5)
    return ax


def draw_timeline(ax: Any, launch_ms: float, kernel_ms: float, runs: int = 5) -> Any:
    """Draw what CPU and GPU do while `runs` runs are launched one after another, and what two stopwatches read."""
    done = 0.0
    for index in range(runs):
        began = launch_ms * index
        start = max(began + launch_ms, done)
        done = start + kernel_ms
        edge = {"edgecolor": "white", "linewidth": 1}
        ax.barh(1, launch_ms, left=began, color=PREDICTION, label="launch" if index == 0 else None, **edge)
        ax.barh(0, kernel_ms, left=start, color=HIGHLIGHT, label="compute" if index == 0 else None, **edge)
    returned = launch_ms * runs
    for x, words, y in ((returned, "without waiting", 1.62), (done, "after waiting", 1.62)):
        ax.axvline(x, color="#444444", linestyle="--", linewidth=1.2)
        ax.text(x, y, f" {words}:\n {x / runs:.2f} ms per run", fontsize=9, va="center")
    ax.set_yticks([1, 0], ["CPU", "GPU"])
    ax.set(xlabel="ms", ylim=(-0.6, 2.0), xlim=(0, 1.35 * done))
    ax.legend(loc="lower right")
    ax.set_title(f"{runs} runs: {launch_ms:.2f} ms to launch, {kernel_ms:.2f} ms to compute each", fontsize=11)
    return ax
