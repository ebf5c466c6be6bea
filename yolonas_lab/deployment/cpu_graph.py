"""Q/DQ as CPUs like it: onnxruntime computes in integers only what stands between a DequantizeLinear and a
QuantizeLinear.

Notebook 12 measures it. TensorRT knows by itself that concatenating and max-pooling keep the scale (R7);
onnxruntime wants to be told, so that the layers behind them stay in integers too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from yolonas_lab.deployment import qdq_graph
from yolonas_lab.deployment.graph import Graph

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


def requantize_moved_values(proto: ModelProto) -> None:
    """Put Q/DQ behind every Concat and MaxPool of dequantized tensors, in place, on the grid that they have in common.

    The values are on that grid already and do not change. A Concat of several grids is left alone.
    """
    graph = Graph(proto.graph)
    moved = [node for node in graph.nodes if node.op_type in ("Concat", "MaxPool")]
    grids = {node.output[0]: grid for node in moved if (grid := _common_grid(graph, node)) is not None}
    renamed: dict[str, str] = {}
    nodes: list[NodeProto] = []
    for node in proto.graph.node:
        node.input[:] = [renamed.get(tensor, tensor) for tensor in node.input]
        nodes.append(node)
        if node.output[0] in grids:
            nodes += _pair(node, grids[node.output[0]])
            renamed[node.output[0]] = nodes[-1].output[0]
    copies = [type(node)() for node in nodes]
    for copy, node in zip(copies, nodes):
        copy.CopyFrom(node)
    del proto.graph.node[:]
    proto.graph.node.extend(copies)


def _common_grid(graph: Graph, node: NodeProto) -> list[str] | None:
    """Names of scale and zero-point, where all inputs are dequantized with the same ones."""
    sources = qdq_graph.sources(graph, node.output[0])
    grids = {tuple(s.input[1:]) if s is not None and s.op_type == "DequantizeLinear" else None for s in sources}
    grid = grids.pop() if len(grids) == 1 else None
    return list(grid) if grid is not None else None


def _pair(node: NodeProto, grid: list[str]) -> list[NodeProto]:
    from onnx import helper

    tensors = [node.output[0], f"{node.name}/QuantizeLinear", f"{node.name}/DequantizeLinear"]
    return [
        helper.make_node(kind, [before, *grid], [after], name=after)
        for kind, before, after in zip(qdq_graph.QUANTIZERS, tensors, tensors[1:])
    ]
