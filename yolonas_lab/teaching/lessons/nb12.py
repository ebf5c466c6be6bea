"""An ONNX graph as boxes and arrows, small enough to read: the nodes of one module, or of a few (notebook 12).

Columns follow the data: a node stands right of all that it waits for. Q and DQ are QuantizeLinear and
DequantizeLinear; orange convolutions are those between them. And how processors multiply 8-bit numbers: without VNNI,
x86 adds two products in 16 bits and keeps the largest number where the sum is larger (instruction PMADDUBSW; Intel,
"Intrinsics Guide"); VNNI adds four products into 32 bits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from yolonas_lab.deployment.onnx_graph import LAYERS, QUANTIZERS, Graph, data_inputs, is_quantized_layer
from yolonas_lab.teaching.figures import FP32, INT8, MUTED, draw_arrow

if TYPE_CHECKING:
    from onnx import NodeProto

SHORT = {"QuantizeLinear": "Q", "DequantizeLinear": "DQ", "ConvTranspose": "Conv\nTrans.", "NonMaxSuppression": "NMS"}


def chip(ax: Any, x: float, y: float, text: str, color: str) -> Any:
    """Write text on a plate of this color, centered at (x, y); returns the text."""
    plate = {"boxstyle": "round,pad=0.25", "facecolor": color, "edgecolor": "none"}
    ink = "black" if color in (MUTED, "#56B4E9") else "white"
    return ax.text(x, y, text, ha="center", va="center", fontsize=8.5, color=ink, bbox=plate, zorder=3)


def node_chip(ax: Any, x: float, y: float, graph: Graph, node: NodeProto) -> Any:
    """A node as a chip: orange where it is or may be INT8, blue a float layer, gray all else."""
    if node.op_type in LAYERS:
        color = INT8 if is_quantized_layer(graph, node) else FP32
    else:
        color = INT8 if node.op_type in QUANTIZERS else MUTED
    return chip(ax, x, y, SHORT.get(node.op_type, node.op_type), color)


def nodes_of(graph: Graph, modules: Sequence[str]) -> list[NodeProto]:
    """The nodes of these modules and of what is inside them, in order; "backbone.stem" is also "backbone.stem.conv".

    Of a quantizer that several tensors share, only the Q/DQ of tensors made here.
    """
    begins = tuple(module + mark for module in modules for mark in "/.")
    names = {node.name for node in graph.nodes if node.name.startswith(begins)}
    if not names:
        raise ValueError(f"The graph has no node of {', '.join(modules)}: nodes are called '<module>/<operator>'.")
    return [node for node in graph.nodes if node.name in names and not _belongs_elsewhere(graph, node, names)]


def columns(graph: Graph, nodes: Sequence[NodeProto]) -> dict[str, int]:
    """The column of each node by name, from 1 on: one more than the last of those (among `nodes`) that it reads from.

    A DequantizeLinear of constants, which waits for nothing, stands just before its reader.
    """
    column: dict[str, int] = {}
    for node in nodes:
        before = [graph.producer[t].name for t in node.input if t in graph.producer]
        column[node.name] = 1 + max((column[name] for name in before if name in column), default=0)
    for node in nodes:
        if not data_inputs(graph, node):
            readers = [column[user.name] for user in graph.users(node) if user.name in column]
            column[node.name] = max(min(readers, default=1) - 1, 0)
    return column


def draw_graph(ax: Any, graph: Graph, nodes: Sequence[NodeProto], title: str) -> Any:
    """Draw nodes of an ONNX graph from left to right, an arrow for each tensor; "…" is what comes from elsewhere."""
    place = _places(graph, nodes)
    for node in nodes:
        x, y = place[node.name]
        for tensor in data_inputs(graph, node):
            source = graph.producer.get(tensor)
            start = place.get(source.name) if source is not None else None
            if start is None:
                start = (x - 1, y)
                ax.text(*start, "…", ha="center", va="center", fontsize=11)
            bend = 0.0 if x - start[0] <= 1 or start[1] != y else -0.2
            look = {"shrinkA": 13, "shrinkB": 13, "connectionstyle": f"arc3,rad={bend}"}
            draw_arrow(ax, start, (x, y), "#555555", **look)
    for node in nodes:
        node_chip(ax, *place[node.name], graph, node)
    across, down = zip(*place.values())
    ax.set(xlim=(min(across) - 1.4, max(across) + 0.8), ylim=(min(down) - 0.9, max(down) + 1.3), title=title)
    ax.axis("off")
    return ax


def draw_saturation(ax: Any, activation: int) -> Any:
    """Plot the sum of two equal products against the weight: as it is, and where it must fit into 16 bits."""
    weights = list(range(128))
    exact = [2 * activation * weight for weight in weights]
    stored = [dot_in_16_bits([activation] * 2, [weight] * 2) for weight in weights]
    ax.plot(weights, exact, color=FP32, linestyle="--", label="exact sum of the two products")
    ax.plot(weights, stored, color=INT8, label="what fits into 16 bits")
    ax.axvline(64, color=MUTED, linestyle=":", label="weight 64, the end of 7 bits")
    ax.set(xlabel="weight (both)", ylabel="sum", xlim=(0, 127), ylim=(0, 68000))
    ax.set_title(f"Two activations of {activation}, two equal weights")
    ax.legend(fontsize=9, loc="upper left")
    return ax


def _belongs_elsewhere(graph: Graph, node: NodeProto, names: set[str]) -> bool:
    """True for Q/DQ of a computed tensor whose node is not among `names`."""
    while node.op_type in QUANTIZERS:
        source = graph.source(node, 0)
        if source is None:  # a constant, or the graph's input
            return False
        node = source
    return node.name not in names


def _places(graph: Graph, nodes: Sequence[NodeProto]) -> dict[str, tuple[float, float]]:
    """Where each node stands: the first of a column on the line of what it reads, constants and the rest below."""
    column = columns(graph, nodes)
    order = sorted(nodes, key=lambda node: not data_inputs(graph, node))  # constants last: they give way
    taken: dict[int, list[float]] = defaultdict(list)
    place: dict[str, tuple[float, float]] = {}
    for node in order:
        x = column[node.name]
        read = data_inputs(graph, node)
        sources = [graph.producer[t].name if t in graph.producer else "" for t in read]
        heights = [place[name][1] for name in sources if name in place]
        y = max(heights) if heights else (0.0 if read else -1.0)
        outside = any(name not in column for name in sources)  # "…" needs the place before the node
        while y in taken[x] or (outside and y in taken[x - 1]):
            y -= 1.0
        taken[x].append(y)
        taken[x - 1] += [y] * outside
        place[node.name] = (x, y)
    return place


TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
dot (uint8[1, n] activations, int8[n, 1] weights) => (int32[1, 1] result)
{ result = MatMulInteger(activations, weights) }
"""


def dot_in_16_bits(activations: Sequence[int], weights: Sequence[int]) -> int:
    """Sum of activation (0 … 255) times weight (-128 … 127), where each two neighbors are first added in 16 bits.

    >>> dot_in_16_bits([255, 255], [64, 64]), dot_in_16_bits([255, 255], [65, 65])
    (32640, 32767)
    """
    pairs = np.multiply(activations, weights).reshape(-1, 2).sum(axis=1)
    return int(pairs.clip(-(2**15), 2**15 - 1).sum())


def dot_by_onnxruntime(activations: Sequence[int], weights: Sequence[int]) -> int:
    """The same sum by onnxruntime's 8-bit kernel on this processor; exact or not, as the processor has it."""
    import onnx
    import onnxruntime

    proto = onnx.parser.parse_model(TEXT)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {"activations": np.array([activations], np.uint8), "weights": np.array([weights], np.int8).T}
    return int(np.asarray(session.run(["result"], feed)[0]).item())


def has_vnni(cpuinfo: str | Path = "/proc/cpuinfo") -> bool | None:
    """True where the processor lists VNNI instructions, False where it does not; None where nothing can be read."""
    try:
        text = Path(cpuinfo).read_text()
    except OSError:  # not Linux
        return None
    flags = next((line for line in text.splitlines() if line.startswith("flags")), None)
    return None if flags is None else not {"avx_vnni", "avx512_vnni"}.isdisjoint(flags.split())
