"""The search: networks that cross and mutate, chosen by AP and time, against networks drawn at random. Notebook 09.

NSGA-II: Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm", 2002, as Optuna has it. Processes that name
the same storage share one search: start the same call several times, on one machine or on many.
"""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from yolonas_lab.common import progress_bar, write_json
from yolonas_lab.latency import Frontier
from yolonas_lab.models.configs import YoloNASConfig
from yolonas_lab.search.space import Space, choices_of, config_of, size

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

Measure = Callable[[YoloNASConfig], float]
TRIES = 100  # proposals in a row that were all known: the search has nothing new to say


class Candidate(NamedTuple):
    """A network, its AP in [0, 1] and its milliseconds for one image."""

    config: YoloNASConfig
    ap: float
    ms: float


def evolve(
    space: Space,
    ap_of: Measure,
    ms_of: Measure,
    networks: int = 100,
    storage: str | Path | None = None,
    seed: int = 0,
    population: int = 20,
) -> Frontier:
    """Search for networks with a large ap_of(config) in [0, 1] and a small ms_of(config), by NSGA-II.

    `networks` different ones are looked at in all; the first `population` are drawn at random, and each later one is
    made from the best of those before. It ends early when nothing new is proposed any more. With a storage (a file for
    SQLite, or a database's URL that Optuna knows) the search goes on where it was, also after an error of ap_of or
    ms_of, and several processes share it. The same seed gives the same search in one process. Raises ValueError for a
    storage that cannot be read, and one whose search is of another space.

    >>> from yolonas_lab.search import LAB_SPACE, proxies
    >>> found = evolve(LAB_SPACE, lambda c: c.head_channels[0] / 100, lambda c: proxies.macs(c, 64, 6), 6, population=3)
    >>> len(found.candidates), found.points[-1].ap
    (6, 0.24)
    """
    from optuna.samplers import NSGAIISampler

    sampler = _Numbered(lambda own: NSGAIISampler(population_size=population, seed=own), seed)
    return _search(space, ap_of, ms_of, networks, storage, "evolve", sampler)


def search_at_random(
    space: Space,
    ap_of: Measure,
    ms_of: Measure,
    networks: int = 100,
    storage: str | Path | None = None,
    seed: int = 0,
) -> Frontier:
    """The baseline of `evolve`: the same with every network drawn at random."""
    from optuna.samplers import RandomSampler

    return _search(space, ap_of, ms_of, networks, storage, "random", _Numbered(RandomSampler, seed))


def save_frontier(frontier: Frontier, path: str | Path, space: Space) -> Path:
    """Write all networks that a search of this space looked at as JSON, whole or not at all; returns the path."""
    rows = [{"ap": c.ap, "ms": c.ms, "choices": choices_of(c.config)} for c in frontier.candidates]
    return write_json(path, {"space": space.name, "candidates": rows})


def load_frontier(path: str | Path, space: Space) -> Frontier:
    """Read what `save_frontier` wrote. Raises ValueError naming the file for one that is none or of another space."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content["space"] != space.name:
            raise ValueError(f"it is of the space {content['space']}")
        rows = content["candidates"]
        return Frontier(tuple(Candidate(config_of(space, row["choices"]), row["ap"], row["ms"]) for row in rows))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a frontier of the space {space.name}: {error}") from error


def _search(
    space: Space, ap_of: Measure, ms_of: Measure, networks: int, storage: str | Path | None, name: str, sampler: Any
) -> Frontier:
    import optuna

    database = None if storage is None else _storage(storage)
    loudness = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # else it tells of every study that it opens
    study = optuna.create_study(
        storage=database, sampler=sampler, study_name=name, directions=["maximize", "minimize"], load_if_exists=True
    )
    optuna.logging.set_verbosity(loudness)
    decisions = {decision: list(options) for decision, options in space.decisions.items()}
    if not study.get_trials(deepcopy=False):
        study.set_user_attr("space", decisions)
    elif study.user_attrs.get("space") != decisions:
        raise ValueError(f"{storage} has a search called '{name}' of another space than {space.name}.")
    with progress_bar(networks, "searching", "network") as bar:
        known = _known(study)
        bar.initial = bar.n = len(known)
        tries = 0
        while len(known) < min(networks, size(space)) and tries < TRIES:
            tries = 0 if _try_one(study, space, ap_of, ms_of, known) else tries + 1
            known = _known(study)  # other processes add to it too
            bar.update(len(known) - bar.n)
    only = {decision: options[0] for decision, options in space.decisions.items() if len(options) == 1}
    return Frontier(tuple(Candidate(config_of(space, only | t.params), *t.values) for t in known.values()))


def _try_one(study: Study, space: Space, ap_of: Measure, ms_of: Measure, known: dict[frozenset, FrozenTrial]) -> bool:
    """Let the sampler propose a network and measure it if it is new; whether it was."""
    from optuna.trial import TrialState

    trial = study.ask()
    choices: dict[str, Any] = {
        decision: options[0] if len(options) == 1 else trial.suggest_categorical(decision, options)
        for decision, options in space.decisions.items()
    }
    if frozenset(trial.params.items()) in known:
        study.tell(trial, state=TrialState.FAIL)  # does not exist for the sampler: no network is its own rival
        return False
    config = config_of(space, choices)
    ap, ms = float(ap_of(config)), float(ms_of(config))
    if not (math.isfinite(ap) and math.isfinite(ms)):
        raise ValueError(f"ap_of and ms_of of {config.name} are {ap} and {ms}: give numbers.")
    study.tell(trial, (ap, ms))
    return True


def _known(study: Study) -> dict[frozenset, FrozenTrial]:
    """Every network that has been measured, by its choices, in the order of the search; of two the earlier."""
    from optuna.trial import TrialState

    known: dict[frozenset, FrozenTrial] = {}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        known.setdefault(frozenset(trial.params.items()), trial)
    return known


class _Numbered:
    """An Optuna sampler whose chance comes from the seed and the number of the proposal alone: `make` makes it anew for
    each. One stream of random numbers would be repeated after each resumption, and in every process.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int):
        self.make, self.seed = make, seed
        self.sampler = make(0)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        (own,) = np.random.SeedSequence([self.seed, trial.number]).generate_state(1)
        self.sampler = self.make(int(own))
        self.sampler.before_trial(study, trial)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sampler, name)


def _storage(storage: str | Path, starts: int = 5) -> RDBStorage:
    """A database by its URL, or SQLite by its file; made if it is not there."""
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import DatabaseError, SQLAlchemyError

    try:
        if "://" in str(storage):
            return RDBStorage(str(storage))
        return RDBStorage(f"sqlite:///{storage}", engine_kwargs={"creator": lambda: _connect(storage)})
    except SQLAlchemyError as error:
        if starts > 1 and isinstance(error, DatabaseError):  # processes that start together may make the same tables:
            time.sleep(0.1)  # who comes second finds them at the next try
            return _storage(storage, starts - 1)
        reason = str(error).splitlines()[0]
        raise ValueError(f"{storage} cannot be used as a storage: {reason}.") from error


def _connect(file: str | Path) -> sqlite3.Connection:
    """A connection that does not wait for the disk at each choice; a power cut can cost the last networks, no kill."""
    connection = sqlite3.connect(file, timeout=60, check_same_thread=False)  # seconds, while another process writes
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection
