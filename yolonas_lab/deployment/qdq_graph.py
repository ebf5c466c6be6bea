"""Reading a Q/DQ graph: which layers it has, which of their inputs are dequantized, and what stands around them.

`qdq_rules` states the rules with these words; notebook 12 reads a graph with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from yolonas_lab.deployment.graph import Graph

if TYPE_CHECKING:
    from onnx import NodeProto

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
FUSED = ("BatchNormalization", "Relu", "Clip", "LeakyRelu")  # what TensorRT fuses into the layer before it
COMMUTING = ("Concat", "Flatten", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze")  # values unchanged
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


def layers(graph: Graph) -> list[NodeProto]:
    """The nodes that multiply by a weight: convolutions, Gemm, and MatMul with a constant matrix."""
    return [node for node in graph.nodes if node.op_type in LAYERS and _has_weight(graph, node)]


def _has_weight(graph: Graph, node: NodeProto) -> bool:
    if node.op_type != "MatMul":
        return True
    return weight_quantizer(graph, node) is not None or graph.constants.get(node.input[1], np.empty(0)).ndim > 1


def weight_quantizer(graph: Graph, layer: NodeProto) -> NodeProto | None:
    """The DequantizeLinear behind a layer's weight, or None for a float weight."""
    source = graph.source(layer, 1)
    if source is None or source.op_type != "DequantizeLinear":
        return None
    quantize = graph.source(source, 0)  # a float weight that the graph itself quantizes is as good as integers
    is_activation = (
        quantize is not None and quantize.op_type == "QuantizeLinear" and quantize.input[0] not in graph.constants
    )
    return None if is_activation else source


def channel_axis(layer: NodeProto) -> int:
    """The axis of a layer's weight that counts its output channels."""
    if layer.op_type == "Gemm":
        return 0 if any(a.name == "transB" and a.i for a in layer.attribute) else 1
    return 0 if layer.op_type == "Conv" else 1


def data_inputs(graph: Graph, node: NodeProto) -> list[str]:
    """A node's inputs that are computed, not constant; of a Reshape and its like only the data."""
    tensors = node.input[:1] if node.op_type in COMMUTING and node.op_type != "Concat" else node.input
    return [tensor for tensor in tensors if tensor and tensor not in graph.constants]


def sources(graph: Graph, tensor: str) -> list[NodeProto | None]:
    """The nodes that computed the values of a tensor, seen through operators that leave values unchanged; None stands
    for an input of the graph. Constants that are merely moved have none.
    """
    node = graph.producer.get(tensor)
    if node is None or node.op_type not in COMMUTING:
        return [node]
    return [source for data in data_inputs(graph, node) for source in sources(graph, data)]


def readers(graph: Graph, node: NodeProto) -> list[NodeProto]:
    """The nodes that use a node's values, seen through operators that leave values unchanged."""
    found = []
    for user in graph.users(node):
        found += readers(graph, user) if user.op_type in COMMUTING else [user]
    return found


def is_dequantized(graph: Graph, tensor: str) -> bool:
    """True where all values of the tensor come from DequantizeLinear."""
    nodes = sources(graph, tensor)
    return bool(nodes) and all(node is not None and node.op_type == "DequantizeLinear" for node in nodes)


def partly_dequantized(graph: Graph, tensor: str) -> bool:
    """True where some values of the tensor come from DequantizeLinear."""
    return any(node is not None and node.op_type == "DequantizeLinear" for node in sources(graph, tensor))


def is_quantized(graph: Graph, node: NodeProto) -> bool:
    """True where a reader of the node's values is a QuantizeLinear."""
    return any(reader.op_type == "QuantizeLinear" for reader in readers(graph, node))


def is_quantized_layer(graph: Graph, layer: NodeProto) -> bool:
    """True where both the weight and the activation of a layer are dequantized: it can run in int8."""
    return weight_quantizer(graph, layer) is not None and is_dequantized(graph, layer.input[0])


def fused_layer(graph: Graph, tensor: str) -> NodeProto | None:
    """The layer that a tensor comes straight from, through BatchNorm and ReLU, with no other reader on the way."""
    node = graph.producer.get(tensor)
    if node is None or len(graph.consumers[tensor]) != 1:
        return None
    if node.op_type in FUSED:
        return fused_layer(graph, node.input[0])
    return node if node.op_type in LAYERS else None


def pairs(graph: Graph) -> Iterator[list[NodeProto]]:
    """Each QuantizeLinear with its DequantizeLinears, and each DequantizeLinear of a constant alone."""
    for node in graph.nodes:
        if node.op_type == "QuantizeLinear":
            yield [node, *(user for user in graph.users(node) if user.op_type == "DequantizeLinear")]
        elif node.op_type == "DequantizeLinear":
            source = graph.source(node, 0)
            if source is None or source.op_type != "QuantizeLinear":
                yield [node]


def feeds_bias(graph: Graph, pair: list[NodeProto]) -> bool:
    """True for the Q/DQ of a layer's bias."""
    users = [user for output in pair[-1].output for user in graph.consumers[output]]
    return any(user.op_type in LAYERS and index == 2 for user, index in users)


def is_weight(graph: Graph, pair: list[NodeProto]) -> bool:
    """True for the Q/DQ of a layer's weight."""
    return any(weight_quantizer(graph, user) is pair[-1] for user in graph.users(pair[-1]) if user.op_type in LAYERS)


def scale_of(graph: Graph, node: NodeProto) -> np.ndarray | None:
    """The scale of a QuantizeLinear or DequantizeLinear; None where it is computed."""
    return graph.constants.get(node.input[1])


def zero_point_of(graph: Graph, node: NodeProto) -> np.ndarray | None:
    """The zero-point of a QuantizeLinear or DequantizeLinear; None where there is none, or where it is computed."""
    return graph.constants.get(node.input[2]) if len(node.input) > 2 else None


def axis_of(node: NodeProto) -> int:
    """The axis along which a QuantizeLinear or DequantizeLinear has one scale per index."""
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)


def outputs_behind(graph: Graph, starts: list[NodeProto]) -> set[str]:
    """The first outputs of all nodes that some of these nodes' values reach, without themselves."""
    return _reached(starts, graph.users)


def outputs_before(graph: Graph, starts: list[NodeProto]) -> set[str]:
    """The first outputs of all nodes whose values reach some of these nodes, without themselves."""
    return _reached(starts, lambda node: [graph.producer[t] for t in node.input if t in graph.producer])


def _reached(starts: list[NodeProto], neighbors) -> set[str]:
    found: set[str] = set()
    waiting = list(starts)
    while waiting:
        for node in neighbors(waiting.pop()):
            if node.output[0] not in found:
                found.add(node.output[0])
                waiting.append(node)
    return found
