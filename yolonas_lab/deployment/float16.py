"""Half precision as a property of the file: the network's tensors become float16, its ends stay float32.

Notebook 12 compares the two. TensorRT takes each layer's type from the graph, so a float16 engine, or an INT8 one
whose remaining layers are fast, starts here. Boxes are decoded in float32: from 512 px on float16
counts in half pixels, and from 1024 on in whole ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from yolonas_lab.deployment.graph import Graph

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

SMALLEST = float(np.finfo(np.float16).tiny)  # smaller numbers lose digits
LARGEST = float(np.finfo(np.float16).max)
DECODING = "decode/"


def to_float16(proto: ModelProto) -> None:
    """Convert an exported detector in place: images and everything from the decoding on stay float32.

    int8 weights stay what they are; those of a channel whose scale is too small for float16 are rounded anew to the
    smallest scale it has. Raises ValueError naming a weight too large for float16.
    """
    from onnx import TensorProto, helper

    graph = Graph(proto.graph)
    half = _half_nodes(graph)
    casts = {"images": helper.make_node("Cast", ["images"], ["images/float16"], "to_float16/Cast", to=10)}
    for node in graph.nodes:
        if not node.name.startswith(DECODING):
            continue
        for tensor in node.input:
            if (source := graph.producer.get(tensor)) is not None and source.name in half:
                casts[tensor] = helper.make_node(
                    "Cast", [tensor], [f"{tensor}/float32"], f"{tensor}/to_float32", to=TensorProto.FLOAT
                )
    _convert_constants(proto, graph, half)
    for node in graph.nodes:
        if node.name in half:
            node.input[:] = ["images/float16" if tensor == "images" else tensor for tensor in node.input]
        elif node.name.startswith(DECODING):
            node.input[:] = [casts[tensor].output[0] if tensor in casts else tensor for tensor in node.input]
    _insert(proto, casts)


def _half_nodes(graph: Graph) -> set[str]:
    """Names of the nodes that compute with pixel values up to the decoding, and of those that prepare their weights."""
    half: set[str] = set()
    tensors = {"images"}
    for node in graph.nodes:
        if node.op_type != "Shape" and not node.name.startswith(DECODING) and tensors.intersection(node.input):
            half.add(node.name)
            tensors.update(node.output)
    waiting = [node for node in graph.nodes if node.name in half]
    while waiting:
        node = waiting.pop()
        sources = [graph.source(node, index) for index in range(len(node.input))]
        new = [source for source in sources if source is not None and source.name not in half]
        new = [source for source in new if source.op_type in ("QuantizeLinear", "DequantizeLinear")]
        half.update(source.name for source in new)
        waiting += new
    return half


def _convert_constants(proto: ModelProto, graph: Graph, half: set[str]) -> None:
    """Rewrite the float32 initializers that half nodes use; one that others use too is kept beside its copy."""
    from onnx import numpy_helper

    initializers = {initializer.name: initializer for initializer in proto.graph.initializer}
    for name in list(initializers):
        array = graph.constants[name]
        users = graph.consumers[name]
        inside = [(node, index) for node, index in users if node.name in half]
        if array.dtype != np.float32 or not inside:
            continue
        if all(_is_scale(node, index) for node, index in inside):
            _keep_small_scales(array := array.copy(), inside, graph, initializers)
        elif np.abs(array).max(initial=0) > LARGEST:
            raise ValueError(
                f"{name} holds values beyond {LARGEST:g}, which float16 cannot hold; export it as float32."
            )
        new_name = name if len(inside) == len(users) else f"{name}/float16"
        converted = numpy_helper.from_array(array.astype(np.float16), new_name)
        if new_name == name:
            initializers[name].CopyFrom(converted)
        else:
            proto.graph.initializer.append(converted)
        for node, index in inside:
            node.input[index] = new_name


def _is_scale(node: NodeProto, index: int) -> bool:
    return node.op_type in ("QuantizeLinear", "DequantizeLinear") and index == 1


def _keep_small_scales(scale: np.ndarray, users: list, graph: Graph, initializers: dict) -> None:
    """Raise scales to SMALLEST in place; the int8 weights that had them are divided by as much."""
    from onnx import numpy_helper

    too_small = scale < SMALLEST
    if not too_small.any():
        return
    factor = np.where(too_small, scale / SMALLEST, 1)
    for node, _ in users:
        weight = graph.constants.get(node.input[0])
        if weight is None:
            continue
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
        shape = [-1 if dimension == axis else 1 for dimension in range(weight.ndim)] if scale.ndim else []
        rounded = np.round(weight * factor.reshape(shape)).astype(weight.dtype)
        initializers[node.input[0]].CopyFrom(numpy_helper.from_array(rounded, node.input[0]))
    scale[too_small] = SMALLEST


def _insert(proto: ModelProto, casts: dict[str, NodeProto]) -> None:
    """Put each cast right behind the node that makes its tensor."""
    nodes = [casts["images"]]
    for node in proto.graph.node:
        nodes.append(node)
        nodes += [casts[output] for output in node.output if output in casts]
    ordered = [type(node)() for node in nodes]
    for copy, node in zip(ordered, nodes):
        copy.CopyFrom(node)
    del proto.graph.node[:]
    proto.graph.node.extend(ordered)
