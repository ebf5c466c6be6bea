import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

import yolonas_lab.search.latency_model as module
from tests.search.spaces import TINY, every_network, made_up_ms, made_up_table, seeded
from yolonas_lab.latency import machine_for, network_layers
from yolonas_lab.search import (
    FULL_SPACE,
    LAB_SPACE,
    LatencyModel,
    NetworkTime,
    NetworkTimes,
    error_report,
    fit_latency,
    largest,
    most_unequal_pair,
    sample,
    smallest,
    space_layers,
    spread_sample,
    time_networks,
)
from yolonas_lab.search.latency_model import latency_model, load_model, save_model

TABLE, EVERY = made_up_table(), every_network(TINY)


def networks(count, seed=0):
    return spread_sample(TINY, count, seeded(seed))


def million_weights(layers):
    """By another way than the library's: a convolution's multiply-accumulates per place of its output."""
    places = [layer.size if layer.kind == "upsample" else layer.size // layer.stride for layer in layers]
    return sum(layer.macs / side**2 for layer, side in zip(layers, places)) / 1e6


def measured(configs, base_ms=0.0, scale=1.0, weights_ms=0.0, noise=0.0, **changes):
    """Networks as if measured on a machine where time is base_ms + scale · sum of the operations + weights_ms for each
    million weights, times noise.
    """
    rng, times = seeded(7), []
    for config in configs:
        layers = network_layers(config, 32, 2).values()
        ms = base_ms + scale * sum(map(made_up_ms, layers)) + weights_ms * million_weights(layers)
        macs = sum(layer.macs for layer in layers)
        times.append(NetworkTime(config, macs, ms * float(np.exp(noise * rng.standard_normal()))))
    about = {"machine": "a machine", "engine": "torch", "image_size": 32, "num_classes": 2, "times": tuple(times)}
    return NetworkTimes(**(about | changes))


def test_the_layers_of_a_space_by_brute_force():
    every = {layer for config in EVERY for layer in network_layers(config, 64, 2).values()}
    found = space_layers(TINY, 64, 2)
    assert set(found) == every and len(found) == len(every)


@pytest.mark.parametrize("space", [LAB_SPACE, FULL_SPACE], ids=lambda space: space.name)
def test_no_network_has_a_layer_that_its_space_lacks(space):
    known, rng = set(space_layers(space, 64, 6)), seeded()
    for _ in range(100):
        assert known.issuperset(network_layers(sample(space, rng), 64, 6).values())


def test_networks_are_timed_in_the_order_given_with_their_counts():
    configs = [largest(TINY), smallest(TINY), smallest(TINY)]
    found = time_networks(configs, 32, num_classes=2, rounds=2)
    assert [time.config for time in found.times] == configs and all(time.ms > 0 for time in found.times)
    assert [time.macs for time in found.times] == [time.macs for time in measured(configs).times]
    assert (found.engine, found.image_size, found.num_classes) == ("torch", 32, 2)
    with pytest.raises(ValueError, match="Unknown engine 'tensorrt'"):
        time_networks([smallest(TINY)], 32, "tensorrt")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "onnxruntime int8"])
def test_onnxruntime_runs_the_exported_network(engine, monkeypatch):
    graphs, open_session = [], module.onnx_session
    monkeypatch.setattr(module, "onnx_session", lambda graph: graphs.append(graph) or open_session(graph))
    found = time_networks([smallest(TINY)], 32, engine, num_classes=2, rounds=1)
    (graph,) = graphs
    assert found.times[0].ms > 0 and "onnxruntime" in found.machine
    boxes, scores = open_session(graph).get_outputs()
    assert (boxes.name, scores.name, scores.shape) == ("boxes", "scores", [1, 16 + 4 + 1, 2])
    assert (b"QuantizeLinear" in graph) == (engine == "onnxruntime int8")
    assert b"bottlenecks.0/Mul" in graph  # alpha is not 1, so that its product is there as in a trained network


def test_the_most_unequal_pair_by_hand():
    def made_up(*pairs):
        return measured([], times=tuple(NetworkTime(smallest(TINY), macs, ms) for macs, ms in pairs))

    networks = made_up((100, 1.0), (400, 1.015), (900, 1.05), (50, 2.0), (110, 1.0))
    fewer, more = most_unequal_pair(networks)
    assert (fewer.macs, more.macs) == (100, 400)
    assert most_unequal_pair(networks, tolerance=0.06)[1].macs == 900
    with pytest.raises(ValueError, match="No two of 2 networks take the same time to within 1%"):
        most_unequal_pair(made_up((1, 1.0), (2, 1.5)), tolerance=0.01)


def test_a_prediction_by_hand():
    config = smallest(TINY)
    layers = network_layers(config, 32, 2).values()
    total, million = sum(map(made_up_ms, layers)), million_weights(layers)
    assert LatencyModel(TABLE, 2).predict(config) == pytest.approx(total, rel=1e-12)
    by_hand = 3 + total / 2 + 4 * million
    assert LatencyModel(TABLE, 2, 0.5, 3.0, 4.0).predict(config) == pytest.approx(by_hand, rel=1e-12)


@settings(max_examples=25)
@given(base_ms=st.floats(0, 2), scale=st.floats(0.1, 3), weights_ms=st.floats(0, 9))
def test_the_fit_finds_what_the_times_were_made_from(base_ms, scale, weights_ms):
    model = fit_latency(TABLE, measured(EVERY, base_ms, scale, weights_ms))
    assert (model.base_ms, model.scale, model.weights_ms) == pytest.approx((base_ms, scale, weights_ms), abs=1e-6)


def test_the_fit_minimizes_relative_errors():
    """Against a brute-force grid around the solution."""
    found = measured([smallest(TINY), *networks(10), largest(TINY)], base_ms=0.1, scale=0.8, weights_ms=5, noise=0.1)
    model = fit_latency(TABLE, found)

    def loss(base_ms, scale, weights_ms):
        other = LatencyModel(TABLE, 2, scale, base_ms, weights_ms)
        return sum((other.predict(time.config) / time.ms - 1) ** 2 for time in found.times)

    numbers = np.array([model.base_ms, model.scale, model.weights_ms])
    best = loss(*numbers)
    for change in (-0.01, -0.001, 0.001, 0.01):
        for moved in np.eye(3):
            assert loss(*np.maximum(numbers + change * moved, 0)) >= best


def test_no_number_of_the_fit_is_negative():
    model = fit_latency(TABLE, measured([smallest(TINY), largest(TINY), *networks(4)], base_ms=-0.05, weights_ms=-0.1))
    assert min(model.base_ms, model.scale, model.weights_ms) == 0 < max(model.base_ms, model.scale, model.weights_ms)


@pytest.mark.parametrize("changes", [{"machine": "another"}, {"engine": "onnxruntime"}, {"image_size": 64}])
def test_table_and_networks_must_come_from_the_same_place(changes):
    model = fit_latency(TABLE, measured(networks(3)))
    ((what, value),) = changes.items()
    for judge in (lambda n: fit_latency(TABLE, n), lambda n: error_report(model, n)):
        with pytest.raises(ValueError, match=f"table's {what} is .*, that of the networks {value}"):
            judge(measured(networks(4, seed=1), **changes))


def test_a_report_by_hand():
    model = LatencyModel(TABLE, 2)
    configs = [smallest(TINY), largest(TINY), *networks(3, seed=3)]
    truth = [model.predict(config) for config in configs]
    factors = [1.0, 1.25, 0.8, 1.0, 2.0]
    times = [NetworkTime(c, 10 - i, ms * f) for i, (c, ms, f) in enumerate(zip(configs, truth, factors))]
    report = error_report(model, measured([], times=tuple(times)))
    assert [row.predicted_ms for row in report.rows] == truth
    tau, of_macs = (kendalltau(other, [time.ms for time in times])[0] for other in (truth, range(10, 5, -1)))
    assert str(report).startswith("torch at 32 px: 5 held-out networks of ") and str(report).endswith(
        f"error 20.0% (median), 50.0% (worst); Kendall's tau {tau:.2f}, of MACs {of_macs:.2f}\na machine"
    )


def test_what_says_nothing_about_a_model_is_refused():
    model = fit_latency(TABLE, measured(networks(3)))
    with pytest.raises(ValueError, match="2 networks are too few"):
        fit_latency(TABLE, measured(networks(2)))
    with pytest.raises(ValueError, match="was fitted to tiny_"):
        error_report(model, measured(networks(3)))
    with pytest.raises(ValueError, match="have 3 classes, the model is for 2"):
        error_report(model, measured(networks(3, seed=1), num_classes=3))


def test_a_model_comes_back_from_its_file_on_the_same_machine_only(tmp_path):
    table = replace(TABLE, machine=machine_for("torch"))
    model = LatencyModel(table, 2, 0.5, 0.1, 3.0, ("one", "two"))
    path = save_model(model, tmp_path / "m.json")
    assert load_model(path) == model
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert stored["table"]["layers"]["conv 3→8 3×3/2 at 32 px"] > 0
    path.write_text(json.dumps(stored | {"table": stored["table"] | {"kinds": ["conv"]}}))  # as older files have it
    assert load_model(path) == model
    for broken in (stored | {"table": stored["table"] | {"layers": {"gemm": 1}}}, []):
        path.write_text(json.dumps(broken))
        with pytest.raises(ValueError, match=r"m\.json is not a latency model"):
            load_model(path)
    save_model(replace(model, table=TABLE), path)
    with pytest.raises(ValueError, match=r"m\.json was measured on 'a machine', and this is"):
        load_model(path)


def test_the_model_of_a_space_is_measured_once(tmp_path, monkeypatch):
    timed = []

    def time_networks(configs, image_size, engine, num_classes):
        timed.append([config.name for config in configs])
        return measured(configs, base_ms=0.2, scale=0.9, machine=machine_for("torch"))

    made_up = lambda layers, *_: replace(TABLE, machine=machine_for("torch"))  # noqa: E731
    monkeypatch.setattr(module, "measure_table", made_up)
    monkeypatch.setattr(module, "time_networks", time_networks)
    kept = partial(latency_model, TINY, 32, num_classes=2, folder=tmp_path / "new", networks=5)
    model = kept()
    assert (model.base_ms, model.scale) == pytest.approx((0.2, 0.9))
    assert kept() == model and len(timed) == 1 and model.fitted_to == tuple(timed[0])
    latency_model(replace(TINY, stem_block=("plain",)), 32, num_classes=2, folder=tmp_path / "new", networks=5)
    kept(folder=None)
    assert len(timed) == 3  # another space, and no folder, are measured


@pytest.mark.slow
def test_a_space_is_really_measured():
    model = latency_model(TINY, 32, num_classes=2, networks=3)
    assert 0 < model.predict(smallest(TINY)) < 1000
