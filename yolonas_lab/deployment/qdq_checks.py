"""The twelve checks behind `qdq_rules`, one function per rule: each finds the nodes that break it, and says what to do.

Notebook 13 breaks them one by one. NVIDIA, "Explicit Quantization" in TensorRT's documentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from yolonas_lab.deployment import qdq_graph as qdq
from yolonas_lab.deployment.graph import Graph

if TYPE_CHECKING:
    from onnx import NodeProto

Findings = Iterator[tuple["NodeProto", str]]  # the node, and what to do


def both_inputs(graph: Graph) -> Findings:
    """R1. A float layer may read what a quantized one reads too; quantizing for float layers alone is pointless."""
    for layer in qdq.layers(graph):
        weight = qdq.weight_quantizer(graph, layer) is not None
        activation = qdq.partly_dequantized(graph, layer.input[0])
        if weight and not activation:
            yield layer, f"put QuantizeLinear and DequantizeLinear on its activation {layer.input[0]}."
        if activation and not weight and not _serves_others(graph, layer):
            yield layer, f"quantize its weight {layer.input[1]} too, or take the Q/DQ off its activation."


def _serves_others(graph: Graph, layer: NodeProto) -> bool:
    """True where what feeds this layer also feeds a quantized layer or an operator of another kind."""
    givers = [node for node in qdq.sources(graph, layer.input[0]) if node is not None]
    users = [user for giver in givers for user in qdq.readers(graph, giver)]
    return any(user.op_type not in qdq.LAYERS or qdq.weight_quantizer(graph, user) is not None for user in users)


def granularity(graph: Graph) -> Findings:
    """R2."""
    for pair in qdq.pairs(graph):
        scale = qdq.scale_of(graph, pair[0])
        if scale is None or scale.size == 1 or qdq.feeds_bias(graph, pair):
            continue
        if not qdq.is_weight(graph, pair):
            yield pair[0], f"give this activation one scale instead of {scale.size}."
            continue
        weight = graph.constants.get(pair[0].input[0])
        layer = next(user for user in graph.users(pair[-1]) if user.op_type in qdq.LAYERS)
        axis = qdq.channel_axis(layer)
        if weight is None:
            continue
        if qdq.axis_of(pair[-1]) % weight.ndim != axis or scale.size != weight.shape[axis]:
            yield pair[0], f"give it axis={axis} and {weight.shape[axis]} scales, one per output channel."


def symmetry(graph: Graph) -> Findings:
    """R3."""
    for pair in qdq.pairs(graph):
        if qdq.feeds_bias(graph, pair):
            continue
        points = [qdq.zero_point_of(graph, node) for node in pair]
        if any(point is None for point in points):
            yield pair[0], "give it a constant zero-point of type int8 and value 0."
        elif any(point.dtype != np.int8 or point.any() for point in points if point is not None):
            yield pair[0], "quantize symmetrically: int8, and a zero-point of 0."


def scales(graph: Graph) -> Findings:
    """R4."""
    for pair in qdq.pairs(graph):
        found = [qdq.scale_of(graph, node) for node in pair]
        if any(scale is None for scale in found):
            yield pair[0], "compute the scale when the model is calibrated and store it as a constant."
        elif not all(np.isfinite(scale).all() and (scale > 0).all() for scale in found if scale is not None):
            yield pair[0], "calibrate again: the scale is the largest magnitude divided by 127."


def fusion(graph: Graph) -> Findings:
    """R5."""
    for node in graph.nodes:
        source = graph.source(node, 0)
        if node.op_type != "QuantizeLinear" or source is None or source.op_type not in (*qdq.LAYERS, *qdq.FUSED[:1]):
            continue
        followers = [user for dequantize in graph.users(node) for user in graph.users(dequantize)]
        if any(user.op_type in qdq.FUSED for user in followers):
            yield node, "move the Q/DQ behind the BatchNorm and the ReLU."


def residuals(graph: Graph) -> Findings:
    """R6. Each term is dequantized, or comes straight from a layer; straight from a layer comes at most one."""
    for node in graph.nodes:
        terms = qdq.data_inputs(graph, node)
        if node.op_type != "Add" or len(terms) != 2 or not _is_quantized_behind(graph, node):
            continue
        straight = [term for term in terms if qdq.fused_layer(graph, term) is not None]
        bare = [term for term in terms if term not in straight and not qdq.is_dequantized(graph, term)]
        bare += straight[1:]
        if bare and len(bare) < len(terms):
            yield node, f"put Q/DQ on {' and '.join(bare)}."


def _is_quantized_behind(graph: Graph, node: NodeProto) -> bool:
    """True where a node's output is quantized, at once or after ReLU."""
    return qdq.is_quantized(graph, node) or any(
        user.op_type in qdq.FUSED and _is_quantized_behind(graph, user) for user in graph.users(node)
    )


def shared_scales(graph: Graph) -> Findings:
    """R7."""
    for node in graph.nodes:
        if node.op_type not in qdq.COMMUTING:
            continue
        inputs = qdq.data_inputs(graph, node)
        quantized = [tensor for tensor in inputs if qdq.partly_dequantized(graph, tensor)]
        if node.op_type == "Concat" and quantized:
            if bare := [tensor for tensor in inputs if tensor not in quantized]:
                yield node, f"quantize {', '.join(bare)} too, with the scale of the others."
            elif len({_grid(graph, tensor) for tensor in inputs}) > 1:
                yield node, "calibrate its inputs together and give all of them one scale."
        if quantized and any(user.op_type == "QuantizeLinear" for user in graph.users(node)):
            yield node, "take the Q/DQ behind it away: its values are quantized already."


def _grid(graph: Graph, tensor: str) -> tuple:
    """Scale and zero-point of the first quantizer behind a tensor."""
    node = qdq.sources(graph, tensor)[0]
    assert node is not None
    return tuple(graph.constants[name].tobytes() if name in graph.constants else name for name in node.input[1:])


def other_operators(graph: Graph) -> Findings:
    """R8."""
    quantized = [layer for layer in qdq.layers(graph) if qdq.is_quantized_layer(graph, layer)]
    between = qdq.outputs_behind(graph, quantized) & qdq.outputs_before(graph, quantized)
    ours = (*qdq.LAYERS, *qdq.COMMUTING, *qdq.QUANTIZERS, "Add")  # the other rules see to these
    for node in graph.nodes:
        users = graph.users(node)
        fused = node.op_type in qdq.FUSED and _follows_layer_or_sum(graph, node)
        if node.output[0] not in between or node.op_type in ours or fused or any(u.op_type == "Add" for u in users):
            continue
        inputs = qdq.data_inputs(graph, node)
        dequantized = [qdq.is_dequantized(graph, tensor) for tensor in inputs]
        if any(dequantized) and not (all(dequantized) and qdq.is_quantized(graph, node)):
            yield node, "put Q/DQ on all its inputs and its output, or take it off its inputs."
        elif not any(dequantized) and qdq.is_quantized(graph, node) and not _shared_with_float(graph, inputs):
            yield node, "put Q/DQ on its inputs too, or take it off its output."


def _follows_layer_or_sum(graph: Graph, node: NodeProto) -> bool:
    """True behind a layer or a sum, also where Q/DQ stands between, which is R5's matter."""
    source = graph.source(node, 0)
    if source is not None and source.op_type in (*qdq.FUSED, *qdq.QUANTIZERS):
        return _follows_layer_or_sum(graph, source)
    return source is not None and source.op_type in (*qdq.LAYERS, "Add")


def _shared_with_float(graph: Graph, tensors: list[str]) -> bool:
    """True where a layer reads one of these tensors in float: it was left in float on purpose."""
    return any(user.op_type in qdq.LAYERS for tensor in tensors for user, _ in graph.consumers[tensor])


def tail(graph: Graph) -> Findings:
    """R9. The last layers are those from which no other layer is reached."""
    every = qdq.layers(graph)
    with_more = qdq.outputs_before(graph, every)
    for layer in every:
        if layer.output[0] not in with_more and qdq.weight_quantizer(graph, layer) is not None:
            yield layer, "leave the last layers in float: no Q/DQ on weight and activation."
    behind = qdq.outputs_behind(graph, every)
    for node in graph.nodes:
        if node.op_type == "QuantizeLinear" and node.output[0] in behind and node.output[0] not in with_more:
            yield node, "take the Q/DQ away."


def integer_constants(graph: Graph) -> Findings:
    """R10. (A zero-point is an integer too.)"""
    places = {"QuantizeLinear": (2,), "DequantizeLinear": (0, 2)}
    for node in graph.nodes:
        for index, tensor in enumerate(node.input):
            constant = graph.constants.get(tensor)
            is_integer = constant is not None and constant.dtype in (np.int8, np.uint8)
            if is_integer and index not in places.get(node.op_type, ()):
                yield node, f"connect {tensor} to the DequantizeLinear directly."
                break


def bias(graph: Graph) -> Findings:
    """R11."""
    for layer in qdq.layers(graph):
        source = graph.source(layer, 2)
        if source is not None and source.op_type == "DequantizeLinear":
            yield layer, "store the bias as float."


def image_input(graph: Graph) -> Findings:
    """R12."""
    from onnx import TensorProto

    for value in graph.inputs:
        if value.type.tensor_type.elem_type == TensorProto.UINT8:
            for user, _ in graph.consumers[value.name]:
                if user.op_type != "Cast":
                    yield user, f"cast {value.name} to float before anything else."
