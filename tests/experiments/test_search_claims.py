"""The search claims on a few images, steps and networks, with milliseconds that are counted instead of measured."""

import pytest
import torch

from yolonas_lab.data import digest
from yolonas_lab.experiments import rivals, search_frontier, searched_networks, searches
from yolonas_lab.experiments.measure import measure
from yolonas_lab.latency import Frontier, LatencyTable
from yolonas_lab.search import Candidate, choices_of, proxies, smallest
from yolonas_lab.search.latency_model import NetworkTime, NetworkTimes
from yolonas_lab.search.supernet import SUPERNET_SPACE, calibration_batches, load_supernet, score

CLASSES = 6


SHARE = {"float": 1.0, "INT8": 0.5}


class CountedLatency:
    """A microsecond for each thousand multiply-accumulates, half of it in INT8: 3 to 16 ms."""

    def __init__(self, kind="float"):
        self.share = SHARE[kind]
        self.table = LatencyTable("a counting machine", searches.ENGINES[kind], 64, {})

    def predict(self, config):
        return self.share * proxies.macs(config, 64, CLASSES) / 1e6


def counted_ap(config):
    """More for more multiply-accumulates, from 0.35 to 0.8."""
    return (CountedLatency().predict(config) / 25) ** 0.5


def counted_times(configs, image_size, engine, num_classes):
    assert engine in searches.ENGINES.values() and num_classes == CLASSES
    share = SHARE["INT8" if engine == "onnxruntime int8" else "float"]
    macs = [round(proxies.macs(config, image_size, num_classes)) for config in configs]
    times = tuple(NetworkTime(config, count, share * count / 1e6) for config, count in zip(configs, macs))
    return NetworkTimes("a counting machine", engine, image_size, num_classes, times)


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path_factory):
    """Few scenes, in a folder that all these tests share, and nothing is timed."""
    monkeypatch.setenv("YOLONAS_LAB_CACHE", str(tmp_path_factory.getbasetemp() / "searches"))
    monkeypatch.setenv("YOLONAS_LAB_STATIC", "1")
    few = {**searches.SETTINGS, "networks": 6, "scored_images": 8, "batch_norm_images": 8}
    monkeypatch.setattr(searches, "SETTINGS", few)
    monkeypatch.setattr(searches, "latency", CountedLatency)
    images = {"steps": 1, "train_images": 16, "val_images": 6, "calibration_images": 8}
    monkeypatch.setattr(searched_networks, "SETTINGS", {**searched_networks.SETTINGS, **images})
    monkeypatch.setattr(rivals, "time_networks", counted_times)
    monkeypatch.setattr(searches, "_scorer", lambda: counted_ap)
    monkeypatch.setattr(searches, "scorer", lambda val_set: lambda config: counted_ap(config) / 2)
    monkeypatch.setattr(search_frontier, "SETTINGS", {**search_frontier.SETTINGS, "fresh_images": 4})
    torch.set_num_threads(1)


def test_the_frontier_claim_gives_every_number_that_it_promises():
    found = measure(search_frontier, seed=0, budget=1.0)["arms"]  # type: ignore[arg-type]
    assert found.keys() == {"evolution", "random"}
    for numbers in found.values():
        assert set(numbers) == set(search_frontier.METRICS)
        assert 0 <= numbers["mean_ap"] < 1 and 0 <= numbers["ap_fast"] < 1
        # Here fresh scenes are told from the others by half the AP.
        assert numbers["mean_ap_fresh"] == pytest.approx(numbers["mean_ap"] / 2)
        assert numbers["ap_fast_fresh"] == pytest.approx(numbers["ap_fast"] / 2)
    assert search_frontier.data_digest() == digest(searches._drawn().folder)


def test_networks_are_scored_with_the_shipped_supernet(monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setenv("YOLONAS_LAB_CACHE", str(tmp_path))
    few = {**searches.SETTINGS, "scored_images": 8, "batch_norm_images": 8}
    monkeypatch.setattr(searches, "SETTINGS", few)
    images, scored = searches.scenes()
    batches = calibration_batches(images, 64, batches=2, batch_size=4)
    config = smallest(SUPERNET_SPACE)
    ap_of = searches._scorer.__wrapped__()
    assert ap_of(config) == score(load_supernet(), config, batches, scored) > 0.2
    assert ap_of(config) == ap_of(config) and ap_of.cache_info().misses == 1


def test_a_search_is_kept_and_depends_on_seed_and_method(monkeypatch):
    first = searches.search("evolution", "float", 3)
    assert len(first.candidates) == 6
    assert searches.search("evolution", "float", 4) != first
    by_method = [searches.search(method, "float", 3, budget=4).candidates for method in searches.METHODS]
    assert by_method[0][:20] == by_method[1][:20]  # evolution starts at random
    assert by_method[0][20:] != by_method[1][20:]

    def no_search(*arguments, **named):
        raise AssertionError("a search that was done is only read")

    monkeypatch.setattr(searches, "METHODS", {"evolution": no_search})
    assert searches.search("evolution", "float", 3) == first


def test_the_numbers_of_a_frontier_by_hand(monkeypatch):
    config = smallest(SUPERNET_SPACE)
    frontier = Frontier((Candidate(config, 0.4, 4.0), Candidate(config, 0.6, 12.0)))
    monkeypatch.setattr(searches, "search", lambda *arguments: frontier)
    within = CountedLatency().predict(search_frontier.largest(SUPERNET_SPACE))  # 15.7 ms, 0.6 of which are 9.4
    fresh = counted_ap(config) / 2
    numbers = search_frontier.run(0)["random"]
    assert numbers["mean_ap"] == pytest.approx((0.4 * 8 + 0.6 * (within - 12)) / within)
    assert numbers["mean_ap_fresh"] == pytest.approx(fresh * (within - 4) / within)
    assert (numbers["ap_fast"], numbers["ap_fast_fresh"]) == (0.4, fresh)


def test_the_final_trainings_give_every_number_that_they_promise():
    found = measure(searched_networks, seed=0, budget=1.0)["arms"]  # type: ignore[arg-type]
    for arms in searched_networks.COMPARISONS:
        assert found.keys() >= set(arms)
    for numbers in found.values():
        assert set(numbers) == set(searched_networks.METRICS) and 0 <= numbers["ap"] <= 1
        assert numbers["ms"] == numbers["mega_macs"] == pytest.approx(2 * numbers["ms_int8"])
    for size in rivals.BUDGETS:
        assert found[f"searched {size}"]["ms"] <= found[f"hand {size}"]["ms"]
        assert found[f"searched INT8 {size}"]["ms_int8"] <= found[f"hand {size}"]["ms_int8"]


def test_what_was_chosen_and_timed_is_kept(monkeypatch):
    first = rivals.rivals(1)
    assert [arm for arm in first if arm.startswith("hand")] == ["hand small", "hand large", "hand narrow"]

    def no_timing(*arguments, **named):
        raise AssertionError("what was chosen before is only read")

    monkeypatch.setattr(rivals, "time_networks", no_timing)
    again = rivals.rivals(1)
    assert {arm: rival[1:] for arm, rival in again.items()} == {arm: rival[1:] for arm, rival in first.items()}
    assert [choices_of(rival.config) for rival in again.values()] == [choices_of(r.config) for r in first.values()]


def test_the_best_network_that_keeps_the_measured_budget_is_taken(monkeypatch):
    rng_configs = [candidate.config for candidate in searches.search("random", "float", 0).candidates]
    by_ms = sorted(rng_configs, key=CountedLatency().predict)
    # The better, the slower; all are predicted to be fast.
    frontier = Frontier(tuple(Candidate(c, 0.1 * number, 0.001) for number, c in enumerate(by_ms)))
    for rival in (by_ms[2], by_ms[1]):  # the second one in the second group that is measured
        assert rivals.as_fast(frontier, rival, "float") == rival
    rival = by_ms[2]
    slow = Frontier(frontier.candidates[3:])
    with pytest.raises(ValueError, match="No network of 3"):
        rivals.as_fast(slow, rival, "float")
    predicted_slow = Frontier(tuple(c._replace(ms=1e6) for c in frontier.candidates))
    with pytest.raises(ValueError, match="No network of 6"):
        rivals.as_fast(predicted_slow, rival, "float")
