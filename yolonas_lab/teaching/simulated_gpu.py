"""A GPU that exists in numbers only: it works while the CPU goes on, starts slowly, gets warm, and is interrupted.

Notebook 13 tests a stopwatch on it: unlike on a real machine, the right answer is known to the last digit.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

LAUNCH_MS = 0.2  # what the CPU needs to hand work over


@dataclass
class SimulatedGpu:
    """Engines by name with the ms that one image takes; all times below in ms.

    The first `slow_runs` of each engine take `slow_ms` longer, each run makes the later ones slower by the share
    `warming`, and every `interrupted`-th run (0: none) takes 300 ms longer.
    """

    engines: dict[str, float]
    slow_runs: int = 0
    slow_ms: float = 400.0
    warming: float = 0.0
    interrupted: int = 0
    now: float = 0.0
    busy_until: float = 0.0
    runs: list[str] = field(default_factory=list)

    def candidates(self) -> dict[str, Callable[[], None]]:
        """One function per engine, which hands the work to the GPU and comes back before it is done."""
        return {name: partial(self._launch, name) for name in self.engines}

    def wait(self) -> None:
        """Return when the GPU has finished everything (torch.cuda.synchronize on a real one)."""
        self.now = max(self.now, self.busy_until)

    def clock(self) -> float:
        """Seconds since the machine was switched on (time.perf_counter on a real one)."""
        return self.now / 1e3

    def _launch(self, name: str) -> None:
        ms = self.engines[name] * (1 + self.warming * len(self.runs))
        ms += self.slow_ms * (self.runs.count(name) < self.slow_runs)
        self.runs.append(name)
        ms += 300.0 * (self.interrupted > 0 and len(self.runs) % self.interrupted == 0)
        self.now += LAUNCH_MS
        self.busy_until = max(self.now, self.busy_until) + ms
