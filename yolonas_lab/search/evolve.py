"""The search: networks that cross and mutate, chosen by AP and time, against networks drawn at random. Notebook 09.

NSGA-II: Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm", 2002, as Optuna has it. Processes that name
the same storage share one search: start the same call several times, on one machine or on many.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolonas_lab.models.configs import YoloNASConfig
from yolonas_lab.progress import progress_bar
from yolonas_lab.search.frontier import Candidate, Frontier
from yolonas_lab.search.space import Space, config_of, size

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

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

    from yolonas_lab.search.sampler import NumberedSampler

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
