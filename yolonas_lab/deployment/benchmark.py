"""How long one image takes, from pixels to boxes, with each engine: preparation, network and NMS apart.

Notebooks 12 and 13. All engines do the same work on the same image, in turn, and are compared by medians with
quartiles: on a shared machine only ratios taken side by side mean anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from yolonas_lab.detect import prepare
from yolonas_lab.models.heads import decode
from yolonas_lab.postprocess import check_thresholds, postprocess
from yolonas_lab.timing import Timing, machine_name, time_side_by_side


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
        return "\n".join([*lines, *(self._line(row, width) for row in self.rows)])

    def _line(self, row: Row, width: int) -> str:
        low, median, high = row.network.low_ms, row.network.median_ms, row.network.high_ms
        quartiles = f"({low:.2f} to {high:.2f})"
        ratio = self.ratio(row.name, self.rows[0].name)
        return (
            f"{row.name:<{width}} {row.prepare.median_ms:8.2f} {median:8.2f}  {quartiles:<17} "
            f"{row.nms.median_ms:5.2f} {row.total_ms:9.2f} {ratio:7.2f}×  {row.found:5d}"
        )

    def numbers(self) -> dict[str, Any]:
        """Everything as plain numbers and texts, to be stored as JSON."""
        return asdict(self)


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
        run = _network(detector, inputs)
        boxes, scores = (tensor.float().cpu() for tensor in run())
        found[name] = len(postprocess(boxes[0], scores[0], conf, iou).scores)
        stages[f"{name}: network"] = run
        stages[f"{name}: NMS"] = lambda b=boxes, s=scores: postprocess(b[0], s[0], conf, iou)
    on_cpu = torch.get_num_threads() == 1 and all(_device(detector).type == "cpu" for detector in detectors.values())
    clock = time.process_time if on_cpu else time.perf_counter
    timings = time_side_by_side(stages, rounds, warmup, clock)
    rows = [
        Row(name, timings["prepare"], timings[f"{name}: network"], timings[f"{name}: NMS"], found[name])
        for name in detectors
    ]
    photograph = f"image of {image.shape[1]}×{image.shape[0]} px at {image_size} px"
    return Benchmark(_machine(), "CPU time" if on_cpu else "wall time", photograph, rounds, rows)


def _network(detector: nn.Module, inputs: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
    """What runs the network on these inputs, decoding included, and waits until the boxes are there."""
    answer = getattr(detector, "boxes_and_scores", None)
    parameter = next(detector.parameters(), None)
    inputs = inputs.to(_device(detector), parameter.dtype if parameter is not None else None)
    on_gpu = _device(detector).type == "cuda"

    def run() -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            found = answer(inputs) if answer is not None else decode(detector(inputs))
        if on_gpu:
            torch.cuda.synchronize()
        return found

    return run


def _device(detector: nn.Module) -> torch.device:
    parameter = next(detector.parameters(), None)
    return parameter.device if parameter is not None else getattr(detector, "device", torch.device("cpu"))


def _machine() -> str:
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return machine_name() + gpu
