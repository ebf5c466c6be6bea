"""The search claims on a few images, steps and networks, with milliseconds that are counted instead of measured."""

import pytest
import torch
from claims import arms_of, shrink

from yolonas_lab.experiments import find_claim, search
from yolonas_lab.experiments.scenes import dataset
from yolonas_lab.experiments.search import FRONTIER, METHODS, RIVALS, SEARCHED, SEARCHES
from yolonas_lab.latency import Frontier, LatencyTable
from yolonas_lab.search import Candidate, choices_of, proxies, smallest
from yolonas_lab.search.latency_model import NetworkTime, NetworkTimes
from yolonas_lab.search.space import largest
from yolonas_lab.search.supernet import SUPERNET_SPACE, calibration_batches, load_supernet, score

CLASSES = 6
SHARE = {"float": 1.0, "INT8": 0.5}


class CountedLatency:
    """A microsecond for each thousand multiply-accumulates, half of it in INT8: 3 to 16 ms."""

    def __init__(self, kind="float"):
        self.share = SHARE[kind]
        self.table = LatencyTable("a counting machine", search.ENGINES[kind], 64, {})

    def predict(self, config):
        return self.share * proxies.macs(config, 64, CLASSES) / 1e6


def counted_ap(config):
    """More for more multiply-accumulates, from 0.35 to 0.8."""
    return (CountedLatency().predict(config) / 25) ** 0.5


def counted_times(configs, image_size, engine, num_classes):
    assert num_classes == CLASSES
    kind = next(kind for kind, name in search.ENGINES.items() if name == engine)
    macs = [round(proxies.macs(config, image_size, num_classes)) for config in configs]
    times = tuple(NetworkTime(config, count, SHARE[kind] * count / 1e6) for config, count in zip(configs, macs))
    return NetworkTimes("a counting machine", engine, image_size, num_classes, times)


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path_factory):
    """Few scenes, in a folder that all these tests share, and nothing is timed."""
    monkeypatch.setenv("YOLONAS_LAB_CACHE", str(tmp_path_factory.getbasetemp() / "searches"))
    shrink(monkeypatch, SEARCHES, networks=6, scored_images=8, batch_norm_images=8)
    shrink(monkeypatch, SEARCHED, steps=1, train_images=16, val_images=6, calibration_images=8)
    shrink(monkeypatch, FRONTIER, fresh_images=4)
    monkeypatch.setattr(search, "latency", CountedLatency)
    monkeypatch.setattr(search, "time_networks", counted_times)
    monkeypatch.setattr(search, "_scorer", lambda: counted_ap)
    monkeypatch.setattr(search, "scorer", lambda val_set: lambda config: counted_ap(config) / 2)
    torch.set_num_threads(1)


@pytest.mark.slow
def test_the_frontier_claim_gives_every_number_that_it_promises(tmp_path):
    arms = arms_of("search_frontier", tmp_path)
    assert arms.keys() == {"evolution", "random"}
    for numbers in arms.values():
        assert 0 <= numbers["mean_ap"] < 1 and 0 <= numbers["ap_fast"] < 1
        # Here fresh scenes are told from the others by half the AP.
        assert numbers["mean_ap_fresh"] == pytest.approx(numbers["mean_ap"] / 2)
        assert numbers["ap_fast_fresh"] == pytest.approx(numbers["ap_fast"] / 2)
    assert find_claim("search_frontier").data_digest() == search.prepare()


@pytest.mark.slow
def test_networks_are_scored_with_the_shipped_supernet(monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setenv("YOLONAS_LAB_CACHE", str(tmp_path))
    shrink(monkeypatch, SEARCHES, scored_images=8, batch_norm_images=8)
    scored = dataset(search._searched(), "val")
    batches = calibration_batches(dataset(search._searched(), "train"), 64, batches=2, batch_size=4)
    config = smallest(SUPERNET_SPACE)
    ap_of = search.scorer(scored)
    assert ap_of(config) == ap_of(config) == score(load_supernet(), config, batches, scored) > 0.2


@pytest.mark.slow
def test_a_search_is_kept_and_depends_on_seed_and_method(monkeypatch):
    first = search.search("evolution", "float", 3)
    assert len(first.candidates) == 6
    assert search.search("evolution", "float", 4) != first
    by_method = [search.search(method, "float", 3, budget=4).candidates for method in METHODS]
    assert by_method[0][:20] == by_method[1][:20]  # evolution starts at random
    assert by_method[0][20:] != by_method[1][20:]
    monkeypatch.setattr(search, "METHODS", {})  # a search that was done is only read
    assert search.search("evolution", "float", 3) == first


def test_the_numbers_of_a_frontier_by_hand(monkeypatch):
    config = smallest(SUPERNET_SPACE)
    frontier = Frontier((Candidate(config, 0.4, 4.0), Candidate(config, 0.6, 12.0)))
    monkeypatch.setattr(search, "search", lambda *arguments: frontier)
    within = CountedLatency().predict(largest(SUPERNET_SPACE))  # 15.7 ms, 0.6 of which are 9.4
    fresh = counted_ap(config) / 2
    numbers = search.run_search_frontier(0)["random"]
    assert numbers["mean_ap"] == pytest.approx((0.4 * 8 + 0.6 * (within - 12)) / within)
    assert numbers["mean_ap_fresh"] == pytest.approx(fresh * (within - 4) / within)
    assert (numbers["ap_fast"], numbers["ap_fast_fresh"]) == (0.4, fresh)


@pytest.mark.slow
def test_the_final_trainings_give_every_number_that_they_promise(tmp_path):
    arms = arms_of("searched_networks", tmp_path)
    for numbers in arms.values():
        assert 0 <= numbers["ap"] <= 1 and numbers["ms"] == numbers["mega_macs"] == pytest.approx(
            2 * numbers["ms_int8"]
        )
    for size in RIVALS["budgets"]:
        assert arms[f"searched {size}"]["ms"] <= arms[f"hand {size}"]["ms"]
        assert arms[f"searched INT8 {size}"]["ms_int8"] <= arms[f"hand {size}"]["ms_int8"]


@pytest.mark.slow
def test_what_was_chosen_and_timed_is_kept(monkeypatch):
    first = search.rivals(1)
    assert [arm for arm in first if arm.startswith("hand")] == ["hand small", "hand large", "hand narrow"]
    monkeypatch.setattr(search, "time_networks", None)  # what was chosen before is only read
    again = search.rivals(1)
    assert {arm: rival[1:] for arm, rival in again.items()} == {arm: rival[1:] for arm, rival in first.items()}
    assert [choices_of(rival.config) for rival in again.values()] == [choices_of(r.config) for r in first.values()]


def test_the_best_network_that_keeps_the_measured_budget_is_taken():
    configs = [candidate.config for candidate in search.search("random", "float", 0).candidates]
    by_ms = sorted(configs, key=CountedLatency().predict)
    # The better, the slower; all are predicted to be fast.
    frontier = Frontier(tuple(Candidate(c, 0.1 * number, 0.001) for number, c in enumerate(by_ms)))
    for rival in (by_ms[2], by_ms[1]):  # the second one in the second group that is measured
        assert search.as_fast(frontier, rival, "float") == rival
    with pytest.raises(ValueError, match="No network of 3"):
        search.as_fast(Frontier(frontier.candidates[3:]), by_ms[2], "float")
    predicted_slow = Frontier(tuple(c._replace(ms=1e6) for c in frontier.candidates))
    with pytest.raises(ValueError, match="No network of 6"):
        search.as_fast(predicted_slow, by_ms[2], "float")
