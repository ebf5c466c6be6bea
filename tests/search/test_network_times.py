from dataclasses import replace

import numpy as np
import pytest
import torch
from small_space import TINY, seeded

from yolonas_lab.models import YoloNAS
from yolonas_lab.search import (
    LAB_SPACE,
    NetworkTime,
    NetworkTimes,
    count_macs,
    largest,
    most_unequal_pair,
    network_layers,
    sample,
    smallest,
    spread_sample,
    time_networks,
)
from yolonas_lab.teaching.lessons.nb04 import network_cost


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def test_networks_are_timed_in_the_order_given_with_their_counts():
    configs = [largest(TINY), smallest(TINY), smallest(TINY)]
    found = time_networks(configs, 32, num_classes=2, rounds=2)
    assert [time.config for time in found] == configs and len(found) == 3
    assert [time.macs for time in found] == [sum(c.macs for c in network_cost(x, 32, 2)) for x in configs]
    assert all(time.ms > 0 for time in found)
    assert (found.engine, found.image_size, found.num_classes) == ("torch", 32, 2)


@pytest.mark.parametrize("engine", ["onnxruntime", "onnxruntime int8"])
def test_onnxruntime_runs_the_exported_network(engine, monkeypatch):
    pytest.importorskip("onnxruntime")
    import yolonas_lab.search.latency_model as module

    sessions, open_session = [], module.onnx_session
    monkeypatch.setattr(
        module, "onnx_session", lambda graph: sessions.append((graph, open_session(graph))) or sessions[-1][1]
    )
    found = time_networks([smallest(TINY)], 32, engine, num_classes=2, rounds=1)
    ((graph, session),) = sessions
    assert found.times[0].ms > 0 and "onnxruntime" in found.machine
    assert [output.name for output in session.get_outputs()] == ["boxes", "scores"]
    assert session.get_outputs()[1].shape == [1, 16 + 4 + 1, 2]
    assert (b"QuantizeLinear" in graph) == (engine == "onnxruntime int8")
    assert b"bottlenecks.0/Mul" in graph  # alpha is not 1, so that its product is there as in a trained network


def test_a_bad_engine_or_no_networks_are_refused():
    with pytest.raises(ValueError, match="Unknown engine 'tensorrt'"):
        time_networks([smallest(TINY)], 32, "tensorrt")
    with pytest.raises(ValueError, match="nothing to time"):
        time_networks([], 32)


def measured(*pairs):
    config = smallest(TINY)
    times = tuple(NetworkTime(replace(config, name=f"n{i}"), macs, ms) for i, (macs, ms) in enumerate(pairs))
    return NetworkTimes("a machine", "torch", 32, 2, times)


def test_the_most_unequal_pair_by_hand():
    networks = measured((100, 1.0), (400, 1.015), (900, 1.05), (50, 2.0), (110, 1.0))
    fewer, more = most_unequal_pair(networks)
    assert (fewer.macs, more.macs) == (100, 400)
    assert most_unequal_pair(networks, tolerance=0.06)[1].macs == 900
    with pytest.raises(ValueError, match="No two of these 2 networks take the same time to within 1%"):
        most_unequal_pair(measured((1, 1.0), (2, 1.5)), tolerance=0.01)


def test_a_spread_sample_reaches_both_ends_which_a_uniform_one_does_not():
    def macs(config):
        return count_macs(network_layers(config, 64, 6).values())

    spread = [macs(config) for config in spread_sample(LAB_SPACE, 40, seeded())]
    uniform = [macs(sample(LAB_SPACE, seeded(i))) for i in range(40)]
    least, most = macs(smallest(LAB_SPACE)), macs(largest(LAB_SPACE))
    assert np.ptp(spread) > 1.3 * np.ptp(uniform) and np.ptp(spread) > 0.75 * (most - least)
    assert np.corrcoef(range(40), spread)[0, 1] > 0.9
    assert spread_sample(LAB_SPACE, 5, seeded(1)) == spread_sample(LAB_SPACE, 5, seeded(1))
    assert all(config in LAB_SPACE for config in spread_sample(LAB_SPACE, 5, seeded(2)))


def test_the_timed_networks_build():
    for config in spread_sample(TINY, 3, seeded()):
        YoloNAS(config, 2)
