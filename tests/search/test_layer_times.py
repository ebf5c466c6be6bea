import sys

import numpy as np
import pytest
import torch
from small_space import TINY
from torch.nn import functional as F
from yolonas_lab.quantization.latency import onnx_session

from yolonas_lab.common import machine_name
from yolonas_lab.latency import ENGINES, _in_torch, _other_graph, _runner, machine_for
from yolonas_lab.search import Layer, space_layers, time_layers

CONV = Layer("conv", 16, 24, 3, 2, 8)
ADD, CONCAT, POOL = Layer("add", 4, 4, 1, 1, 6), Layer("concat", 8, 8, 1, 1, 6), Layer("pool", 4, 4, 5, 1, 6)
ONE_OF_EACH = (
    CONV,
    Layer("predict", 16, 3, 1, 1, 4),
    Layer("upsample", 8, 8, 2, 2, 4),
    ADD,
    CONCAT,
    POOL,
)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def computed(layer, x):
    """What the operation makes of its input, as torch's functions say."""
    if layer.kind == "add":
        return 0.9 * x + x
    if layer.kind == "concat":
        return torch.cat([x, x], dim=1)
    return F.max_pool2d(x, layer.kernel, stride=1, padding=layer.kernel // 2)


@pytest.mark.parametrize("layer", [ADD, CONCAT, POOL])
def test_the_timed_graph_computes_the_operation_each_time_anew(layer):
    pytest.importorskip("onnxruntime")
    session = onnx_session(_other_graph(layer, 3, int8=False).SerializeToString())
    shape = session.get_inputs()[0].shape
    feed = {f"x{i}": np.random.default_rng(i).random(shape, np.float32) for i in range(3)}
    for i, y in enumerate(session.run(None, feed)):
        torch.testing.assert_close(torch.from_numpy(y), computed(layer, torch.from_numpy(feed[f"x{i}"])))
        assert y.shape == (1, layer.out_channels, layer.size, layer.size)


@pytest.mark.parametrize("layer", [ADD, CONCAT, POOL])
def test_the_int8_graph_takes_and_gives_integers(layer):
    pytest.importorskip("onnxruntime")
    session = onnx_session(_other_graph(layer, 1, int8=True).SerializeToString())
    x = np.random.default_rng(0).integers(0, 100, session.get_inputs()[0].shape).astype(np.uint8)
    (y,) = session.run(None, {"x0": x})
    assert y.dtype == np.uint8
    expected = computed(layer, torch.from_numpy(x).float())
    assert (torch.from_numpy(y).float() - expected).abs().max() <= 0.5 + 1e-3


@pytest.mark.parametrize("layer", ONE_OF_EACH)
def test_every_engine_computes_the_right_shape_as_often_as_asked(layer):
    side = layer.size * 2 if layer.kind == "upsample" else layer.size // layer.stride
    expected = [(1, layer.out_channels, side, side)] * 2
    assert [y.shape for y in _in_torch(layer, 2)()] == expected  # type: ignore[attr-defined]
    pytest.importorskip("onnxruntime")
    for engine in ("onnxruntime", "onnxruntime int8"):
        assert [y.shape for y in _runner(layer, engine, 2)()] == expected  # type: ignore[attr-defined]


def test_torch_runs_what_a_deployed_network_has():
    x = next(y for y in _in_torch(CONV, 1)())  # type: ignore[attr-defined]
    assert (x >= 0).all() and (x == 0).any()  # its ReLU is part of the operation
    assert x.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_layer_is_timed_once(engine):
    if engine != "torch":
        pytest.importorskip("onnxruntime")
    layers = space_layers(TINY, 32, 2)
    times = time_layers([*layers, *layers[:3]], engine, rounds=1)
    assert list(times) == layers
    assert all(ms > 0 for ms in times.values())


def test_copies_are_divided_out(monkeypatch):
    """With a clock that counts calls, each round lasts one tick, whatever is repeated in it."""
    import yolonas_lab.latency as module

    small, large = Layer("conv", 8, 8, 1, 1, 2), Layer("conv", 64, 64, 3, 1, 32)
    ticks = iter(range(10**6))
    side_by_side = module.time_side_by_side
    monkeypatch.setattr(module, "time_side_by_side", lambda r, n: side_by_side(r, n, clock=lambda: next(ticks)))
    times = time_layers([small, large], rounds=3)
    assert times == {small: 1000 / 16, large: 1000.0}


def test_a_wrong_engine_is_named():
    with pytest.raises(ValueError, match="Unknown engine 'onnxruntme'; did you mean 'onnxruntime'"):
        time_layers([CONV], "onnxruntme")
    with pytest.raises(ValueError, match="Unknown engine"):
        machine_for("tensorrt")


def test_several_threads_are_refused_where_their_times_add_up():
    torch.set_num_threads(2)
    try:
        with pytest.raises(ValueError, match=r"torch uses 2 threads.*set_num_threads\(1\)"):
            time_layers([CONV], "torch")
    finally:
        torch.set_num_threads(1)


def test_the_machine_says_which_onnxruntime():
    ort = pytest.importorskip("onnxruntime")
    assert machine_for("torch") == machine_name()
    assert machine_for("onnxruntime int8") == f"{machine_name()}, onnxruntime {ort.__version__}"


def test_a_missing_onnxruntime_is_said_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match="pip install onnx onnxruntime"):
        machine_for("onnxruntime")
