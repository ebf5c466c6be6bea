"""Running an engine, against the real classes of TensorRT for RTX with a stand-in for the GPU."""

import pytest
import torch
from fake_engine import CLASSES, POINTS, FakeEngine, FakeGraph, pretend_gpu

from yolonas_lab.deployment.detectors import EngineRunner

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed (extra tensorrt-rtx)")


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    pretend_gpu(monkeypatch)


def images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def check(found, x):
    assert found["boxes"].shape == (len(x), POINTS, 4) and found["scores"].shape == (len(x), POINTS, CLASSES)
    torch.testing.assert_close(found["boxes"][:, 2, 1], x.sum((1, 2, 3)))
    torch.testing.assert_close(found["scores"][:, 0, 0], x.mean((1, 2, 3)))


def test_tensors_go_in_and_out_by_name():
    fake = FakeEngine(trt)
    runner = EngineRunner(trt, fake.engine, "cpu")
    first, second = images(1, 3, 32, 32), images(1, 3, 32, 32, seed=1)
    found = runner(first)
    check(runner(second), second)
    check(found, first)  # the second run has not overwritten what the first returned
    assert fake.context.set_tensor_address.call_count == 3  # once per tensor, not once per run
    assert (runner.input_name, runner.output_names) == ("images", ["boxes", "scores"])
    assert runner.input_dtype() == torch.float32


def test_another_shape_gets_other_buffers():
    fake = FakeEngine(trt, (-1, 3, -1, -1), largest=(4, 3, 64, 64))
    runner = EngineRunner(trt, fake.engine, "cpu")
    assert runner.shape_range() == ((1, 3, 32, 32), (4, 3, 64, 64))
    for shape in ((1, 3, 32, 32), (4, 3, 32, 64), (2, 3, 64, 64), (1, 3, 32, 32)):
        x = images(*shape)
        check(runner(x), x)
    assert fake.context.set_input_shape.call_count == 4


@pytest.mark.parametrize("shape", [(5, 3, 32, 32), (1, 3, 96, 32), (1, 1, 32, 32), (3, 32, 32)])
def test_shapes_that_the_engine_was_not_built_for(shape):
    runner = EngineRunner(trt, FakeEngine(trt, (-1, 3, -1, -1), largest=(4, 3, 64, 64)).engine, "cpu")
    with pytest.raises(ValueError, match=r"built for images of shape \(1, 3, 32, 32\) to \(4, 3, 64, 64\), not"):
        runner(images(*shape))
    runner = EngineRunner(trt, FakeEngine(trt).engine, "cpu")
    with pytest.raises(ValueError, match=r"built for images of shape \(1, 3, 32, 32\), not"):
        runner(images(2, 3, 32, 32))


def test_a_graph_is_recorded_once_per_shape():
    fake = FakeEngine(trt, (-1, 3, 32, 32), largest=(4, 3, 32, 32))
    runner = EngineRunner(trt, fake.engine, "cpu", cuda_graph=True)
    for _ in range(3):
        runner(images(1, 3, 32, 32))
    assert (fake.runs, FakeGraph.replays) == (2, 3)  # one run to warm up, one while recording
    runner(images(2, 3, 32, 32))
    assert (fake.runs, FakeGraph.replays) == (4, 4)


def test_an_engine_that_does_not_start_says_so():
    fake = FakeEngine(trt)
    fake.context.execute_async_v3.side_effect = lambda stream: False
    with pytest.raises(RuntimeError, match="could not start"):
        EngineRunner(trt, fake.engine, "cpu")(images(1, 3, 32, 32))


def test_an_engine_with_two_inputs_is_refused():
    fake = FakeEngine(trt)
    fake.engine.get_tensor_mode.side_effect = lambda name: trt.TensorIOMode.INPUT
    with pytest.raises(ValueError, match="one input, but has 3"):
        EngineRunner(trt, fake.engine, "cpu")
