"""Reading and renaming ONNX graphs: who makes a tensor and who reads it, which layers are quantized, readable names.

Notebooks 12 and 13 use it. Exporters number their nodes; here each is called by the module it comes from and its
operator, as in "backbone.stem.conv/Conv".
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto


OPSET = 20  # the newest whose int8 Q/DQ graphs with MaxPool onnxruntime loads on every CPU
OLDEST_OPSET = 13  # the first with per-channel QuantizeLinear
SCOPES = "pkg.torch.onnx.name_scopes"  # where torch's exporter leaves the module path of a node
PREFIX = "network."  # of every module path, from the wrapper that is exported; cut off

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
COMMUTING = ("Concat", "Flatten", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze")  # values unchanged
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


class Graph:
    """An ONNX graph with look-ups both ways along its edges.

    nodes in topological order, without those that no output needs; producer[tensor] is a node; consumers[tensor] are
    (node, input index) pairs; constants[tensor] is the array of an initializer or Constant node.
    """

    def __init__(self, graph: GraphProto):
        from onnx import numpy_helper

        wanted = {value.name for value in graph.output}
        self.nodes: list[NodeProto] = []
        for node in reversed(graph.node):
            if wanted.intersection(node.output):
                self.nodes.insert(0, node)
                wanted.update(node.input)
        self.inputs = [value for value in graph.input if value.name not in {i.name for i in graph.initializer}]
        self.producer: dict[str, NodeProto] = {output: node for node in self.nodes for output in node.output if output}
        self.consumers: dict[str, list[tuple[NodeProto, int]]] = defaultdict(list)
        for node in self.nodes:
            for index, tensor in enumerate(node.input):
                self.consumers[tensor].append((node, index))
        self.constants: dict[str, np.ndarray] = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
        for node in self.nodes:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)

    def source(self, node: NodeProto, index: int) -> NodeProto | None:
        """The node that produces an input of this one; None for constants, graph inputs and inputs left out."""
        return self.producer.get(node.input[index]) if index < len(node.input) else None

    def users(self, node: NodeProto) -> list[NodeProto]:
        """The nodes that consume any output of this one."""
        return [user for output in node.output for user, _ in self.consumers[output]]


def load_onnx(source: str | Path | ModelProto) -> ModelProto:
    """The model in an ONNX file (or the loaded model itself), of an opset that this library knows.

    Raises FileNotFoundError, or ValueError naming the file and what to do.
    """
    import onnx
    from google.protobuf.message import DecodeError

    where = str(source) if isinstance(source, (str, Path)) else "The model"
    if isinstance(source, (str, Path)):
        if not Path(source).is_file():
            raise FileNotFoundError(f"ONNX file {source} does not exist; check the path.")
        try:
            source = onnx.load(source)
        except DecodeError as error:
            raise ValueError(f"{where} is not an ONNX file, or incomplete ({error}); export it again.") from error
    if not source.graph.node:
        raise ValueError(f"{where} holds no ONNX graph; export it again.")
    opset = next((entry.version for entry in source.opset_import if entry.domain in ("", "ai.onnx")), None)
    if opset is None or not OLDEST_OPSET <= opset <= OPSET:
        raise ValueError(
            f"{where} uses opset {opset}, but this library reads opsets {OLDEST_OPSET} to {OPSET}: "
            f"export it with export_onnx, which writes opset {OPSET}."
        )
    return source


def metadata_of(proto: ModelProto) -> dict[str, str]:
    """What the file says about itself, by key."""
    return {entry.key: entry.value for entry in proto.metadata_props}


def shape_of(value: ValueInfoProto) -> tuple[int, ...]:
    """The sizes of a graph input or output, -1 where they are open."""
    return tuple(dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim)


def layers(graph: Graph) -> list[NodeProto]:
    """The nodes that multiply by a weight: convolutions, Gemm, and MatMul with a constant matrix."""
    nodes = [node for node in graph.nodes if node.op_type in LAYERS]
    is_matrix = lambda tensor: graph.constants.get(tensor, np.empty(0)).ndim > 1  # noqa: E731
    return [
        n for n in nodes if n.op_type != "MatMul" or weight_quantizer(graph, n) is not None or is_matrix(n.input[1])
    ]


def weight_quantizer(graph: Graph, layer: NodeProto) -> NodeProto | None:
    """The DequantizeLinear behind a layer's weight, or None for a float weight."""
    source = graph.source(layer, 1)
    if source is None or source.op_type != "DequantizeLinear":
        return None
    quantize = graph.source(source, 0)  # a float weight that the graph itself quantizes is as good as integers
    computed = (
        quantize is not None and quantize.op_type == "QuantizeLinear" and quantize.input[0] not in graph.constants
    )
    return None if computed else source


def axis_of(node: NodeProto) -> int:
    """The axis along which a QuantizeLinear or DequantizeLinear has one scale per index."""
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)


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


def is_dequantized(graph: Graph, tensor: str) -> bool:
    """True where all values of the tensor come from DequantizeLinear."""
    nodes = sources(graph, tensor)
    return bool(nodes) and all(node is not None and node.op_type == "DequantizeLinear" for node in nodes)


def is_quantized_layer(graph: Graph, layer: NodeProto) -> bool:
    """True where both the weight and the activation of a layer are dequantized: it can run in int8."""
    return weight_quantizer(graph, layer) is not None and is_dequantized(graph, layer.input[0])


def replace_nodes(proto: ModelProto, nodes: list[NodeProto]) -> None:
    """Let the graph consist of these nodes, which may be its own, in this order."""
    copies = [type(node)() for node in nodes]
    for copy, node in zip(copies, nodes):
        copy.CopyFrom(node)  # deleting the old ones would empty them
    del proto.graph.node[:]
    proto.graph.node.extend(copies)


def name_nodes(proto: ModelProto) -> None:
    """Rename nodes, their outputs and their constants in place after the modules they come from; drop torch's notes.

    A node becomes "<module>/<operator>", with _1, _2 … where a module has several; its output has the same name, and
    an unnamed constant that of the node and the input it feeds. Inputs and outputs of the graph and parameters keep
    their names. torch's notes hold paths of the exporting machine.
    """
    graph = proto.graph
    new_names = {i.name: i.name.removeprefix(PREFIX) for i in graph.initializer if "." in i.name}
    seen: Counter[str] = Counter()
    modules: dict[str, str] = {}  # tensor -> module that made it
    for node in graph.node:
        module = _module_of(node, modules).removeprefix(PREFIX)
        name = f"{module}/{node.op_type}"
        node.name = f"{name}_{seen[name]}" if seen[name] else name
        seen[name] += 1
        for index, tensor in enumerate(node.output):
            modules[tensor] = module
            new_names[tensor] = node.name if len(node.output) == 1 else f"{node.name}:{index}"
        for index, tensor in enumerate(node.input):
            new_names.setdefault(tensor, f"{node.name}/input_{index}")
    new_names |= {name: name for name in ("", *(value.name for value in (*graph.input, *graph.output)))}
    for initializer in graph.initializer:
        initializer.name = new_names[initializer.name]
    for node in graph.node:
        for tensors in (node.input, node.output):
            tensors[:] = [new_names[tensor] for tensor in tensors]
    for item in (*graph.node, *graph.input, *graph.output, *graph.initializer, graph, proto):
        del item.metadata_props[:]
        item.doc_string = ""
    del graph.value_info[:]


def _module_of(node: NodeProto, modules: dict[str, str]) -> str:
    """From torch's note, or else from the inputs: the module path, "" for the outermost."""
    from ast import literal_eval

    for note in (entry.value for entry in node.metadata_props if entry.key == SCOPES):
        scopes = literal_eval(note)
        return scopes[-2] if len(scopes) > 1 and "empty_nn_module" not in scopes[0] else ""
    return next((modules[tensor] for tensor in node.input if tensor in modules), "")
