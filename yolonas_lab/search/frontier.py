"""What a search found: of all networks those that no other beats in both AP and time. Notebook 09 chooses from them.

Pareto dominance and the hypervolume that a frontier covers: Zitzler and Thiele, "Multiobjective Evolutionary
Algorithms: A Comparative Case Study and the Strength Pareto Approach", 1999.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from yolonas_lab.models.configs import YoloNASConfig
from yolonas_lab.search.space import Space, choices_of, config_of
from yolonas_lab.training.files import write_atomically

CLOUD_COLOR, FRONTIER_COLOR = "#BBBBBB", "#111111"


class Candidate(NamedTuple):
    """A network, its AP in [0, 1] and its milliseconds for one image."""

    config: YoloNASConfig
    ap: float
    ms: float


@dataclass(frozen=True)
class Frontier:
    """All networks that a search looked at, in the order of the search. `points` are the best of them."""

    space: str  # the name of the space that they are from
    candidates: tuple[Candidate, ...]

    @cached_property
    def points(self) -> tuple[Candidate, ...]:
        """Those that no other beats, the fastest first; each is better than those before it."""
        pairs = [(candidate.ap, candidate.ms) for candidate in self.candidates]
        return tuple(self.candidates[index] for index in pareto_front(pairs))

    def best(self, budget_ms: float) -> Candidate:
        """The network with the largest AP that takes at most budget_ms milliseconds.

        Raises ValueError where none does, naming the time of the fastest.
        """
        fitting = [point for point in self.points if point.ms <= budget_ms]
        if not fitting:
            fastest = f"; the fastest there is takes {self.points[0].ms:.3g} ms" if self.points else ""
            raise ValueError(f"No network fits under {budget_ms:.3g} ms{fastest}.")
        return fitting[-1]

    def hypervolume(self, within_ms: float) -> float:
        """AP · ms: the area under the frontier from 0 to within_ms. The larger, the better; of two searches compare it
        at the same within_ms. Divided by within_ms it is the mean AP over all budgets, no network counting 0.
        """
        return area_under(self.points, within_ms)

    def plot(self, ax: Any = None, label: str | None = None, color: str = FRONTIER_COLOR) -> Any:
        """Draw every network as a pale dot and the frontier as stairs over the budget; returns the axes."""
        import matplotlib.pyplot as plt

        ax = ax if ax is not None else plt.subplots()[1]
        ax.scatter([c.ms for c in self.candidates], [c.ap for c in self.candidates], s=12, color=CLOUD_COLOR, zorder=1)
        ms, ap = [p.ms for p in self.points], [p.ap for p in self.points]
        ax.plot(ms, ap, "o-", drawstyle="steps-post", color=color, markersize=5, label=label or "frontier", zorder=2)
        ax.set(xlabel="latency in ms", ylabel="AP", title=f"{len(self.points)} of {len(self.candidates)} networks")
        ax.legend(loc="lower right")
        return ax

    def save(self, path: str | Path) -> Path:
        """Write all networks as JSON, atomically; returns the path."""
        rows = [{"ap": c.ap, "ms": c.ms, "choices": choices_of(c.config)} for c in self.candidates]
        text = json.dumps({"space": self.space, "candidates": rows}, indent=1) + "\n"
        return write_atomically(Path(path), lambda file: file.write(text.encode()))


def area_under(points: Sequence[Candidate], within_ms: float) -> float:
    """AP · ms: the area under stairs through these points, the fastest first, from 0 to within_ms."""
    inside = [point for point in points if point.ms < within_ms]
    ends = [point.ms for point in inside[1:]] + [within_ms]
    return sum(point.ap * (end - point.ms) for point, end in zip(inside, ends))


def load_frontier(path: str | Path, space: Space) -> Frontier:
    """Read what `Frontier.save` wrote. Raises FileNotFoundError, and ValueError naming the file for one that is none
    or is of another space.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        name = content["space"]
        rows = [(dict(row["choices"]), float(row["ap"]), float(row["ms"])) for row in content["candidates"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a frontier: {error}") from error
    if name != space.name:
        raise ValueError(f"{path} is a frontier of the space {name}, not of {space.name}.")
    try:
        return Frontier(name, tuple(Candidate(config_of(space, choices), ap, ms) for choices, ap, ms in rows))
    except ValueError as error:
        raise ValueError(f"{path} holds a network that is not in {space.name}: {error}") from error


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which points (AP, ms) are beaten by none, as indices in the order of their ms.

    A point is beaten by one with as large an AP and as few ms, one of the two better. Of equal points the first counts.
    Raises ValueError for NaN.
    """
    if any(math.isnan(value) for point in points for value in point):
        raise ValueError("A point of the frontier is NaN: leave out networks without an AP or a time.")
    best, front = -math.inf, []
    for index in sorted(range(len(points)), key=lambda i: (points[i][1], -points[i][0])):
        if points[index][0] > best:
            best = points[index][0]
            front.append(index)
    return front
