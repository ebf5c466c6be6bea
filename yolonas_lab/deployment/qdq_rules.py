"""Where Q/DQ may stand: TensorRT's placement rules as checks on a graph, each with a reason and a fix.

Notebook 13 breaks them one by one. A graph that breaks a rule often still builds: the layer then runs in float, and
nothing says so. NVIDIA, "Explicit Quantization" in TensorRT's documentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from yolonas_lab.deployment.onnx_graph import Graph, check_opset, load_onnx

if TYPE_CHECKING:
    from onnx import ModelProto

if TYPE_CHECKING:
    from onnx import NodeProto


RULES = {
    "R1": "A layer runs in int8 only if both its activation and its weight are quantized.",
    "R2": "Activations have one scale per tensor, weights one per output channel or one in all.",
    "R3": "TensorRT's INT8 is symmetric: int8 with a zero-point that is there and is 0; without one it means uint8.",
    "R4": "A scale is a constant, finite and positive number.",
    "R5": "A convolution, its BatchNorm and its ReLU are fused only if nothing stands between them.",
    "R6": "A residual sum is fused in int8 only if its skip is quantized too.",
    "R7": "What meets in a Concat shares one scale; MaxPool, Reshape and Transpose keep that of their input.",
    "R8": "Any other operator between quantized layers has Q/DQ on inputs and output, or on neither.",
    "R9": "The tail stays float: predictions, decoding and NMS need more digits than int8 has.",
    "R10": "A constant of integers can feed a DequantizeLinear only.",
    "R11": "The bias is added to the sums of products, which are finer than int8, and stays float.",
    "R12": "A uint8 image can feed a Cast only.",
}


@dataclass(frozen=True)
class Violation:
    """A node that breaks a rule: the rule ("R1" … "R12"), the node's name, why the rule is there, and what to do."""

    rule: str
    node: str
    why: str
    fix: str

    def __str__(self) -> str:
        return f"{self.rule} at {self.node}: {self.why} Fix: {self.fix}"


def check_qdq(model: str | Path | ModelProto) -> list[Violation]:
    """Every place in an ONNX file (or a loaded model) that breaks a rule of Q/DQ placement, rule by rule.

    A graph without Q/DQ has none. One that is made for CPUs, with uint8 activations, breaks R3 and others on purpose.
    Raises FileNotFoundError, or ValueError for what is not ONNX of a known opset.
    """
    graph = _graph(model)
    return [
        Violation(rule, node.name or node.output[0], RULES[rule], fix)
        for rule, check in CHECKS.items()
        for node, fix in check(graph)
    ]


def quantized_layers(model: str | Path | ModelProto) -> dict[str, bool]:
    """Every convolution and matrix product with a weight, by node name in order: are weight and activation quantized?

    Raises as `check_qdq` does.
    """
    graph = _graph(model)
    return {layer.name: is_quantized_layer(graph, layer) for layer in layers(graph)}


def _graph(model: str | Path | ModelProto) -> Graph:
    if isinstance(model, (str, Path)):
        model = load_onnx(model)
    check_opset(model, "The model")
    return Graph(model.graph)


# The twelve checks behind `qdq_rules`, one function per rule: each finds the nodes that break it, and says what to do.
#
# Notebook 13 breaks them one by one. NVIDIA, "Explicit Quantization" in TensorRT's documentation.

Findings = Iterator[tuple["NodeProto", str]]  # the node, and what to do


def both_inputs(graph: Graph) -> Findings:
    """R1. A float layer may read what a quantized one reads too; quantizing for float layers alone is pointless."""
    for layer in layers(graph):
        weight = weight_quantizer(graph, layer) is not None
        activation = partly_dequantized(graph, layer.input[0])
        if weight and not activation:
            yield layer, f"put QuantizeLinear and DequantizeLinear on its activation {layer.input[0]}."
        if activation and not weight and not _serves_others(graph, layer):
            yield layer, f"quantize its weight {layer.input[1]} too, or take the Q/DQ off its activation."


def _serves_others(graph: Graph, layer: NodeProto) -> bool:
    """True where what feeds this layer also feeds a quantized layer or an operator of another kind."""
    givers = [node for node in sources(graph, layer.input[0]) if node is not None]
    users = [user for giver in givers for user in readers(graph, giver)]
    return any(user.op_type not in LAYERS or weight_quantizer(graph, user) is not None for user in users)


def granularity(graph: Graph) -> Findings:
    """R2."""
    for pair in pairs(graph):
        scale = scale_of(graph, pair[0])
        if scale is None or scale.size == 1 or feeds_bias(graph, pair):
            continue
        if not is_weight(graph, pair):
            yield pair[0], f"give this activation one scale instead of {scale.size}."
            continue
        weight = graph.constants.get(pair[0].input[0])
        layer = next(user for user in graph.users(pair[-1]) if user.op_type in LAYERS)
        axis = channel_axis(layer)
        if weight is None:
            continue
        if axis_of(pair[-1]) % weight.ndim != axis or scale.size != weight.shape[axis]:
            yield pair[0], f"give it axis={axis} and {weight.shape[axis]} scales, one per output channel."


def symmetry(graph: Graph) -> Findings:
    """R3."""
    for pair in pairs(graph):
        if feeds_bias(graph, pair):
            continue
        points = [zero_point_of(graph, node) for node in pair]
        if any(point is None for point in points):
            yield pair[0], "give it a constant zero-point of type int8 and value 0."
        elif any(point.dtype != np.int8 or point.any() for point in points if point is not None):
            yield pair[0], "quantize symmetrically: int8, and a zero-point of 0."


def scales(graph: Graph) -> Findings:
    """R4."""
    for pair in pairs(graph):
        found = [scale_of(graph, node) for node in pair]
        if any(scale is None for scale in found):
            yield pair[0], "compute the scale when the model is calibrated and store it as a constant."
        elif not all(np.isfinite(scale).all() and (scale > 0).all() for scale in found if scale is not None):
            yield pair[0], "calibrate again: the scale is the largest magnitude divided by 127."


def fusion(graph: Graph) -> Findings:
    """R5."""
    for node in graph.nodes:
        source = graph.source(node, 0)
        if node.op_type != "QuantizeLinear" or source is None or source.op_type not in (*LAYERS, *FUSED[:1]):
            continue
        followers = [user for dequantize in graph.users(node) for user in graph.users(dequantize)]
        if any(user.op_type in FUSED for user in followers):
            yield node, "move the Q/DQ behind the BatchNorm and the ReLU."


def residuals(graph: Graph) -> Findings:
    """R6. Each term is dequantized, or comes straight from a layer; straight from a layer comes at most one."""
    for node in graph.nodes:
        terms = data_inputs(graph, node)
        if node.op_type != "Add" or len(terms) != 2 or not _is_quantized_behind(graph, node):
            continue
        straight = [term for term in terms if fused_layer(graph, term) is not None]
        bare = [term for term in terms if term not in straight and not is_dequantized(graph, term)]
        bare += straight[1:]
        if bare and len(bare) < len(terms):
            yield node, f"put Q/DQ on {' and '.join(bare)}."


def _is_quantized_behind(graph: Graph, node: NodeProto) -> bool:
    """True where a node's output is quantized, at once or after ReLU."""
    return is_quantized(graph, node) or any(
        user.op_type in FUSED and _is_quantized_behind(graph, user) for user in graph.users(node)
    )


def shared_scales(graph: Graph) -> Findings:
    """R7."""
    for node in graph.nodes:
        if node.op_type not in COMMUTING:
            continue
        inputs = data_inputs(graph, node)
        quantized = [tensor for tensor in inputs if partly_dequantized(graph, tensor)]
        if node.op_type == "Concat" and quantized:
            if bare := [tensor for tensor in inputs if tensor not in quantized]:
                yield node, f"quantize {', '.join(bare)} too, with the scale of the others."
            elif len({_grid(graph, tensor) for tensor in inputs}) > 1:
                yield node, "calibrate its inputs together and give all of them one scale."
        if quantized and any(user.op_type == "QuantizeLinear" for user in graph.users(node)):
            yield node, "take the Q/DQ behind it away: its values are quantized already."


def _grid(graph: Graph, tensor: str) -> tuple:
    """Scale and zero-point of the first quantizer behind a tensor."""
    node = sources(graph, tensor)[0]
    assert node is not None
    return tuple(graph.constants[name].tobytes() if name in graph.constants else name for name in node.input[1:])


def other_operators(graph: Graph) -> Findings:
    """R8."""
    quantized = [layer for layer in layers(graph) if is_quantized_layer(graph, layer)]
    between = outputs_behind(graph, quantized) & outputs_before(graph, quantized)
    ours = (*LAYERS, *COMMUTING, *QUANTIZERS, "Add")  # the other rules see to these
    for node in graph.nodes:
        users = graph.users(node)
        fused = node.op_type in FUSED and _follows_layer_or_sum(graph, node)
        if node.output[0] not in between or node.op_type in ours or fused or any(u.op_type == "Add" for u in users):
            continue
        inputs = data_inputs(graph, node)
        dequantized = [is_dequantized(graph, tensor) for tensor in inputs]
        if any(dequantized) and not (all(dequantized) and is_quantized(graph, node)):
            yield node, "put Q/DQ on all its inputs and its output, or take it off its inputs."
        elif not any(dequantized) and is_quantized(graph, node) and not _shared_with_float(graph, inputs):
            yield node, "put Q/DQ on its inputs too, or take it off its output."


def _follows_layer_or_sum(graph: Graph, node: NodeProto) -> bool:
    """True behind a layer or a sum, also where Q/DQ stands between, which is R5's matter."""
    source = graph.source(node, 0)
    if source is not None and source.op_type in (*FUSED, *QUANTIZERS):
        return _follows_layer_or_sum(graph, source)
    return source is not None and source.op_type in (*LAYERS, "Add")


def _shared_with_float(graph: Graph, tensors: list[str]) -> bool:
    """True where a layer reads one of these tensors in float: it was left in float on purpose."""
    return any(user.op_type in LAYERS for tensor in tensors for user, _ in graph.consumers[tensor])


def tail(graph: Graph) -> Findings:
    """R9. The last layers are those from which no other layer is reached."""
    every = layers(graph)
    with_more = outputs_before(graph, every)
    for layer in every:
        if layer.output[0] not in with_more and weight_quantizer(graph, layer) is not None:
            yield layer, "leave the last layers in float: no Q/DQ on weight and activation."
    behind = outputs_behind(graph, every)
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
    for layer in layers(graph):
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


# Reading a Q/DQ graph: which layers it has, which of their inputs are dequantized, and what stands around them.
#
# `qdq_rules` states the rules with these words; notebook 12 reads a graph with them.

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


CHECKS = {
    "R1": both_inputs,
    "R2": granularity,
    "R3": symmetry,
    "R4": scales,
    "R5": fusion,
    "R6": residuals,
    "R7": shared_scales,
    "R8": other_operators,
    "R9": tail,
    "R10": integer_constants,
    "R11": bias,
    "R12": image_input,
}
