"""Which layers an engine really has, and in which precision each computes: what was asked for is not what one gets.

Notebook 13 reads it. The builder of TensorRT for RTX prints its layers into the log; TensorRT's engine inspector gives
them as JSON, written differently by version 10 and 11. Both end here as the same list.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

WIDEST_FIRST = ("Float", "BFloat16", "Half", "FP8", "Int8")
UNKNOWN = "unknown"
# Words that TensorRT uses for its formats in different versions -> the name used here.
_TYPE_WORDS = (
    (r"BF16|BFloat16", "BFloat16"),
    (r"FP16|Half|Float16", "Half"),
    (r"FP8|Float8", "FP8"),
    (r"Int8", "Int8"),
    (r"FP32|Float", "Float"),
)
_COMPUTES = re.compile("conv|correlation|fusion|gemm|matmul|matrix", re.IGNORECASE)
_ONNX_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_LOG_LINE = re.compile(r"^Name: (?P<name>.*?), LayerType: (?P<kind>\w+), (?P<rest>Inputs: .*)$")


@dataclass(frozen=True)
class EngineLayer:
    """One layer of an engine: the ONNX nodes that went into it, and the types of its tensors.

    Inputs and outputs are in the engine's order; of the constants the largest comes first, which is the weight.
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    constants: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def precision(self) -> str:
        """The widest of the types that are multiplied: of the first input and, where told, of the weights."""
        types = {*self.inputs[:1], *self.constants[:1]}
        return next((name for name in WIDEST_FIRST if name in types), UNKNOWN)

    @property
    def computes(self) -> bool:
        """True for convolutions and matrix products, False for the element-wise layers around them."""
        return _COMPUTES.search(self.kind) is not None


@dataclass(frozen=True)
class EngineReport:
    """What was built: builder and version, GPU ("" for none), plan size in bytes, seconds, layers, and the precision
    of each convolution of the ONNX graph by node name.
    """

    builder: str
    version: str
    gpu: str
    plan_bytes: int
    seconds: float
    layers: list[EngineLayer] = field(repr=False)
    convolutions: dict[str, str] = field(repr=False)

    def convolutions_in(self, *precisions: str) -> list[str]:
        """Names of the convolutions that compute in one of these precisions ("Int8", "Half", "Float")."""
        return [name for name, precision in self.convolutions.items() if precision in precisions]

    def __str__(self) -> str:
        counts = Counter(self.convolutions.values())
        by_type = ", ".join(f"{count} {name}" for name, count in counts.most_common())
        lines = [
            f"{self.builder} {self.version}: a plan of {self.plan_bytes / 1e6:.1f} MB in {self.seconds:.1f} s",
            f"{len(self.layers)} layers; {len(self.convolutions)} convolutions: {by_type or 'none'}",
        ]
        if "Int8" in counts:
            others = {name: precision for name, precision in self.convolutions.items() if precision != "Int8"}
            lines += [f"  not Int8: {name} ({precision})" for name, precision in others.items()]
        return "\n".join(lines)


def layers_from_log(messages: Iterable[str]) -> list[EngineLayer]:
    """The layers in the last "Layers:" block of a builder's verbose log; an empty list if there is none."""
    blocks = [text for text in messages if text.startswith("Layers:")]
    lines = blocks[-1].splitlines() if blocks else []
    return [_layer_of(match) for line in lines if (match := _LOG_LINE.match(line))]


def _layer_of(match: re.Match[str]) -> EngineLayer:
    inputs, _, rest = match["rest"].partition("Constants: ")
    if not rest:  # a layer without constants
        inputs, _, rest = match["rest"].partition("Outputs: ")
        constants, outputs = "", rest
    else:
        constants, _, outputs = rest.partition("Outputs: ")
    outputs = outputs.partition("TacticName: ")[0]
    nodes = tuple(_ONNX_NODE.findall(match["rest"]))
    types = (_types_in(inputs), _constants_in(constants), _types_in(outputs))
    return EngineLayer(match["name"], match["kind"], nodes, *types)


def _types_in(text: str) -> tuple[str, ...]:
    return tuple(type_name(word) for word in re.findall(r"Datatype: (\w+)", text))


def _constants_in(text: str) -> tuple[str, ...]:
    found = re.findall(r"Dimensions: \[([\d,]*)\].*?Datatype: (\w+)", text)
    return _largest_first([(_size(dims.split(",")), type_name(word)) for dims, word in found])


def _largest_first(constants: list[tuple[int, str]]) -> tuple[str, ...]:
    return tuple(name for _, name in sorted(constants, key=lambda constant: -constant[0]))


def _size(dims: Iterable[Any]) -> int:
    return math.prod(int(dim) for dim in dims if dim != "")


def layers_from_inspector(text: str) -> list[EngineLayer]:
    """The layers in the JSON of EngineInspector.get_engine_information, of TensorRT 10 or 11.

    Raises ValueError where the engine was built without detailed profiling verbosity: its layers are mere names.
    """
    rows = json.loads(text)["Layers"]
    if any(isinstance(row, str) for row in rows):
        raise ValueError(
            "The engine holds only the names of its layers: build it with profiling verbosity DETAILED, "
            "as build_engine does."
        )
    return [_layer_of_row(row) for row in rows]


def _layer_of_row(row: dict[str, Any]) -> EngineLayer:
    constants = [(_size(tensor.get("Dimensions", [])), _type_of(tensor)) for tensor in row.get("Constants", [])]
    if isinstance(weights := row.get("Weights"), dict) and weights.get("Count"):
        constants.append((weights["Count"], type_name(weights.get("Type", ""))))
    inputs, outputs = (tuple(_type_of(tensor) for tensor in row.get(key, [])) for key in ("Inputs", "Outputs"))
    nodes = tuple(_ONNX_NODE.findall(row.get("Metadata", "")))
    return EngineLayer(row["Name"], row.get("LayerType", ""), nodes, inputs, _largest_first(constants), outputs)


def _type_of(tensor: dict[str, Any]) -> str:
    return type_name(str(tensor.get("Datatype") or tensor.get("Format/Datatype") or tensor.get("Format", "")))


def type_name(text: str) -> str:
    """The data type in TensorRT's words: "Row major linear FP16 format" -> "Half"; other types come back as they are.

    Unknown words (such as "N/A due to dynamic shapes") give "unknown".
    """
    found = next((name for pattern, name in _TYPE_WORDS if re.search(pattern, text)), None)
    return found or (text if re.fullmatch(r"\w+", text) else UNKNOWN)


def convolution_precisions(layers: Sequence[EngineLayer], node_names: Iterable[str]) -> dict[str, str]:
    """The precision of each of these ONNX convolutions: of the computing layers that name it, the widest."""
    found: dict[str, set[str]] = {}
    for layer in layers:
        if layer.computes:
            for node in layer.nodes:
                found.setdefault(node, set()).add(layer.precision)
    return {name: _widest(found.get(name, set())) for name in node_names}


def _widest(precisions: set[str]) -> str:
    return next((name for name in WIDEST_FIRST if name in precisions), UNKNOWN)
