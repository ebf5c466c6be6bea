"""Reading and renaming ONNX graphs: who produces a tensor, who consumes it, and names that a person can follow.

Notebook 12 uses it. Exporters number their nodes; here each is called by the module it comes from and its operator,
as in "backbone.stem.conv/Conv".
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto


OPSET = 20  # the newest whose int8 Q/DQ graphs with MaxPool onnxruntime loads on every CPU
OLDEST_OPSET = 13  # the first with per-channel QuantizeLinear
SCOPES = "pkg.torch.onnx.name_scopes"  # where torch's exporter leaves the module path of a node


class Graph:
    """An ONNX graph with look-ups both ways along its edges.

    nodes in topological order, without those that no output needs; producer[tensor] is a node; consumers[tensor] are
    (node, input index) pairs; constants[tensor] is the array of an initializer or Constant node.
    """

    def __init__(self, graph: GraphProto):
        from onnx import numpy_helper

        self.nodes = _needed(graph)
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


def _needed(graph: GraphProto) -> list[NodeProto]:
    """The nodes that some output of the graph depends on."""
    wanted = {value.name for value in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            nodes.append(node)
            wanted.update(node.input)
    return nodes[::-1]


def load_onnx(path: str | Path) -> ModelProto:
    """The model in an ONNX file of an opset that this library knows.

    Raises FileNotFoundError, or ValueError naming the file and what to do.
    """
    import onnx
    from google.protobuf.message import DecodeError

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"ONNX file {path} does not exist; check the path.")
    try:
        proto = onnx.load(path)
    except DecodeError as error:
        raise ValueError(f"{path} is not an ONNX file, or incomplete ({error}); export it again.") from error
    if not proto.graph.node:
        raise ValueError(f"{path} holds no ONNX graph; export it again.")
    check_opset(proto, str(path))
    return proto


def check_opset(proto: ModelProto, where: str) -> None:
    """Raise ValueError unless the opset of the standard operators is one between OLDEST_OPSET and OPSET."""
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), None)
    if opset is None or not OLDEST_OPSET <= opset <= OPSET:
        raise ValueError(
            f"{where} uses opset {opset}, but this library reads opsets {OLDEST_OPSET} to {OPSET}: "
            f"export it with export_onnx, which writes opset {OPSET}."
        )


def name_nodes(proto: ModelProto, prefix: str = "network.") -> None:
    """Rename nodes, their outputs and their constants in place after the modules they come from; drop torch's notes.

    A node becomes "<module>/<operator>", with _1, _2 … where a module has several; its output has the same name, and
    an unnamed constant that of the node and the input it feeds. Inputs and outputs of the graph and parameters keep
    their names; `prefix` is cut off everywhere. torch's notes hold paths of the exporting machine.
    """
    graph = proto.graph
    new_names = {i.name: i.name.removeprefix(prefix) for i in graph.initializer if "." in i.name}
    fixed = {value.name for value in (*graph.input, *graph.output)}
    seen: Counter[str] = Counter()
    modules: dict[str, str] = {}  # tensor -> module that made it
    for node in graph.node:
        module = _module_of(node, modules).removeprefix(prefix)
        node.name = _unique(f"{module}/{node.op_type}", seen)
        for index, tensor in enumerate(node.output):
            modules[tensor] = module
            new_names[tensor] = node.name if len(node.output) == 1 else f"{node.name}:{index}"
        for index, tensor in enumerate(node.input):
            new_names.setdefault(tensor, f"{node.name}/input_{index}")
    new_names |= {name: name for name in ("", *fixed)}
    _rename_tensors(graph, new_names)
    for item in (*graph.node, *graph.input, *graph.output, *graph.initializer, graph, proto):
        del item.metadata_props[:]
        item.doc_string = ""
    del graph.value_info[:]


def _module_of(node: NodeProto, modules: dict[str, str]) -> str:
    """From torch's note, or else from the inputs: the module path, "" for the outermost."""
    from ast import literal_eval

    notes = [entry.value for entry in node.metadata_props if entry.key == SCOPES]
    if notes:
        scopes = literal_eval(notes[0])
        return scopes[-2] if len(scopes) > 1 and "empty_nn_module" not in scopes[0] else ""
    return next((modules[tensor] for tensor in node.input if tensor in modules), "")


def _unique(name: str, seen: Counter[str]) -> str:
    seen[name] += 1
    return name if seen[name] == 1 else f"{name}_{seen[name] - 1}"


def _rename_tensors(graph: GraphProto, new_names: dict[str, str]) -> None:
    for initializer in graph.initializer:
        initializer.name = new_names[initializer.name]
    for node in graph.node:
        for tensors in (node.input, node.output):
            tensors[:] = [new_names[tensor] for tensor in tensors]
