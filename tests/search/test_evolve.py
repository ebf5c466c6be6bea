import logging
import math
import multiprocessing
import os
import signal
from dataclasses import replace
from functools import partial

import pytest

from tests.search.spaces import PAIRS, SHARED, TINY, frontier
from yolonas_lab.search import LAB_SPACE, choices_of, proxies, size
from yolonas_lab.search.evolve import evolve, load_frontier, save_frontier, search_at_random
from yolonas_lab.search.supernet import SUPERNET_SPACE

THREE = (8, 16, 24)
WIDE = replace(SHARED, name="wide", stem_channels=THREE, head_channels=(THREE, THREE, THREE))  # 1,296 networks


def cheap_ms(config):
    return proxies.macs(config, 64, 6) / 1e6


def cheap_ap(config, space=WIDE):
    """More of anything is better, of some decisions more than of others: what time is best spent on is to be found."""
    weights = (0.2, 1.0, 3.0)
    gain = sum(
        weights[index % 3] * space.decisions[decision].index(value) / len(space.decisions[decision])
        for index, (decision, value) in enumerate(choices_of(config).items())
    )
    return math.tanh(gain / 20)


def counted(measure, stop_at=None):
    """A measure and the names of those that it was asked for; it stops the search at the n-th network."""
    asked = []

    def measure_and_note(config):
        asked.append(config.name)
        if len(asked) == stop_at:
            raise KeyboardInterrupt
        return measure(config)

    return measure_and_note, asked


def names(found):
    return [candidate.config.name for candidate in found.candidates]


@pytest.mark.slow
def test_evolution_beats_chance_with_as_many_networks():
    ap_of = partial(cheap_ap, space=SUPERNET_SPACE)
    for seed in range(2):
        searched = evolve(SUPERNET_SPACE, ap_of, cheap_ms, networks=80, seed=seed)
        drawn = search_at_random(SUPERNET_SPACE, ap_of, cheap_ms, networks=80, seed=seed)
        assert len(searched.candidates) == len(drawn.candidates) == 80
        assert searched.hypervolume(16) > drawn.hypervolume(16)


def test_candidates_are_what_was_measured_and_the_seed_decides():
    (ap_of, asked), (ms_of, timed) = counted(cheap_ap), counted(cheap_ms)
    found = evolve(WIDE, ap_of, ms_of, networks=24, population=6)
    assert names(found) == asked == timed and len(set(asked)) == 24
    assert all(c.config in WIDE and c.ap == cheap_ap(c.config) and c.ms == cheap_ms(c.config) for c in found.candidates)
    assert evolve(WIDE, cheap_ap, cheap_ms, networks=24, population=6) == found
    assert evolve(WIDE, cheap_ap, cheap_ms, networks=24, population=6, seed=1) != found
    drawn = search_at_random(WIDE, cheap_ap, cheap_ms, networks=24)  # the first generation is the same for both
    assert names(found)[:6] == names(drawn)[:6] and names(found)[6:] != names(drawn)[6:]


def test_a_seed_means_the_same_networks_for_ever():
    """Stored searches were made with them."""
    found = evolve(WIDE, cheap_ap, cheap_ms, networks=10, population=4, seed=3)
    known = ["8c64", "eaa0", "1be9", "029a", "6875", "c04f", "2b5a", "bc49", "8413", "bdae"]
    assert [name.removeprefix("wide_")[:4] for name in names(found)] == known


@pytest.mark.parametrize("search", [evolve, search_at_random])
def test_a_small_space_is_looked_at_once_and_then_it_ends(search):
    ap_of, asked = counted(lambda config: 0.5)
    found = search(SHARED, ap_of, cheap_ms, networks=1000)
    assert len(asked) == len(set(asked)) == len(found.candidates) <= size(SHARED)
    assert len(found.candidates) > size(SHARED) / 2 and len(found.points) == 1


@pytest.mark.slow
def test_an_interrupted_search_goes_on_as_if_it_had_not_been(tmp_path):
    search = partial(evolve, WIDE, ms_of=cheap_ms, storage=tmp_path / "search.db", population=6)
    with pytest.raises(KeyboardInterrupt):
        search(counted(cheap_ap, stop_at=10)[0], networks=20)
    ap_of, asked = counted(cheap_ap)
    found = search(ap_of, networks=20)
    assert len(found.candidates) == 20 == len(set(names(found))) and len(asked) == 11
    assert search(ap_of, networks=20, storage=f"sqlite:///{tmp_path / 'search.db'}") == found and len(asked) == 11
    search(cheap_ap, networks=9, storage=tmp_path / "other.db")  # one that ended between two networks
    assert search(cheap_ap, networks=20, storage=tmp_path / "other.db") == search(cheap_ap, networks=20, storage=None)


def search_in_a_process(storage, log, kill_after):
    def ap_of(config):
        looked_at = [*log.read_text().split(), config.name] if log.exists() else [config.name]
        log.write_text("\n".join(looked_at))
        if len(looked_at) == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        return cheap_ap(config)

    evolve(WIDE, ap_of, cheap_ms, 30, storage, population=8)


@pytest.mark.slow
def test_two_processes_share_a_search_and_one_may_die(tmp_path):
    storage, logs = tmp_path / "search.db", [tmp_path / "one.log", tmp_path / "two.log"]
    start = multiprocessing.get_context("spawn").Process
    processes = [start(target=search_in_a_process, args=(storage, log, n)) for log, n in zip(logs, (None, 4))]
    for process in processes:  # both find no file yet
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, -signal.SIGKILL]
    found = evolve(WIDE, cheap_ap, cheap_ms, networks=1, storage=storage)  # has as many: nothing new is looked at
    looked_at = [log.read_text().split() for log in logs]
    done = set(names(found))
    assert 30 <= len(done) == len(found.candidates) and done <= {*looked_at[0], *looked_at[1]}
    assert done.issuperset(looked_at[1][:3]) and len(looked_at[0]) + 3 <= 30 + 2  # hardly any of them twice


def test_what_cannot_be_searched_is_refused(tmp_path):
    storage = tmp_path / "search.db"
    evolve(WIDE, cheap_ap, cheap_ms, networks=2, storage=storage)
    with pytest.raises(ValueError, match=r"search.db has a search called 'evolve' of another space than shared"):
        evolve(SHARED, cheap_ap, cheap_ms, networks=2, storage=storage)
    search_at_random(SHARED, lambda config: 0.5, cheap_ms, networks=2, storage=storage)  # beside the other
    (tmp_path / "text.db").write_text("no database at all, but long enough to look at " * 9)
    with pytest.raises(ValueError, match=r"text.db cannot be used as a storage: .*not a database"):
        evolve(WIDE, cheap_ap, cheap_ms, storage=tmp_path / "text.db")


def test_an_error_of_a_measure_ends_the_search_and_optuna_is_as_loud_as_before():
    import optuna

    optuna.logging.set_verbosity(logging.INFO)
    with pytest.raises(ZeroDivisionError):
        evolve(WIDE, lambda config: 1 / 0, cheap_ms)
    with pytest.raises(ValueError, match=r"wide_\w+ are nan and"):
        evolve(WIDE, lambda config: math.nan, cheap_ms)
    assert optuna.logging.get_verbosity() == logging.INFO


def test_a_frontier_comes_back_from_its_file_and_another_file_is_named(tmp_path):
    found, path = frontier(PAIRS), tmp_path / "frontier.json"
    assert load_frontier(save_frontier(found, path, TINY), TINY) == found
    with pytest.raises(ValueError, match=r"frontier.json is not a frontier of the space lab: it is of the space tiny"):
        load_frontier(path, LAB_SPACE)
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"frontier.json is not a frontier"):
        load_frontier(path, TINY)
