"""Where Q/DQ may stand: TensorRT's placement rules as checks on a graph, each with a reason and a fix.

Notebook 13 breaks them one by one. A graph that breaks a rule often still builds: the layer then runs in float, and
nothing says so. NVIDIA, "Explicit Quantization" in TensorRT's documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from yolonas_lab.deployment.onnx_graph import (
    COMMUTING,
    LAYERS,
    QUANTIZERS,
    Graph,
    axis_of,
    data_inputs,
    is_dequantized,
    is_quantized_layer,
    layers,
    load_onnx,
    sources,
    weight_quantizer,
)

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

FUSED = ("BatchNormalization", "Relu", "Clip", "LeakyRelu")  # what TensorRT fuses into the layer before it
Findings = Iterator[tuple["NodeProto", str]]  # the node that breaks the rule, and what to do


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

    >>> import onnx
    >>> text = "(float[1] x) => (float[1] y) <float s = {0.1}, uint8 z = {0}> { q = QuantizeLinear(x, s, z) "
    >>> text = f'<ir_version: 10, opset_import: ["" : 20]> g {text} y = DequantizeLinear(q, s, z) }}'
    >>> [(violation.rule, violation.fix) for violation in check_qdq(onnx.parser.parse_model(text))]
    [('R3', 'quantize symmetrically: int8, and a zero-point of 0.')]
    """
    graph = Graph(load_onnx(model).graph)
    return [
        Violation(rule, node.name or node.output[0], why, fix)
        for rule, (why, check) in RULES.items()
        for node, fix in check(graph)
    ]


def quantized_layers(model: str | Path | ModelProto) -> dict[str, bool]:
    """Every convolution and matrix product with a weight, by node name in order: are weight and activation quantized?

    Raises as `check_qdq` does.
    """
    graph = Graph(load_onnx(model).graph)
    return {layer.name: is_quantized_layer(graph, layer) for layer in layers(graph)}


def _both_inputs(graph: Graph) -> Findings:
    """A float layer may read what a quantized one, or an operator of another kind, reads too; quantizing for float
    layers alone is pointless.
    """
    for layer in layers(graph):
        weight = weight_quantizer(graph, layer) is not None
        activation = _partly_dequantized(graph, layer.input[0])
        if weight and not activation:
            yield layer, f"put QuantizeLinear and DequantizeLinear on its activation {layer.input[0]}."
        givers = [node for node in sources(graph, layer.input[0]) if node is not None]
        users = [user for giver in givers for user in _readers(graph, giver)]
        served = any(user.op_type not in LAYERS or weight_quantizer(graph, user) is not None for user in users)
        if activation and not weight and not served:
            yield layer, f"quantize its weight {layer.input[1]} too, or take the Q/DQ off its activation."


def _granularity(graph: Graph) -> Findings:
    for pair in _pairs(graph):
        scale = _constant(graph, pair[0], 1)
        if scale is None or scale.size == 1 or _feeds_bias(graph, pair):
            continue
        users = [user for user in graph.users(pair[-1]) if user.op_type in LAYERS]
        layer = next((user for user in users if weight_quantizer(graph, user) is pair[-1]), None)
        weight = graph.constants.get(pair[0].input[0])
        if layer is None:
            yield pair[0], f"give this activation one scale instead of {scale.size}."
        elif weight is not None:
            transposed = layer.op_type == "Gemm" and any(a.name == "transB" and a.i for a in layer.attribute)
            axis = 0 if layer.op_type == "Conv" or transposed else 1  # of the output channels
            if axis_of(pair[-1]) % weight.ndim != axis or scale.size != weight.shape[axis]:
                yield pair[0], f"give it axis={axis} and {weight.shape[axis]} scales, one per output channel."


def _symmetry(graph: Graph) -> Findings:
    for pair in _pairs(graph):
        points = [_constant(graph, node, 2) for node in pair]
        if _feeds_bias(graph, pair):
            continue
        if any(point is None for point in points):
            yield pair[0], "give it a constant zero-point of type int8 and value 0."
        elif any(point.dtype != np.int8 or point.any() for point in points if point is not None):
            yield pair[0], "quantize symmetrically: int8, and a zero-point of 0."


def _scales(graph: Graph) -> Findings:
    for pair in _pairs(graph):
        found = [_constant(graph, node, 1) for node in pair]
        if any(scale is None for scale in found):
            yield pair[0], "compute the scale when the model is calibrated and store it as a constant."
        elif not all(np.isfinite(scale).all() and (scale > 0).all() for scale in found if scale is not None):
            yield pair[0], "calibrate again: the scale is the largest magnitude divided by 127."


def _fusion(graph: Graph) -> Findings:
    for node in graph.nodes:
        source = graph.source(node, 0)
        if node.op_type != "QuantizeLinear" or source is None or source.op_type not in (*LAYERS, FUSED[0]):
            continue
        followers = [user for dequantize in graph.users(node) for user in graph.users(dequantize)]
        if any(user.op_type in FUSED for user in followers):
            yield node, "move the Q/DQ behind the BatchNorm and the ReLU."


def _residuals(graph: Graph) -> Findings:
    """Each term is dequantized, or comes straight from a layer; straight from a layer comes at most one."""
    for node in graph.nodes:
        terms = data_inputs(graph, node)
        if node.op_type == "Add" and len(terms) == 2 and _is_quantized_behind(graph, node):
            straight = [term for term in terms if _is_fused_with_layer(graph, term)]
            bare = [term for term in terms if term not in straight and not is_dequantized(graph, term)]
            bare += straight[1:]
            if len(bare) == 1:
                yield node, f"put Q/DQ on {bare[0]}."


def _is_fused_with_layer(graph: Graph, tensor: str) -> bool:
    """True for what comes straight from a layer, through BatchNorm and ReLU, with no other reader on the way."""
    node = graph.producer.get(tensor)
    if node is None or len(graph.consumers[tensor]) != 1:
        return False
    return node.op_type in LAYERS or (node.op_type in FUSED and _is_fused_with_layer(graph, node.input[0]))


def _is_quantized_behind(graph: Graph, node: NodeProto) -> bool:
    """True where a node's output is quantized, at once or after ReLU."""
    fused = (user for user in graph.users(node) if user.op_type in FUSED)
    return _is_quantized(graph, node) or any(_is_quantized_behind(graph, user) for user in fused)


def _shared_scales(graph: Graph) -> Findings:
    for node in graph.nodes:
        if node.op_type not in COMMUTING:
            continue
        inputs = data_inputs(graph, node)
        quantized = [tensor for tensor in inputs if _partly_dequantized(graph, tensor)]
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


def _other_operators(graph: Graph) -> Findings:
    quantized = [layer for layer in layers(graph) if is_quantized_layer(graph, layer)]
    between = _reached(graph, quantized) & _reached(graph, quantized, backwards=True)
    ours = (*LAYERS, *COMMUTING, *QUANTIZERS, "Add")  # the other rules see to these
    for node in graph.nodes:
        users = graph.users(node)
        fused = node.op_type in FUSED and _follows_layer_or_sum(graph, node)
        if node.output[0] not in between or node.op_type in ours or fused or any(u.op_type == "Add" for u in users):
            continue
        inputs = data_inputs(graph, node)
        dequantized = [is_dequantized(graph, tensor) for tensor in inputs]
        if any(dequantized) and not (all(dequantized) and _is_quantized(graph, node)):
            yield node, "put Q/DQ on all its inputs and its output, or take it off its inputs."
        elif not any(dequantized) and _is_quantized(graph, node) and not _shared_with_float(graph, inputs):
            yield node, "put Q/DQ on its inputs too, or take it off its output."


def _follows_layer_or_sum(graph: Graph, node: NodeProto) -> bool:
    """True behind a layer or a sum, also where Q/DQ stands between, which is R5's matter."""
    source = graph.source(node, 0)
    while source is not None and source.op_type in (*FUSED, *QUANTIZERS):
        source = graph.source(source, 0)
    return source is not None and source.op_type in (*LAYERS, "Add")


def _shared_with_float(graph: Graph, tensors: list[str]) -> bool:
    """True where a layer reads one of these tensors in float: it was left in float on purpose."""
    return any(user.op_type in LAYERS for tensor in tensors for user, _ in graph.consumers[tensor])


def _tail(graph: Graph) -> Findings:
    """The last layers are those from which no other layer is reached."""
    every = layers(graph)
    with_more = _reached(graph, every, backwards=True)
    for layer in every:
        if layer.output[0] not in with_more and weight_quantizer(graph, layer) is not None:
            yield layer, "leave the last layers in float: no Q/DQ on weight and activation."
    behind = _reached(graph, every)
    for node in graph.nodes:
        if node.op_type == "QuantizeLinear" and node.output[0] in behind and node.output[0] not in with_more:
            yield node, "take the Q/DQ away."


def _integer_constants(graph: Graph) -> Findings:
    """A zero-point is an integer too."""
    places = {"QuantizeLinear": (2,), "DequantizeLinear": (0, 2)}
    for node in graph.nodes:
        other = [tensor for index, tensor in enumerate(node.input) if index not in places.get(node.op_type, ())]
        constants = (name for name in other if name in graph.constants)
        integers = [name for name in constants if graph.constants[name].dtype in (np.int8, np.uint8)]
        if integers:
            yield node, f"connect {integers[0]} to the DequantizeLinear directly."


def _bias(graph: Graph) -> Findings:
    for layer in layers(graph):
        source = graph.source(layer, 2)
        if source is not None and source.op_type == "DequantizeLinear":
            yield layer, "store the bias as float."


def _image_input(graph: Graph) -> Findings:
    uint8 = {value.name for value in graph.inputs if value.type.tensor_type.elem_type == 2}  # TensorProto.UINT8
    for node in graph.nodes:
        for name in uint8.intersection(node.input if node.op_type != "Cast" else ()):
            yield node, f"cast {name} to float before anything else."


# What several checks ask of a graph.


def _partly_dequantized(graph: Graph, tensor: str) -> bool:
    """True where some values of the tensor come from DequantizeLinear."""
    return any(node is not None and node.op_type == "DequantizeLinear" for node in sources(graph, tensor))


def _readers(graph: Graph, node: NodeProto) -> list[NodeProto]:
    """The nodes that use a node's values, seen through operators that leave values unchanged."""
    users = graph.users(node)
    return [r for user in users for r in (_readers(graph, user) if user.op_type in COMMUTING else [user])]


def _is_quantized(graph: Graph, node: NodeProto) -> bool:
    """True where a reader of the node's values is a QuantizeLinear."""
    return any(reader.op_type == "QuantizeLinear" for reader in _readers(graph, node))


def _pairs(graph: Graph) -> Iterator[list[NodeProto]]:
    """Each QuantizeLinear with its DequantizeLinears, and each DequantizeLinear of a constant alone."""
    for node in graph.nodes:
        if node.op_type == "QuantizeLinear":
            yield [node, *(user for user in graph.users(node) if user.op_type == "DequantizeLinear")]
        elif node.op_type == "DequantizeLinear":
            source = graph.source(node, 0)
            if source is None or source.op_type != "QuantizeLinear":
                yield [node]


def _feeds_bias(graph: Graph, pair: list[NodeProto]) -> bool:
    """True for the Q/DQ of a layer's bias."""
    users = (user for output in pair[-1].output for user in graph.consumers[output])
    return any(user.op_type in LAYERS and index == 2 for user, index in users)


def _constant(graph: Graph, node: NodeProto, index: int) -> np.ndarray | None:
    """An input that is constant, of a quantizer 1 the scale, 2 the zero-point; None where it is computed or missing."""
    return graph.constants.get(node.input[index]) if index < len(node.input) else None


def _reached(graph: Graph, starts: list[NodeProto], backwards: bool = False) -> set[str]:
    """The first outputs of all nodes that these nodes' values reach, or, backwards, whose values reach them."""
    found: set[str] = set()
    waiting = list(starts)
    while waiting:
        node = waiting.pop()
        before = [graph.producer[tensor] for tensor in node.input if tensor in graph.producer]
        new = [other for other in (before if backwards else graph.users(node)) if other.output[0] not in found]
        found.update(other.output[0] for other in new)
        waiting += new
    return found


RULES: dict[str, tuple[str, Callable[[Graph], Findings]]] = {
    "R1": ("A layer runs in int8 only if both its activation and its weight are quantized.", _both_inputs),
    "R2": ("Activations have one scale per tensor, weights one per output channel or one in all.", _granularity),
    "R3": (
        "TensorRT's INT8 is symmetric: int8 with a zero-point that is there and is 0; without one it means uint8.",
        _symmetry,
    ),
    "R4": ("A scale is a constant, finite and positive number.", _scales),
    "R5": ("A convolution, its BatchNorm and its ReLU are fused only if nothing stands between them.", _fusion),
    "R6": ("A residual sum is fused in int8 only if its skip is quantized too.", _residuals),
    "R7": (
        "What meets in a Concat shares one scale; MaxPool, Reshape and Transpose keep that of their input.",
        _shared_scales,
    ),
    "R8": (
        "Any other operator between quantized layers has Q/DQ on inputs and output, or on neither.",
        _other_operators,
    ),
    "R9": ("The tail stays float: predictions, decoding and NMS need more digits than int8 has.", _tail),
    "R10": ("A constant of integers can feed a DequantizeLinear only.", _integer_constants),
    "R11": ("The bias is added to the sums of products, which are finer than int8, and stays float.", _bias),
    "R12": ("A uint8 image can feed a Cast only.", _image_input),
}
