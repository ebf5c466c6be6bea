"""How long one image takes, from pixels to boxes, with each engine: preparation, network and NMS apart.

Notebooks 12 and 13. All engines do the same work on the same image, in turn, and are compared by medians with
quartiles: on a shared machine only ratios taken side by side mean anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from yolonas_lab.common import Timing, machine_name, time_side_by_side
from yolonas_lab.deployment.detectors import ExportedDetector, OnnxDetector, OpenVinoDetector, TensorRTDetector
from yolonas_lab.deployment.export import export_onnx
from yolonas_lab.deployment.tensorrt import build_engine, find_tensorrt
from yolonas_lab.detect import check_thresholds, postprocess, prepare
from yolonas_lab.models.reparameterize import reparameterize
from yolonas_lab.models.yolo_nas import RawPredictions, YoloNAS, decode
from yolonas_lab.quantization import QuantPolicy, calibrate, quantize

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = ("torch", "onnxruntime", "openvino", "tensorrt")  # what a machine may run a model with


@dataclass(frozen=True)
class Row:
    """One engine: the Timing of each stage, and how many objects it found (engines that differ here do other work)."""

    name: str
    prepare: Timing
    network: Timing
    nms: Timing
    found: int

    @property
    def total_ms(self) -> float:
        """The sum of the medians of the three stages."""
        return self.prepare.median_ms + self.network.median_ms + self.nms.median_ms


@dataclass(frozen=True)
class Benchmark:
    """One row per engine, in the order given, with where and how they were measured."""

    machine: str
    clock: str
    image: str  # size of the photograph and of the network's input
    rounds: int
    rows: list[Row]

    def ratio(self, name: str, to: str) -> float:
        """The network's median with one engine, divided by that with another."""
        medians = {row.name: row.network.median_ms for row in self.rows}
        return medians[name] / medians[to]

    def __str__(self) -> str:
        width = max(len(row.name) for row in self.rows)
        lines = [
            f"{self.machine}; {self.clock}; {self.image}; medians of {self.rounds} alternating rounds, ms",
            f"{'':<{width}}  prepare  network  (quartiles)         NMS     total  network  found",
        ]
        for row in self.rows:
            ms, ratio = row.network, self.ratio(row.name, self.rows[0].name)
            lines.append(
                f"{row.name:<{width}} {row.prepare.median_ms:8.2f} {ms.median_ms:8.2f}  "
                f"{f'({ms.low_ms:.2f} to {ms.high_ms:.2f})':<17} "
                f"{row.nms.median_ms:5.2f} {row.total_ms:9.2f} {ratio:7.2f}×  {row.found:5d}"
            )
        return "\n".join(lines)


def benchmark(
    detectors: Mapping[str, nn.Module],
    image: np.ndarray,
    image_size: int,
    conf: float = 0.25,
    iou: float = 0.7,
    rounds: int = 15,
    warmup: int = 3,
) -> Benchmark:
    """Time each detector on one image (h, w, 3) uint8 RGB, fitted into image_size px: models, OnnxDetector, … by name.

    At one thread on a CPU the clock is the process's CPU time, which other programs disturb least; with more threads,
    or a GPU, it is wall time, and the GPU is waited for. A GPU finds the input in its memory: copying it there is not
    in the network's time. Raises ValueError for no detectors and bad settings.
    """
    check_thresholds(conf, iou)
    if not detectors:
        raise ValueError("There is no detector to time: give at least one.")
    inputs, _ = prepare([image], image_size)
    stages: dict[str, Callable[[], object]] = {"prepare": lambda: prepare([image], image_size)}
    found = {}
    for name, detector in detectors.items():
        stages[f"{name}: network"] = run = _network(detector, inputs)
        boxes, scores = (tensor[0].float().cpu() for tensor in run())
        stages[f"{name}: NMS"] = suppress = lambda b=boxes, s=scores: postprocess(b, s, conf, iou)
        found[name] = len(suppress().scores)
    on_cpu = torch.get_num_threads() == 1 and all(_device(detector).type == "cpu" for detector in detectors.values())
    timings = time_side_by_side(stages, rounds, warmup, time.process_time if on_cpu else time.perf_counter)
    rows = [Row(n, timings["prepare"], timings[f"{n}: network"], timings[f"{n}: NMS"], found[n]) for n in detectors]
    machine = machine_name() + (f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "")
    photograph = f"image of {image.shape[1]}×{image.shape[0]} px at {image_size} px"
    return Benchmark(machine, "CPU time" if on_cpu else "wall time", photograph, rounds, rows)


def _network(detector: nn.Module, inputs: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
    """What runs the network on these inputs, decoding included, and waits until the boxes are there."""
    device, parameter = _device(detector), next(detector.parameters(), None)
    inputs = inputs.to(device, parameter.dtype if parameter is not None else None)

    def run() -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            output = detector(inputs)
            found = decode(output) if isinstance(output, RawPredictions) else output
        if device.type == "cuda":
            torch.cuda.synchronize()
        return found

    return run


def _device(detector: nn.Module) -> torch.device:
    parameter = next(detector.parameters(), None)
    return parameter.device if parameter is not None else getattr(detector, "device", torch.device("cpu"))


def plot_waterfall(result: Benchmark, ax: Axes) -> Axes:
    """Draw each engine's preparation, network (whiskers: quartiles) and NMS, one after the other."""
    colors = {"prepare": "#BBBBBB", "network": "#4B3F9E", "NMS": "#E69F00"}
    for y, row in enumerate(result.rows):
        start = 0.0
        for stage, timing in zip(colors, (row.prepare, row.network, row.nms)):
            ax.barh(y, timing.median_ms, left=start, color=colors[stage], label=stage if y == 0 else None)
            start += timing.median_ms
        low, high = (row.prepare.median_ms + ms for ms in (row.network.low_ms, row.network.high_ms))
        ax.plot([low, high], [y, y], color="black", linewidth=1)
        ax.annotate(f"{row.total_ms:.1f} ms", (max(start, high), y), (4, 0), textcoords="offset points", va="center")
    ax.set_yticks(range(len(result.rows)), [row.name for row in result.rows])
    ax.invert_yaxis()
    ax.margins(x=0.15)
    ax.set(xlim=(0, None), xlabel=f"ms per image ({result.clock}), {result.image}")
    ax.set_title(result.machine, fontsize="small")
    ax.legend(loc="lower right")
    return ax


def missing_kinds() -> dict[str, str]:
    """Those of KINDS that cannot be timed here, and why."""
    missing = {}
    if find_spec("openvino") is None:
        missing["openvino"] = "not installed: pip install 'yolonas-lab[openvino]'"
    if not torch.cuda.is_available():
        missing["tensorrt"] = "no NVIDIA GPU that torch can use: plans can be built here, but not timed"
    elif find_spec("tensorrt") is None and find_spec("tensorrt_rtx") is None:
        missing["tensorrt"] = "not installed: pip install 'yolonas-lab[tensorrt]'"
    return missing


def engines_for(
    model: YoloNAS, image: np.ndarray, image_size: int, folder: Path, threads: int, kinds: Sequence[str] = KINDS
) -> dict[str, nn.Module]:
    """The model as it is, fused, and exported in float and INT8 to `folder`, ready to run at image_size px, by name.

    INT8 is calibrated with the one image (h, w, 3), which is enough to time it and far too little to use it.
    """

    def int8(policy: QuantPolicy) -> YoloNAS:
        return calibrate(quantize(model, policy), [prepare([image], image_size)[0]], method="max")

    engines: dict[str, nn.Module] = {}
    if "torch" in kinds:
        engines |= {"torch": model, "torch, fused": reparameterize(model)}
    if {"onnxruntime", "openvino"}.intersection(kinds):
        sources = {"": model, ", INT8": int8(QuantPolicy.cpu())}
        files = {name: export_onnx(source, folder / f"cpu{name}.onnx", image_size) for name, source in sources.items()}
        if "onnxruntime" in kinds:
            engines |= {f"onnxruntime{name}": OnnxDetector(file, threads) for name, file in files.items()}
        if "openvino" in kinds:
            engines |= {f"OpenVINO{name}": OpenVinoDetector(file, threads) for name, file in files.items()}
    if "tensorrt" in kinds:
        trt = find_tensorrt()
        engines["torch, fused, on the GPU"] = reparameterize(model).cuda()
        for name, source in {"TensorRT, half": model, "TensorRT, INT8": int8(QuantPolicy.tensorrt())}.items():
            plan = folder / f"{name}.plan"
            build_engine(export_onnx(source, folder / f"{name}.onnx", image_size, precision="float16"), plan, trt)
            engines[name] = TensorRTDetector(plan, trt)
            engines[f"{name}, CUDA graph"] = TensorRTDetector(plan, trt, cuda_graph=True)
    return engines


def file_detector(path: Path, threads: int) -> ExportedDetector:
    """The detector for an exported file: onnxruntime for .onnx, TensorRT for .plan. Raises ValueError for others."""
    if path.suffix not in (".onnx", ".plan"):
        raise ValueError(f"{path} is neither an .onnx file nor a .plan: give files of `export` and `build-engine`.")
    return OnnxDetector(path, threads) if path.suffix == ".onnx" else TensorRTDetector(path)
