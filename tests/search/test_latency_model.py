import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau
from small_space import TINY, made_up_ms, made_up_table, seeded

import yolonas_lab.latency as table_module
import yolonas_lab.search.latency_model as module
from yolonas_lab.latency import machine_for
from yolonas_lab.models import CONFIGS
from yolonas_lab.search import (
    LatencyModel,
    NetworkTime,
    NetworkTimes,
    count_macs,
    error_report,
    fit_latency,
    largest,
    latency_model,
    load_model,
    network_layers,
    sample,
    save_model,
    smallest,
    spread_sample,
)

TABLE = made_up_table()


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def measured(configs, base_ms=0.0, scale=1.0, weights_ms=0.0, noise=0.0, **changes):
    """Networks as if measured on a machine where time is base_ms + scale · sum of the operations + weights_ms for each
    million weights, times noise.
    """
    rng, times = seeded(7), []
    for config in configs:
        layers = network_layers(config, 32, 2).values()
        ms = base_ms + scale * sum(map(made_up_ms, layers)) + weights_ms * million_weights(layers)
        times.append(NetworkTime(config, count_macs(layers), ms * float(np.exp(noise * rng.standard_normal()))))
    about = {"machine": "a machine", "engine": "torch", "image_size": 32, "num_classes": 2, "times": tuple(times)}
    return NetworkTimes(**(about | changes))


def million_weights(layers):
    """By another way than the library's: a convolution's multiply-accumulates per place of its output."""
    places = [layer.size if layer.kind == "upsample" else layer.size // layer.stride for layer in layers]
    return sum(layer.macs / side**2 for layer, side in zip(layers, places)) / 1e6


def networks(count, seed=0):
    return spread_sample(TINY, count, seeded(seed))


def test_a_prediction_by_hand():
    config = smallest(TINY)
    total = sum(made_up_ms(layer) for layer in network_layers(config, 32, 2).values())
    assert LatencyModel(TABLE, 2).predict(config) == pytest.approx(total, rel=1e-12)
    assert LatencyModel(TABLE, 2, scale=0.5, base_ms=3.0).predict(config) == pytest.approx(3 + total / 2, rel=1e-12)
    million = million_weights(network_layers(config, 32, 2).values())
    assert LatencyModel(TABLE, 2, weights_ms=4.0).predict(config) == pytest.approx(total + 4 * million, rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(base_ms=st.floats(0, 2), scale=st.floats(0.1, 3), weights_ms=st.floats(0, 9), seed=st.integers(0, 10**6))
def test_the_fit_finds_what_the_times_were_made_from(base_ms, scale, weights_ms, seed):
    configs = [smallest(TINY), *networks(6, seed), largest(TINY)]
    model = fit_latency(TABLE, measured(configs, base_ms, scale, weights_ms))
    for config in networks(5, seed + 1):
        expected = LatencyModel(TABLE, 2, scale, base_ms, weights_ms).predict(config)
        assert model.predict(config) == pytest.approx(expected, rel=1e-6)


def test_the_fit_minimizes_relative_errors():
    """Against a brute-force grid around the solution."""
    found = measured([smallest(TINY), *networks(10), largest(TINY)], base_ms=0.1, scale=0.8, weights_ms=5, noise=0.1)
    model = fit_latency(TABLE, found)

    def loss(base_ms, scale, weights_ms):
        other = LatencyModel(TABLE, 2, scale, base_ms, weights_ms)
        return sum((other.predict(time.config) / time.ms - 1) ** 2 for time in found)

    numbers = np.array([model.base_ms, model.scale, model.weights_ms])
    best = loss(*numbers)
    for change in (-0.01, -0.001, 0.001, 0.01):
        for moved in np.eye(3):
            assert loss(*np.maximum(numbers + change * moved, 0)) >= best


def test_no_number_of_the_fit_is_negative():
    found = measured([smallest(TINY), largest(TINY), *networks(4)], base_ms=-0.05, weights_ms=-0.1)
    model = fit_latency(TABLE, found)
    assert min(model.base_ms, model.scale, model.weights_ms) == 0 < max(model.base_ms, model.scale, model.weights_ms)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"machine": "another"}, "table's machine is a machine, that of the networks another"),
        ({"engine": "onnxruntime"}, "table's engine is torch"),
        ({"image_size": 64}, "table's image_size is 32, that of the networks 64"),
    ],
)
def test_table_and_networks_must_come_from_the_same_place(changes, message):
    model = fit_latency(TABLE, measured(networks(3)))
    for judge in (lambda n: fit_latency(TABLE, n), lambda n: error_report(model, n)):
        with pytest.raises(ValueError, match=message):
            judge(measured(networks(4, seed=1), **changes))


def test_too_few_networks_or_a_missing_layer_are_refused():
    with pytest.raises(ValueError, match="2 networks are too few"):
        fit_latency(TABLE, measured(networks(2)))
    with pytest.raises(ValueError, match="lacks 'predict 16→80"):
        LatencyModel(TABLE, num_classes=80).predict(smallest(TINY))
    with pytest.raises(ValueError, match="lacks 'conv 24→48 3×3/2 at 4 px' and "):
        LatencyModel(TABLE, 2).predict(CONFIGS["yolo_nas_pico"])


def test_a_report_by_hand():
    model = LatencyModel(TABLE, 2)
    configs = [smallest(TINY), largest(TINY), *networks(3, seed=3)]
    truth = [model.predict(config) for config in configs]
    factors = [1.0, 1.25, 0.8, 1.0, 2.0]
    times = [NetworkTime(c, 10 - i, ms * f) for i, (c, ms, f) in enumerate(zip(configs, truth, factors))]
    report = error_report(model, replace(measured([]), times=tuple(times)))
    assert [row.error for row in report.rows] == pytest.approx([0, 0.2, 0.25, 0, 0.5])
    assert report.median_error == pytest.approx(0.2) and report.worst_error == pytest.approx(0.5)
    assert report.tau == pytest.approx(kendalltau(truth, [time.ms for time in times])[0])  # type: ignore[arg-type]
    text = str(report)
    assert "5 held-out networks" in text and "20.0% (median), 50.0% (worst)" in text and "a machine" in text


def test_orders_by_hand():
    model = LatencyModel(TABLE, 2)
    small, large = smallest(TINY), largest(TINY)
    ms = [model.predict(small), model.predict(large)]
    times = (NetworkTime(small, 9, ms[0]), NetworkTime(large, 3, ms[1]))
    report = error_report(model, replace(measured([]), times=times))
    assert report.tau == 1 and report.tau_of_macs == -1


def test_a_model_is_not_judged_by_what_it_was_fitted_to():
    model = fit_latency(TABLE, measured(networks(6)))
    with pytest.raises(ValueError, match=f"fitted to {networks(6)[2].name}: judge it by other networks"):
        error_report(model, measured(networks(6)[2:4]))
    with pytest.raises(ValueError, match="1 networks give no report"):
        error_report(model, measured([sample(TINY, seeded(9))]))
    with pytest.raises(ValueError, match="The networks have 3 classes, the model is for 2"):
        error_report(model, measured(networks(4, 1), num_classes=3))


def test_a_model_survives_its_file(tmp_path):
    table = replace(TABLE, machine=machine_for("torch"))
    model = fit_latency(table, measured(networks(5), 0.3, 0.7, 2.0, machine=table.machine))
    assert model.fitted_to == tuple(config.name for config in networks(5))
    path = save_model(model, tmp_path / "m.json")
    assert load_model(path) == model
    save_model(replace(model, table=TABLE), path)
    with pytest.raises(ValueError, match=r"m\.json was measured on 'a machine'"):
        load_model(path)
    assert load_model(path, machine="a machine").table == TABLE


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"scale": -1}, "scale is -1.0, base_ms"),
        ({"weights_ms": -2}, "weights_ms -2.0: none may"),
        ({"base_ms": "x"}, "could not convert"),
        ({"table": None}, "it needs the entries machine"),
        ({"table": 3}, "it needs the entries machine"),
    ],
)
def test_a_bad_model_file_is_named(tmp_path, changes, message):
    path = save_model(LatencyModel(TABLE, 2), tmp_path / "m.json")
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes))
    with pytest.raises(ValueError, match=rf"m\.json is not a latency model: .*{message}"):
        load_model(path, machine="a machine")
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"m\.json is not a latency model"):
        load_model(path, machine="a machine")


def test_the_model_of_a_space_is_measured_once(tmp_path, monkeypatch):
    timed = []

    def time_networks(configs, image_size, engine, num_classes):
        timed.append([config.name for config in configs])
        return measured(configs, base_ms=0.2, scale=0.9, machine=machine_for("torch"))

    made_up = lambda layers, engine, rounds: {layer: made_up_ms(layer) for layer in layers}  # noqa: E731
    monkeypatch.setattr(table_module, "time_layers", made_up)
    monkeypatch.setattr(module, "time_networks", time_networks)
    model = latency_model(TINY, 32, num_classes=2, folder=tmp_path, networks=5)
    assert (model.base_ms, model.scale) == pytest.approx((0.2, 0.9))
    assert latency_model(TINY, 32, num_classes=2, folder=tmp_path, networks=5) == model
    assert len(timed) == 1 and model.fitted_to == tuple(timed[0])
    latency_model(replace(TINY, stem_block=("plain",)), 32, num_classes=2, folder=tmp_path, networks=5)
    latency_model(TINY, 32, num_classes=2, networks=5)
    assert len(timed) == 3  # another space, and no folder, are measured
    assert model.predict(largest(TINY)) > model.predict(smallest(TINY))


def test_a_space_is_really_measured(tmp_path):
    model = latency_model(TINY, 32, num_classes=2, folder=tmp_path, networks=3)
    assert 0 < model.predict(smallest(TINY)) < 1000
    assert len(list(tmp_path.iterdir())) == 2
