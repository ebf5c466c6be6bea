"""The benchmark: what it times and counts, by hand; the drawing; and what the engines find on a real scene."""

import importlib

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

import yolonas_lab as yl
from yolonas_lab.common import Timing, machine_name
from yolonas_lab.deployment.benchmark import Benchmark, Row, benchmark, engines_for, missing_kinds, plot_waterfall
from yolonas_lab.detections import Detections

module = importlib.import_module("yolonas_lab.deployment.benchmark")  # the package offers the function by this name
IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


class Answer(nn.Module):
    """A detector of two sure boxes, that notes what it was given."""

    def __init__(self, calls, name):
        super().__init__()
        self.calls, self.name = calls, name

    def forward(self, images):
        assert images.shape == (1, 3, 64, 64) and torch.is_inference_mode_enabled()
        self.calls.append(self.name)
        boxes = torch.tensor([[[0.0, 0, 9, 9], [20, 20, 40, 40], [1, 0, 9, 9]]])
        return boxes, torch.tensor([[[0.9], [0.8], [0.7]]])


def test_engines_take_turns_and_their_findings_are_counted():
    calls = []
    result = benchmark({"a": Answer(calls, "a"), "b": Answer(calls, "b")}, IMAGE, 64, rounds=3, warmup=1)
    assert "".join(calls) == "ab" + "ab" * 4  # once to see what they find, then one warm-up and three rounds
    assert [(row.name, row.found) for row in result.rows] == [("a", 2), ("b", 2)]  # one of three boxes is suppressed
    assert (result.rounds, result.image) == (3, "image of 64×48 px at 64 px")
    assert result.machine.startswith(machine_name())
    assert result.rows[0].prepare is result.rows[1].prepare  # the same code for both


def test_the_clock_is_cpu_time_at_one_thread_and_wall_time_elsewhere(monkeypatch):
    calls = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert benchmark({"a": Answer(calls, "a")}, IMAGE, 64, rounds=1).clock == "CPU time"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert benchmark({"a": Answer(calls, "a")}, IMAGE, 64, rounds=1).clock == "wall time"


def test_a_gpu_is_waited_for(monkeypatch):
    waited = []
    detector = Answer([], "a")
    monkeypatch.setattr(module, "_device", lambda d: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waited.append(True))
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *_: tensor)
    result = benchmark({"a": detector}, IMAGE, 64, rounds=2, warmup=1)
    assert len(waited) == 1 + 3 and result.clock == "wall time"


def test_models_of_torch_are_timed_with_their_decoding():
    model = yl.models.get("yolo_nas_pico", pretrained_weights="scenes")
    engines = {"torch": model, "torch, fused": yl.models.reparameterize(model)}
    result = benchmark(engines, IMAGE, 64, rounds=1, warmup=0)
    found = model.predict(IMAGE, image_size=64)
    assert isinstance(found, Detections)
    assert result.rows[0].found == result.rows[1].found == len(found)


def by_hand():
    prepare = Timing("prepare", 1.0, 0.9, 1.1)
    rows = [
        Row("torch", prepare, Timing("", 20.0, 19.0, 22.0), Timing("", 0.5, 0.4, 0.6), 3),
        Row("onnxruntime", prepare, Timing("", 10.0, 9.5, 11.0), Timing("", 0.5, 0.4, 0.6), 3),
    ]
    return Benchmark("a machine", "CPU time", "image of 64×48 px at 64 px", 7, rows)


def test_totals_ratios_and_the_table_by_hand():
    result = by_hand()
    assert result.rows[0].total_ms == 21.5 and result.ratio("onnxruntime", to="torch") == 0.5
    head, _, first, second = str(result).splitlines()
    assert head == "a machine; CPU time; image of 64×48 px at 64 px; medians of 7 alternating rounds, ms"
    assert first.split() == ["torch", "1.00", "20.00", "(19.00", "to", "22.00)", "0.50", "21.50", "1.00×", "3"]
    assert second.split()[-2:] == ["0.50×", "3"]


def test_the_waterfall_is_drawn():
    ax = plot_waterfall(by_hand(), Figure().subplots())
    assert [text.get_text() for text in ax.get_yticklabels()] == ["torch", "onnxruntime"]
    assert "21.5 ms" in {text.get_text() for text in ax.texts} and ax.get_xlabel().startswith("ms per image")


def test_engines_that_are_missing_are_named(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    missing = missing_kinds()
    assert set(missing) == {"openvino", "tensorrt"}
    assert "pip install" in missing["openvino"] and "no NVIDIA GPU" in missing["tensorrt"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "pip install" in missing_kinds()["tensorrt"]


def test_nothing_to_time():
    with pytest.raises(ValueError, match="no detector to time"):
        benchmark({}, IMAGE, 64)


@pytest.mark.bench
def test_every_engine_here_on_s_at_640_px(tmp_path):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    kinds = [kind for kind in module.KINDS if kind not in missing_kinds()]
    engines = engines_for(yl.models.get("yolo_nas_s"), image, 640, tmp_path, threads=1, kinds=kinds)
    print(f"\n{benchmark(engines, image, 640)}")
