"""Which layers an engine really has, in which precision each computes, and the plan and its card on the disk.

Notebook 13 reads them: what was asked for is not what one gets. The builder of TensorRT for RTX prints its layers into
the log; TensorRT's engine inspector gives them as JSON, written differently by version 10 and 11.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from yolonas_lab.common import write_bytes, write_json

WIDEST_FIRST = ("Float", "BFloat16", "Half", "FP8", "Int8")
UNKNOWN = "unknown"
_TYPE_WORDS = {  # the name used here -> what TensorRT's versions call it
    "BFloat16": r"BF16|BFloat16",
    "Half": r"FP16|Half|Float16",
    "FP8": r"FP8|Float8",
    "Int8": r"Int8",
    "Float": r"FP32|Float",
}
_LOG_LINE = re.compile(
    r"^Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: (?P<inputs>.*?)"
    r"(Constants: (?P<constants>.*?))?Outputs: (?P<outputs>.*?)(TacticName: .*)?$"
)


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
        return _widest({*self.inputs[:1], *self.constants[:1]})

    @property
    def computes(self) -> bool:
        """True for convolutions and matrix products, False for the element-wise layers around them."""
        return re.search("conv|correlation|fusion|gemm|matmul|matrix", self.kind, re.IGNORECASE) is not None


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


def convolution_precisions(layers: Sequence[EngineLayer], node_names: Iterable[str]) -> dict[str, str]:
    """The precision of each of these ONNX convolutions: of the computing layers that name it, the widest."""
    computing = [layer for layer in layers if layer.computes]
    return {name: _widest({layer.precision for layer in computing if name in layer.nodes}) for name in node_names}


def _widest(precisions: set[str]) -> str:
    return next((name for name in WIDEST_FIRST if name in precisions), UNKNOWN)


def layers_from_log(messages: Iterable[str]) -> list[EngineLayer]:
    """The layers in the last "Layers:" block of a builder's verbose log; an empty list if there is none."""
    block = next((text for text in reversed([*messages]) if text.startswith("Layers:")), "")
    layers = []
    for match in filter(None, map(_LOG_LINE.match, block.splitlines())):
        tensors = (re.findall(r"Datatype: (\w+)", match[key]) for key in ("inputs", "outputs"))
        inputs, outputs = (tuple(map(type_name, words)) for words in tensors)
        constants = re.findall(r"Dimensions: \[([\d,]*)\].*?Datatype: (\w+)", match["constants"] or "")
        weights = _largest_first((dims.split(","), word) for dims, word in constants)
        layers.append(EngineLayer(match["name"], match["kind"], _nodes(match.string), inputs, weights, outputs))
    return layers


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
    return [_layer_of(row) for row in rows]


def _layer_of(row: dict[str, Any]) -> EngineLayer:
    constants = [(tensor.get("Dimensions", []), _type_of(tensor)) for tensor in row.get("Constants", [])]
    if isinstance(weights := row.get("Weights"), dict) and weights.get("Count"):
        constants.append(([weights["Count"]], weights.get("Type", "")))
    inputs, outputs = (tuple(type_name(_type_of(t)) for t in row.get(key, [])) for key in ("Inputs", "Outputs"))
    nodes = _nodes(row.get("Metadata", ""))
    return EngineLayer(row["Name"], row.get("LayerType", ""), nodes, inputs, _largest_first(constants), outputs)


def _nodes(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\[ONNX Layer: ([^\]]*)\]", text))


def _type_of(tensor: dict[str, Any]) -> str:
    return str(tensor.get("Datatype") or tensor.get("Format/Datatype") or tensor.get("Format", ""))


def _largest_first(constants: Iterable[tuple[Iterable[Any], str]]) -> tuple[str, ...]:
    """The types of constants, given by their dimensions and TensorRT's word for the type."""
    sized = [(math.prod(int(dim) for dim in dims if dim != ""), type_name(word)) for dims, word in constants]
    return tuple(name for _, name in sorted(sized, key=lambda constant: -constant[0]))


def type_name(text: str) -> str:
    """The data type in TensorRT's words: "Row major linear FP16 format" -> "Half"; other types come back as they are.

    Unknown words (such as "N/A due to dynamic shapes") give "unknown".
    """
    found = next((name for name, pattern in _TYPE_WORDS.items() if re.search(pattern, text)), None)
    return found or (text if re.fullmatch(r"\w+", text) else UNKNOWN)


# A plan runs only on the version, and mostly the GPU, that it was built for, and has no room for class names. Its first
# bytes name the version, as NVIDIA's trtexec reads them (--getPlanVersionOnly); a card (plan.json) beside it the rest.
TAGS = {b"ftrt": "tensorrt", b"vtrt": "tensorrt_rtx"}
HEADER_BYTES = 28
VERSION_AT = 24


@dataclass(frozen=True)
class PlanCard:
    """What stands beside a plan: its size in bytes and origin, the metadata of the ONNX file, and precisions by
    convolution.
    """

    plan_bytes: int
    gpu: str  # "" for a plan that was built without one
    compute_capability: str  # such as "9.0", or ""
    metadata: dict[str, str]  # of the ONNX file
    convolutions: dict[str, str]


def card_path(plan: str | Path) -> Path:
    """Where the JSON of a plan lies: model.plan -> model.plan.json."""
    return Path(f"{plan}.json")


def write_plan(plan: str | Path, content: bytes, card: PlanCard) -> None:
    """Write a plan and its card, each whole or not at all; the plan last, so that it never lies there without one."""
    write_json(card_path(plan), vars(card))
    write_bytes(plan, content)


def read_plan(plan: str | Path) -> tuple[bytes, str, str, PlanCard]:
    """A plan's bytes, the module that wrote it ("tensorrt" or "tensorrt_rtx"), its version, such as "10.13.0.35", and
    the card beside it. Raises ValueError for a file that is missing, no plan, no card, or cut short.
    """
    for file in (Path(plan), card_path(plan)):
        if not file.is_file():
            raise ValueError(f"There is no {file}: copy plan and card (.plan.json), or build them with build_engine.")
    content, card_text = Path(plan).read_bytes(), card_path(plan).read_text(encoding="utf-8")
    if content[:4] not in TAGS or len(content) < HEADER_BYTES:
        raise ValueError(f"{plan} is not a TensorRT plan; build one from an ONNX file with build_engine.")
    try:
        card = PlanCard(**json.loads(card_text))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{plan}.json is not what build_engine writes beside a plan: build again. ({error})"
        ) from error
    if card.plan_bytes != len(content):
        raise ValueError(
            f"{plan} is damaged: it has {len(content)} bytes, and had {card.plan_bytes} when it was built; "
            "copy it again, or build it again with build_engine."
        )
    return content, TAGS[content[:4]], ".".join(map(str, content[VERSION_AT:HEADER_BYTES])), card


def check_plan(plan: str | Path, module: str, version: str, card: PlanCard, trt: ModuleType) -> None:
    """Raise ValueError unless this TensorRT is the module and version that wrote the plan, and torch has an NVIDIA GPU,
    of the kind that it was built on.
    """
    import torch

    if module != trt.__name__ or version.split(".") != [*trt.__version__.split("."), "0", "0"][:4]:
        raise ValueError(
            f"{plan} was built by {module} {version}, and is loaded by {trt.__name__} {trt.__version__}: plans belong "
            "to one version; build it again from the ONNX file, or install that version."
        )
    if not torch.cuda.is_available():
        raise ValueError(
            f"{plan} runs only on an NVIDIA GPU that torch can use, and there is none here: `doctor` says what is; "
            "on a CPU run the ONNX file with OnnxDetector."
        )
    here = ".".join(map(str, torch.cuda.get_device_capability()))
    if card.compute_capability and card.compute_capability != here:
        raise ValueError(
            f"{plan} was built on {card.gpu} (compute capability {card.compute_capability}), and this GPU is "
            f"{torch.cuda.get_device_name()} ({here}): build it again on this machine."
        )
