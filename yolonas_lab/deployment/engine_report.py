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


def convolution_precisions(layers: Sequence[EngineLayer], node_names: Iterable[str]) -> dict[str, str]:
    """The precision of each of these ONNX convolutions: of the computing layers that name it, the widest."""
    computing = [layer for layer in layers if layer.computes]
    return {name: _widest({layer.precision for layer in computing if name in layer.nodes}) for name in node_names}


def _widest(precisions: set[str]) -> str:
    return next((name for name in WIDEST_FIRST if name in precisions), UNKNOWN)


def layers_from_log(messages: Iterable[str]) -> list[EngineLayer]:
    """The layers in the last "Layers:" block of a builder's verbose log; an empty list if there is none."""
    blocks = [text for text in messages if text.startswith("Layers:")]
    layers = []
    for match in filter(None, map(_LOG_LINE.match, blocks[-1].splitlines() if blocks else [])):
        inputs, outputs = (
            tuple(type_name(word) for word in re.findall(r"Datatype: (\w+)", match[key]))
            for key in ("inputs", "outputs")
        )
        constants = re.findall(r"Dimensions: \[([\d,]*)\].*?Datatype: (\w+)", match["constants"] or "")
        sized = [(_size(dims.split(",")), type_name(word)) for dims, word in constants]
        nodes = tuple(_ONNX_NODE.findall(match.string))
        layers.append(EngineLayer(match["name"], match["kind"], nodes, inputs, _largest_first(sized), outputs))
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
    constants = [(_size(tensor.get("Dimensions", [])), _type_of(tensor)) for tensor in row.get("Constants", [])]
    if isinstance(weights := row.get("Weights"), dict) and weights.get("Count"):
        constants.append((weights["Count"], type_name(weights.get("Type", ""))))
    inputs, outputs = (tuple(_type_of(tensor) for tensor in row.get(key, [])) for key in ("Inputs", "Outputs"))
    nodes = tuple(_ONNX_NODE.findall(row.get("Metadata", "")))
    return EngineLayer(row["Name"], row.get("LayerType", ""), nodes, inputs, _largest_first(constants), outputs)


def _type_of(tensor: dict[str, Any]) -> str:
    return type_name(str(tensor.get("Datatype") or tensor.get("Format/Datatype") or tensor.get("Format", "")))


def _size(dims: Iterable[Any]) -> int:
    return math.prod(int(dim) for dim in dims if dim != "")


def _largest_first(constants: list[tuple[int, str]]) -> tuple[str, ...]:
    return tuple(name for _, name in sorted(constants, key=lambda constant: -constant[0]))


def type_name(text: str) -> str:
    """The data type in TensorRT's words: "Row major linear FP16 format" -> "Half"; other types come back as they are.

    Unknown words (such as "N/A due to dynamic shapes") give "unknown".
    """
    found = next((name for pattern, name in _TYPE_WORDS if re.search(pattern, text)), None)
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


def read_plan(plan: str | Path) -> tuple[bytes, str, str]:
    """A plan's bytes, the module that wrote it ("tensorrt" or "tensorrt_rtx") and its version, such as "10.13.0.35".

    Raises ValueError for a file that is missing, no plan, or cut short.
    """
    if not Path(plan).is_file():
        raise ValueError(f"There is no plan {plan}: build it with build_engine.")
    content = Path(plan).read_bytes()
    if content[:4] not in TAGS or len(content) < HEADER_BYTES:
        raise ValueError(f"{plan} is not a TensorRT plan; build one from an ONNX file with build_engine.")
    if card_path(plan).is_file() and (expected := read_card(plan).plan_bytes) != len(content):
        raise ValueError(
            f"{plan} is damaged: it has {len(content)} bytes, and had {expected} when it was built; "
            "copy it again, or build it again with build_engine."
        )
    return content, TAGS[content[:4]], ".".join(str(byte) for byte in content[VERSION_AT:HEADER_BYTES])


def read_card(plan: str | Path) -> PlanCard:
    """The card beside a plan. Raises ValueError where it is missing or not one."""
    path = card_path(plan)
    if not path.is_file():
        raise ValueError(f"There is no {path}: copy it together with the plan, or build again with build_engine.")
    try:
        return PlanCard(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is not what build_engine writes beside a plan: build again. ({error})") from error


def check_version(plan: str | Path, module: str, version: str, trt: ModuleType) -> None:
    """Raise ValueError unless this TensorRT is the module and version that wrote the plan."""
    if module != trt.__name__:
        raise ValueError(
            f"{plan} was built by {module} and cannot be loaded by {trt.__name__}: "
            f"install {module.replace('_', '-')}, or build it again with {trt.__name__}."
        )
    if version.split(".") != [*trt.__version__.split("."), "0", "0"][:4]:
        raise ValueError(
            f"{plan} was built by {module} {version}, and {trt.__version__} is installed: plans belong to one version; "
            "build it again from the ONNX file, or install that version."
        )


def check_gpu(plan: str | Path, card: PlanCard) -> None:
    """Raise ValueError where torch has no NVIDIA GPU, or another kind than the one that the plan was built on."""
    import torch

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
