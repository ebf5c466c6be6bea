"""From an ONNX file to a TensorRT plan, strongly typed: INT8 where the graph has Q/DQ, half where it has float16.

Notebook 13. One way for TensorRT 10.12 and newer, where precision flags and calibrators are gone, and for TensorRT for
RTX, whose builder needs no GPU. The module is passed in: `trt = tensorrt` or `tensorrt_rtx`.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from yolonas_lab.deployment.engine_report import (
    EngineLayer,
    EngineReport,
    convolution_precisions,
    layers_from_inspector,
    layers_from_log,
)
from yolonas_lab.deployment.plan_file import PlanCard, write_plan
from yolonas_lab.deployment.plan_input import EngineSource, Profile, read_source
from yolonas_lab.deployment.tensorrt_log import builder_failure, parser_failure, plain, recorder
from yolonas_lab.progress import progress_bar
from yolonas_lab.suggest import unknown_name
from yolonas_lab.training.files import write_atomically

MODULES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT for RTX"}
OLDEST = (10, 12)  # of TensorRT; what came before knows other ways to INT8


def find_tensorrt(name: str | None = None) -> ModuleType:
    """The module of this name, "tensorrt" or "tensorrt_rtx"; without a name the first of the two that is installed.

    Raises ImportError with the pip command where it is missing, ValueError for a TensorRT older than 10.12.
    """
    if name is not None and name not in MODULES:
        raise ValueError(unknown_name("TensorRT module", name, MODULES))
    for module_name in [name] if name else MODULES:
        if find_spec(module_name) is not None:
            trt = importlib.import_module(module_name)
            if hasattr(trt, "Builder"):  # type stubs leave an empty module of that name behind
                _check_age(trt)
                return trt
    if name == "tensorrt":
        raise ImportError("tensorrt is not installed: pip install 'yolonas-lab[tensorrt]' (it needs an NVIDIA GPU).")
    raise ImportError(
        f"{name or 'Neither tensorrt nor tensorrt_rtx'} is {'not ' if name else ''}installed: "
        "pip install 'yolonas-lab[tensorrt-rtx]' (its builder runs without a GPU)."
    )


def _check_age(trt: ModuleType) -> None:
    version = tuple(int(part) for part in trt.__version__.split(".")[:2])
    if trt.__name__ == "tensorrt" and version < OLDEST:
        raise ValueError(
            f"TensorRT {trt.__version__} is installed, and 10.12 or newer is needed: pip install --upgrade tensorrt."
        )


def build_engine(
    onnx: str | Path,
    plan: str | Path,
    trt: ModuleType | None = None,
    profiles: Sequence[Profile] = (),
    workspace: int | None = None,
    timing_cache: str | Path | None = None,
    progress: bool = True,
) -> EngineReport:
    """Build the plan of an ONNX file, write it with its card (plan.json) beside it, and report each layer's precision.

    trt is the module `tensorrt` or `tensorrt_rtx` (default: whichever is installed). profiles are needed for a graph
    with dynamic sizes. workspace is the GPU memory in MiB that kernels may use while they compute. timing_cache is a
    file that keeps TensorRT's measurements for the next build (TensorRT for RTX measures nothing, and ignores it).
    Raises ValueError with node and advice for a graph that TensorRT refuses, ImportError where it is missing.
    """
    source, target = Path(onnx), Path(plan)
    trt = trt or find_tensorrt()
    graph = read_source(source)
    _check_profiles(graph, profiles)
    began = time.perf_counter()
    log = recorder(trt)
    log.clear()
    builder = trt.Builder(log)
    network, parser = _parse(trt, builder, graph)
    config = _config(trt, builder, graph, profiles, workspace)
    with ExitStack() as stack:
        if timing_cache is not None and trt.__name__ == "tensorrt":
            stack.enter_context(_timing_cache(config, Path(timing_cache)))
        if progress:
            stack.enter_context(_shown_progress(trt, config, f"building {target.name}"))
        content = builder.build_serialized_network(network, config)
    if content is None:
        raise ValueError(builder_failure(str(source), log.errors()))
    del parser  # until here the network used the weights that it holds
    return _written(trt, graph, target, bytes(content), time.perf_counter() - began)


def _parse(trt: ModuleType, builder: Any, graph: EngineSource) -> tuple[Any, Any]:
    """The network of a graph, and the parser, which owns its weights."""
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, recorder(trt))
    if not parser.parse(graph.path.read_bytes()):
        raise ValueError(parser_failure(str(graph.path), parser))
    return network, parser


def _config(
    trt: ModuleType,
    builder: Any,
    graph: EngineSource,
    profiles: Sequence[Profile],
    workspace: int | None,
) -> Any:
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else the engine forgets what its layers were
    if workspace is not None:
        if workspace < 1:
            raise ValueError(f"workspace is {workspace}: give the memory in MiB, 1 or more.")
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace << 20)
    for shapes in profiles:
        profile = builder.create_optimization_profile()
        profile.set_shape(graph.input_name, *(trt.Dims(list(graph.as_input(shape))) for shape in vars(shapes).values()))
        config.add_optimization_profile(profile)
    return config


def _written(trt: ModuleType, graph: EngineSource, target: Path, content: bytes, seconds: float) -> EngineReport:
    """Write plan and card, and report."""
    gpu, capability = _gpu(trt)
    layers = layers_from_log(text for _, text in recorder(trt).messages)
    if not layers and gpu:
        layers = inspect_engine(trt, target, content)
    precisions = convolution_precisions(layers, graph.convolutions)
    write_plan(target, content, PlanCard(len(content), gpu, capability, graph.metadata, precisions))
    return EngineReport(MODULES[trt.__name__], trt.__version__, gpu, len(content), seconds, layers, precisions)


def load_engine(trt: ModuleType, path: Path, content: bytes) -> Any:
    """The engine in these bytes of a plan. Raises ValueError with TensorRT's own reason where it refuses."""
    log = recorder(trt)
    log.clear()
    engine = trt.Runtime(log).deserialize_cuda_engine(content)
    if engine is None:
        reasons = [plain(text) for text in log.errors()]
        raise ValueError(
            f"{path}: TensorRT cannot load the plan ({reasons[0] if reasons else 'no reason given'}): "
            "build it again on this machine with build_engine."
        )
    return engine


def inspect_engine(trt: ModuleType, path: Path, content: bytes) -> list[EngineLayer]:
    """The layers that the engine inspector finds in a plan; needs the GPU that the plan was built for."""
    engine = load_engine(trt, path, content)
    information = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    return layers_from_inspector(information)


def _gpu(trt: ModuleType) -> tuple[str, str]:
    """Name and compute capability of the GPU that the builder measured on; empty where the plan is bound to none."""
    import torch

    if trt.__name__ != "tensorrt" or not torch.cuda.is_available():
        return "", ""
    major, minor = torch.cuda.get_device_capability()
    return torch.cuda.get_device_name(), f"{major}.{minor}"


@contextmanager
def _timing_cache(config: Any, path: Path) -> Iterator[None]:
    """Let the builder start from what this file remembers, and remember more afterwards."""
    content = path.read_bytes() if path.is_file() else b""
    config.set_timing_cache(config.create_timing_cache(content), False)
    yield
    serialized = bytes(config.get_timing_cache().serialize())
    write_atomically(path, lambda file: file.write(serialized))


@contextmanager
def _shown_progress(trt: ModuleType, config: Any, description: str) -> Iterator[None]:
    """Show the builder's outermost steps as a bar; an interruption stops the build at its next step."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.outermost: str | None = None
            self.interrupted = False

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self.outermost = phase_name
                bar.total = num_steps
            else:
                bar.set_postfix_str(phase_name, refresh=False)

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                if phase_name == self.outermost:
                    bar.update()
            except KeyboardInterrupt:  # must not travel through the builder's own code
                self.interrupted = True
            return not self.interrupted

        def phase_finish(self, phase_name: str) -> None:
            pass

    with progress_bar(1, description, "step") as bar:
        monitor = Monitor()
        config.progress_monitor = monitor
        yield
        if monitor.interrupted:
            raise KeyboardInterrupt


def _check_profiles(graph: EngineSource, profiles: Sequence[Profile]) -> None:
    if graph.is_dynamic and not profiles:
        raise ValueError(
            f"{graph.path} takes images of shape {graph.shape}: give profiles=[Profile(smallest, typical, largest)], "
            "each a shape (b, 3, h, w), to say for which sizes the plan is built."
        )
    if profiles and not graph.is_dynamic:
        raise ValueError(f"{graph.path} takes images of one shape, {graph.shape}: leave profiles out.")
