"""From an ONNX file to a TensorRT plan, strongly typed: INT8 where the graph has Q/DQ, half where it has float16.

Notebook 13. One way for TensorRT 10.12 and newer, where precision flags and calibrators are gone, and for TensorRT for
RTX, whose builder needs no GPU. The module is passed in: `trt = tensorrt` or `tensorrt_rtx`.
"""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from yolonas_lab.common import progress_bar, unknown_name
from yolonas_lab.deployment.engine_report import (
    EngineReport,
    PlanCard,
    convolution_precisions,
    layers_from_inspector,
    layers_from_log,
    write_plan,
)
from yolonas_lab.deployment.onnx_graph import Graph, load_onnx, metadata_of, shape_of

if TYPE_CHECKING:
    from onnx import ModelProto

MODULES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT for RTX"}
OLDEST = (10, 12)  # of TensorRT; what came before knows other ways to INT8


def find_tensorrt(name: str | None = None) -> ModuleType:
    """The module of this name, "tensorrt" or "tensorrt_rtx"; without a name the first of the two that is installed.

    Raises ImportError with the pip command where it is missing, ValueError for a TensorRT older than 10.12.
    """
    if name is not None and name not in MODULES:
        raise ValueError(unknown_name("TensorRT module", name, MODULES))
    for module_name in [name] if name else MODULES:
        trt = importlib.import_module(module_name) if find_spec(module_name) else None
        if trt is None or not hasattr(trt, "Builder"):  # type stubs leave an empty module of that name behind
            continue
        if is_too_old(trt.__name__, trt.__version__):
            version = f"TensorRT {trt.__version__} is installed, and 10.12 or newer is needed"
            raise ValueError(f"{version}: pip install --upgrade tensorrt.")
        return trt
    if name == "tensorrt":
        raise ImportError("tensorrt is not installed: pip install 'yolonas-lab[tensorrt]' (it needs an NVIDIA GPU).")
    raise ImportError(
        "TensorRT for RTX is not installed: pip install 'yolonas-lab[tensorrt-rtx]' (its builder runs without a GPU)."
    )


def is_too_old(module: str, version: str) -> bool:
    """True for a TensorRT before OLDEST; TensorRT for RTX counts its versions from 1."""
    return module == "tensorrt" and tuple(int(part) for part in version.split(".")[:2]) < OLDEST


@dataclass(frozen=True)
class Profile:
    """The shapes (b, 3, h, w) that a plan with dynamic sizes is built for; it is fastest at the typical one."""

    smallest: tuple[int, int, int, int]
    typical: tuple[int, int, int, int]
    largest: tuple[int, int, int, int]

    def __post_init__(self) -> None:
        for name, shape in vars(self).items():
            if len(shape) != 4 or shape[0] < 1 or shape[1] != 3 or any(side < 32 or side % 32 for side in shape[2:]):
                raise ValueError(f"{name} must be (b, 3, h, w) with sides that are multiples of 32 px, but is {shape}.")


def _image_input(path: Path, model: ModelProto, profiles: Sequence[Profile]) -> tuple[str, tuple[int, ...]]:
    """Name of the one input of a graph, and the order of its axes, seen from (b, 3, h, w). Raises ValueError naming the
    file where it cannot be images, or profiles are missing or too many.
    """
    inputs = Graph(model.graph).inputs
    shape = shape_of(inputs[0]) if len(inputs) == 1 else ()
    if len(shape) != 4:
        names = [value.name for value in inputs]
        raise ValueError(f"{path} must have one input, images with four axes, but has {names}: use export_onnx.")
    order = (0, 2, 3, 1) if shape[1] != 3 and shape[3] == 3 else (0, 1, 2, 3)
    if any(shape[order.index(axis)] % 32 and shape[order.index(axis)] != -1 for axis in (2, 3)):
        raise ValueError(f"{path} takes images of shape {shape}: both sides must be multiples of 32 px; export again.")
    if (-1 in shape) != bool(profiles):
        raise ValueError(
            f"{path} takes images of shape {shape}: give profiles=[Profile(smallest, typical, largest)], each a shape "
            "(b, 3, h, w), where some of it is open (-1), and none where it is not."
        )
    return inputs[0].name, order


def build_engine(
    onnx: str | Path,
    plan: str | Path,
    trt: ModuleType | None = None,
    profiles: Sequence[Profile] = (),
    workspace: int | None = None,
    progress: bool = True,
) -> EngineReport:
    """Build the plan of an ONNX file, write it with its card (plan.json) beside it, and report each layer's precision.

    trt is the module `tensorrt` or `tensorrt_rtx` (default: whichever is installed). profiles are needed for a graph
    with dynamic sizes; a detector runs each image in one that holds its size. workspace is the GPU memory in MiB that
    kernels may use while they compute. Raises ValueError with node and advice for a graph that TensorRT refuses,
    ImportError where it is missing.
    """
    trt = trt or find_tensorrt()
    path = Path(onnx)
    model = load_onnx(path)
    images, order = _image_input(path, model, profiles)
    if workspace is not None and workspace < 1:
        raise ValueError(f"workspace is {workspace}: give the memory in MiB, 1 or more.")
    began = time.perf_counter()
    log = recorder(trt)
    log.messages.clear()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)  # it holds the network's weights, so it must outlive the build
    if not parser.parse(path.read_bytes()):
        raise ValueError(parser_failure(str(path), parser))
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else the engine forgets what its layers were
    if workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace << 20)
    for shapes in profiles:
        profile = builder.create_optimization_profile()
        dims = (trt.Dims([shape[axis] for axis in order]) for shape in vars(shapes).values())
        profile.set_shape(images, *dims)
        config.add_optimization_profile(profile)
    with _shown_progress(trt, config, f"building {Path(plan).name}") if progress else nullcontext():
        serialized = builder.build_serialized_network(network, config)
    del parser
    if serialized is None:
        raise ValueError(builder_failure(str(path), log.errors()))
    content, seconds = bytes(serialized), time.perf_counter() - began
    gpu, capability = _gpu(trt)
    layers = layers_from_log(text for _, text in log.messages)
    if not layers and gpu:  # only the inspector knows them, and it needs the GPU
        inspector = load_engine(trt, plan, content).create_engine_inspector()
        layers = layers_from_inspector(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    precisions = convolution_precisions(layers, [node.name for node in model.graph.node if node.op_type == "Conv"])
    write_plan(plan, content, PlanCard(len(content), gpu, capability, metadata_of(model), precisions))
    return EngineReport(MODULES[trt.__name__], trt.__version__, gpu, len(content), seconds, layers, precisions)


def _gpu(trt: ModuleType) -> tuple[str, str]:
    """Name and compute capability of the GPU that the builder measured on; empty where the plan is bound to none."""
    import torch

    here = trt.__name__ == "tensorrt" and torch.cuda.is_available()
    return (torch.cuda.get_device_name(), ".".join(map(str, torch.cuda.get_device_capability()))) if here else ("", "")


@contextmanager
def _shown_progress(trt: ModuleType, config: Any, description: str) -> Iterator[None]:
    """Show the builder's outermost steps as a bar; an interruption stops the build at its next step."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined, misc]
        outermost: str | None = None
        interrupted = False

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self.outermost, bar.total = phase_name, num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                if phase_name == self.outermost:
                    bar.update()
            except KeyboardInterrupt:  # must not travel through the builder's own code
                self.interrupted = True
            return not self.interrupted

        def phase_finish(self, phase_name: str) -> None: ...

    with progress_bar(1, description, "step") as bar:
        config.progress_monitor = monitor = Monitor()
        yield
        if monitor.interrupted:
            raise KeyboardInterrupt


def load_engine(trt: ModuleType, path: str | Path, content: bytes) -> Any:
    """The engine in these bytes of a plan. Raises ValueError with TensorRT's own reason where it refuses."""
    log = recorder(trt)
    log.messages.clear()
    engine = trt.Runtime(log).deserialize_cuda_engine(content)
    if engine is None:
        reasons = [plain(text) for text in log.errors()]
        raise ValueError(
            f"{path}: TensorRT cannot load the plan ({reasons[0] if reasons else 'no reason given'}): "
            "build it again on this machine with build_engine."
        )
    return engine


@cache
def recorder(trt: ModuleType) -> Any:
    """The one logger of this process for this TensorRT module; `messages` holds (severity, text).

    TensorRT reports through it and returns None. One, because it keeps the first logger it meets for as long as any of
    its objects lives.
    """

    class Recorder(trt.ILogger):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.messages: list[tuple[Any, str]] = []

        def log(self, severity: Any, msg: str) -> None:
            self.messages.append((severity, msg))

        def errors(self) -> list[str]:
            """The errors so far, without the ones that only repeat that there is no GPU to ask."""
            serious = (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR)
            texts = [text for severity, text in self.messages if severity in serious]
            return [text for text in texts if "catchCudaError" not in text] or texts

    return Recorder()


# Of hundreds of lines that TensorRT logs one or two matter: what the message contains -> what to do, the first that
# fits.
ADVICE = {
    "Non-zero zero point": "quantize symmetrically: TensorRT takes only zero-point 0 (rule R3 of check_qdq).",
    "has type UInt8 but must": "put a Cast to float directly behind the uint8 input (rule R12 of check_qdq).",
    "has type Int32 but must have type FP8": "leave the bias in float, without Q and DQ (rule R11 of check_qdq).",
    "Quantized constant .* only allowed before DQ": "let an int8 constant feed only DequantizeLinear (rule R10).",
    "must have same input types|type (Half|Float) but second": "export again: float32 meets float16 without a Cast.",
    "MIN<=OPT<=MAX|isValid": "in each profile let smallest <= typical <= largest hold for every dimension.",
    "no optimization profile|missing dimensions": "the graph has dynamic sizes: give profiles, three shapes each.",
    "[Dd]imension mismatch": "give profile shapes that differ from the graph's only where it is dynamic.",
    "Plugin not found|UNSUPPORTED_NODE|No importer": "export without this operator (NMS stays outside the engine).",
    "ParseFromCodedStream|MODEL_DESERIALIZE_FAILED": "it is not a whole ONNX file: export it again.",
    "Error Code 10|could not find any implementation": "give more workspace, or leave the node in float.",
    "OutOfMemory|out of memory": "the GPU's memory is full: lower workspace or the largest profile.",
    "CUDA driver|cudaError 35|no CUDA-capable device": (
        "this builder needs an NVIDIA GPU with its driver; TensorRT for RTX (pip install tensorrt-rtx) builds without."
    ),
}


def parser_failure(file: str, parser: Any) -> str:
    """One sentence for what an OnnxParser refused in this file: node, operator, reason, advice."""
    if not parser.num_errors:
        return f"{file}: TensorRT cannot read the graph and does not say why; run check_qdq and onnx.checker on it."
    error = parser.get_error(0)
    description, operator = error.desc(), error.node_operator()
    where = f"node '{error.node_name()}' ({operator})" if operator else "the file"
    reason = plain(description)
    reason = "not supported" if reason in ("", "false") else reason  # what the checks of unknown operators leave
    return f"{file}: TensorRT cannot take {where}: {reason}; {_advice(description, getattr(error.code(), 'name', ''))}"


def builder_failure(file: str, errors: list[str]) -> str:
    """One sentence for the errors that the builder logged; the first is the cause, the others follow from it."""
    if not errors:
        return f"{file}: TensorRT built no engine and does not say why."
    return f"{file}: TensorRT cannot build the engine: {plain(errors[0])}; {_advice(*errors)}"


def plain(message: str) -> str:
    """The part of a TensorRT message that says what was wrong: no function names, codes or source lines."""
    lines = [line for line in message.splitlines() if line.strip() and "catchCudaError" not in line]
    line = next((line for line in lines if "Error Code" in line), lines[0] if lines else "")
    line = re.sub(r"^.*?Error Code \d+: [^(]*\((.*)\)$", r"\1", line).strip()
    return re.sub(r"\s*In \w+ at \S+$", "", line).strip().removeprefix("Assertion failed: ").rstrip(" .")


def _advice(*texts: str) -> str:
    """What to do about the first of these texts that is known."""
    known = (advice for text in texts for pattern, advice in ADVICE.items() if re.search(pattern, text))
    return next(known, "run check_qdq on the file.")
