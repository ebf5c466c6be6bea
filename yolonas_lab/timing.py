"""Honest timing: alternate the candidates, report medians with quartiles, and say on which machine.

Absolute times on a shared machine are noise; ratios of runs taken side by side in one loop are not. Notebook 03
explains it.
"""

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from yolonas_lab.progress import progress


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one candidate over all rounds: the median, and the quartiles around it."""

    name: str
    median_ms: float
    low_ms: float
    high_ms: float

    def __str__(self) -> str:
        return f"{self.name}: {self.median_ms:.1f} ms (quartiles {self.low_ms:.1f} to {self.high_ms:.1f})"


def time_side_by_side(
    candidates: Mapping[str, Callable[[], object]],
    rounds: int = 15,
    warmup: int = 2,
    clock: Callable[[], float] | None = None,
    lead_in: int = 0,
) -> dict[str, Timing]:
    """Time every candidate once per round, in turn, and return its Timing by name.

    `warmup` rounds are run and thrown away. Right before it is timed, a candidate runs `lead_in` times untimed: then it
    finds its own data in the processor's caches, however many others take turns with it. The clock (seconds) defaults
    to the process's CPU time, which other programs on the machine disturb least; it counts all threads, so compare at
    one thread. Raises ValueError for no candidates or no rounds.
    """
    if not candidates or rounds < 1:
        raise ValueError(
            f"There is nothing to time: {len(candidates)} candidates, {rounds} rounds; give at least one of each."
        )
    clock = clock or time.process_time
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for round_index in progress(range(-warmup, rounds), "timing", "round"):
        for name, run in candidates.items():
            for _ in range(lead_in):
                run()
            start = clock()
            run()
            if round_index >= 0:
                seconds[name].append(clock() - start)
    return {name: _summary(name, values) for name, values in seconds.items()}


def _summary(name: str, seconds: list[float]) -> Timing:
    low, median, high = (torch.tensor(seconds, dtype=torch.float64).quantile(q).item() * 1e3 for q in (0.25, 0.5, 0.75))
    return Timing(name, median, low, high)


def machine_name() -> str:
    """The machine in words, to stand beside every number measured on it: processor, cores, threads in use, torch
    version.
    """
    cores = os.cpu_count()
    threads = torch.get_num_threads()
    return f"{_processor()}, {cores} cores, {threads} thread{'s' * (threads != 1)} used, torch {torch.__version__}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:  # not Linux
        names = []
    return names[0] if names else platform.processor() or platform.machine()
