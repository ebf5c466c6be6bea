"""The search: networks that cross and mutate, chosen by AP and time, against networks drawn at random. Notebook 09.

NSGA-II: Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm", 2002, as Optuna has it. Processes that name
the same storage share one search: start the same call several times, on one machine or on many.
"""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from yolonas_lab.common import progress_bar, write_atomically
from yolonas_lab.models.configs import YoloNASConfig
from yolonas_lab.search.space import Space, choices_of, config_of, size

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial


# What a search found: of all networks those that no other beats in both AP and time. Notebook 09 chooses from them.
#
# Pareto dominance and the hypervolume that a frontier covers: Zitzler and Thiele, "Multiobjective Evolutionary
# Algorithms: A Comparative Case Study and the Strength Pareto Approach", 1999.

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


Measure = Callable[[YoloNASConfig], float]
TRIES = 100  # proposals in a row that were all known: the search has nothing new to say
LOCKED = 60  # seconds to wait for another process that writes to the same file
STARTS = 5  # of processes that may make the tables of a new storage at once


def evolve(
    space: Space,
    ap_of: Measure,
    ms_of: Measure,
    networks: int = 100,
    storage: str | Path | None = None,
    name: str = "evolve",
    seed: int = 0,
    population: int = 20,
) -> Frontier:
    """Search for networks with a large ap_of(config) in [0, 1] and a small ms_of(config), by NSGA-II.

    `networks` different ones are looked at in all, none twice; the first `population` are drawn at random, and each
    later one is made from the best of those before. With a storage (a file for SQLite, or a database's URL that Optuna
    knows), the search called `name` goes on where it was, and several processes share it: each adds to it until there
    are `networks`. The same seed gives the same search in one process. It ends early when nothing new is proposed any
    more. Raises ValueError for settings that cannot work, a storage that cannot be read, and one whose search is of
    another space; an error of ap_of or ms_of ends the search, and what was found before is in the storage.
    """
    from optuna.samplers import NSGAIISampler

    if population < 2:
        raise ValueError(f"population is {population}: give at least 2, for two parents.")
    return _search(
        space, ap_of, ms_of, networks, storage, name, seed, lambda s: NSGAIISampler(population_size=population, seed=s)
    )


def search_at_random(
    space: Space,
    ap_of: Measure,
    ms_of: Measure,
    networks: int = 100,
    storage: str | Path | None = None,
    name: str = "random",
    seed: int = 0,
) -> Frontier:
    """The baseline of `evolve`: the same with every network drawn at random."""
    from optuna.samplers import RandomSampler

    return _search(space, ap_of, ms_of, networks, storage, name, seed, lambda s: RandomSampler(seed=s))


def load_search(space: Space, storage: str | Path, name: str = "evolve") -> Frontier:
    """What a search has found so far, also while it runs.

    Raises ValueError where the storage has none of this name, and as `evolve`.
    """
    with _quiet():
        import optuna

        try:
            study = optuna.load_study(study_name=name, storage=_storage(storage))
        except KeyError as error:
            raise ValueError(f"{storage} has no search called '{name}'.") from error
        _check_space(study, space, storage)
        return _frontier(study, space)


def _search(
    space: Space,
    ap_of: Measure,
    ms_of: Measure,
    networks: int,
    storage: str | Path | None,
    name: str,
    seed: int,
    make_sampler: Callable[[int], BaseSampler],
) -> Frontier:
    import optuna

    from yolonas_lab.search.space import NumberedSampler

    if networks < 1:
        raise ValueError(f"networks is {networks}: give at least 1.")
    with _quiet():
        study = optuna.create_study(
            storage=None if storage is None else _storage(storage),
            sampler=NumberedSampler(make_sampler, seed),
            study_name=name,
            directions=["maximize", "minimize"],
            load_if_exists=True,
        )
        _check_space(study, space, storage)
        with progress_bar(networks, "searching", "network") as bar:
            known = _known(study)
            bar.initial = bar.n = len(known)
            tries = 0
            while len(known) < min(networks, size(space)) and tries < TRIES:
                tries = 0 if _try_one(study, space, ap_of, ms_of, known) else tries + 1
                known = _known(study)  # other processes add to it too
                bar.update(len(known) - bar.n)
        return _frontier(study, space)


def _try_one(study: Study, space: Space, ap_of: Measure, ms_of: Measure, known: set[frozenset]) -> bool:
    """Let the sampler propose a network and measure it if it is new; whether it was."""
    from optuna.trial import TrialState

    trial = study.ask()
    try:
        choices: dict[str, Any] = {
            decision: options[0] if len(options) == 1 else trial.suggest_categorical(decision, options)
            for decision, options in space.decisions.items()
        }
        new = frozenset(trial.params.items()) not in known
        if new:
            config = config_of(space, choices)
            study.tell(trial, (float(ap_of(config)), float(ms_of(config))))
        else:  # what failed does not exist for the sampler: no network is its own rival
            study.tell(trial, state=TrialState.FAIL)
    except BaseException:
        study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        raise
    return new


def _complete(study: Study) -> list[FrozenTrial]:
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _known(study: Study) -> set[frozenset]:
    """The choices of every network that has been measured."""
    return {frozenset(trial.params.items()) for trial in _complete(study)}


def _frontier(study: Study, space: Space) -> Frontier:
    only = {decision: options[0] for decision, options in space.decisions.items() if len(options) == 1}
    found = {frozenset(trial.params.items()): trial for trial in reversed(_complete(study))}  # of two the earlier
    candidates = [Candidate(config_of(space, only | trial.params), *trial.values) for trial in reversed(found.values())]
    return Frontier(space.name, tuple(candidates))


def _check_space(study: Study, space: Space, storage: str | Path | None) -> None:
    decisions = {decision: list(options) for decision, options in space.decisions.items()}
    there = study.user_attrs.get("space")
    if there is None and not study.trials:
        study.set_user_attr("space", decisions)
    elif there != decisions:
        raise ValueError(
            f"{storage} has a search called '{study.study_name}' of another space than {space.name}: give another name."
        )


def _storage(storage: str | Path) -> BaseStorage:
    """A database by its URL, or SQLite by its file; made if it is not there."""
    from optuna.storages import RDBStorage
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import DatabaseError, SQLAlchemyError

    url = str(storage) if "://" in str(storage) else f"sqlite:///{Path(storage).absolute()}"
    for start in range(STARTS):
        try:
            file = make_url(url).database if url.startswith("sqlite") else None
            return RDBStorage(url, engine_kwargs={"creator": partial(_connect, file)} if file else {})
        except SQLAlchemyError as error:
            # Processes that start together may make the same tables; who comes second finds them at the next try.
            if start == STARTS - 1 or not isinstance(error, DatabaseError):
                raise ValueError(f"{storage} cannot be used as a storage: {_first_line(error)}.") from error
            time.sleep(0.1 * start)
    raise AssertionError("the last start returns or raises")


def _connect(file: str) -> sqlite3.Connection:
    """A connection that does not wait for the disk at each of the dozens of choices of a network.

    A power cut can cost the last networks, a killed process none; the file stays whole in either case.
    """
    connection = sqlite3.connect(file, timeout=LOCKED, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna tells of every study that it opens; the progress bar is enough."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
