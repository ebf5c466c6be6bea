"""TensorRTDetector: the right answer for any batch through a stand-in engine, and each plan that cannot be run.

The stand-in has the real classes of TensorRT for RTX; a run on a GPU is tested where there is one.
"""

import json

import pytest
import torch
from fake_engine import FakeEngine, pretend_gpu
from lab_exports import int8_pico

from yolonas_lab.deployment import detectors as tensorrt_detector
from yolonas_lab.deployment.detectors import EngineRunner, OnnxDetector, TensorRTDetector
from yolonas_lab.deployment.engine_report import PlanCard, card_path, write_plan
from yolonas_lab.deployment.tensorrt import build_engine, load_engine
from yolonas_lab.models import decode

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed (extra tensorrt-rtx)")
VERSION = tuple(int(part) for part in trt.__version__.split("."))

INFO = {
    "model": "tiny",
    "num_classes": 3,
    "class_names": ["a", "b", "c"],
    "image_size": 32,
    "images": "float_nchw",
    "outputs": "boxes_and_scores",
    "precision": "float32",
    "activations": "float",
    "source_sha256": "0",
}


def write(path, version=VERSION, tag=b"vtrt", **info):
    content = (tag + bytes(20) + bytes(version)).ljust(64, b"\0")
    write_plan(path, content, PlanCard(len(content), "", "", {"yolonas_lab": json.dumps(INFO | info)}, {}))
    return path


@pytest.fixture
def detector(monkeypatch, tmp_path):
    """A function that makes a detector around a stand-in engine."""

    def make(fake, **info):
        pretend_gpu(monkeypatch)
        monkeypatch.setattr(tensorrt_detector, "check_gpu", lambda plan, card: None)
        monkeypatch.setattr(tensorrt_detector, "load_engine", lambda *_: fake.engine)
        monkeypatch.setattr(
            tensorrt_detector,
            "EngineRunner",
            lambda trt, engine, cuda_graph: EngineRunner(trt, engine, "cpu", cuda_graph),
        )
        return TensorRTDetector(write(tmp_path / "m.plan", **info), trt)

    return make


@pytest.mark.parametrize(("shape", "largest"), [((1, 3, 32, 32), None), ((-1, 3, 32, 32), (2, 3, 32, 32))])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_any_batch_is_cut_into_what_the_engine_takes(detector, shape, largest, batch):
    fake = FakeEngine(trt, shape, largest)
    model = detector(fake)
    x = torch.rand(batch, 3, 32, 32)
    boxes, scores = model.boxes_and_scores(x)
    torch.testing.assert_close(boxes[:, 0, 0], x.sum((1, 2, 3)))
    torch.testing.assert_close(scores[:, 0, 0], x.mean((1, 2, 3)))
    assert fake.runs == -(-batch // (largest or shape)[0])
    decoded = decode(model(x))[1]
    torch.testing.assert_close(decoded, scores)


def test_a_fixed_batch_is_filled_up(detector):
    fake = FakeEngine(trt, (4, 3, 32, 32))
    x = torch.rand(6, 3, 32, 32)
    boxes, _ = detector(fake).boxes_and_scores(x)
    assert boxes.shape[0] == 6 and fake.runs == 2
    torch.testing.assert_close(boxes[:, 0, 0], x.sum((1, 2, 3)))


def test_bytes_go_in_as_bytes(detector):
    fake = FakeEngine(trt, (1, 32, 32, 3), dtype=trt.uint8)
    pixels = torch.randint(0, 256, (1, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    boxes, _ = detector(fake, images="uint8_nhwc").boxes_and_scores(pixels / 255 - 1e-4)  # nearly whole
    assert boxes[0, 0, 0] == pixels.sum()
    assert fake.shape == (1, 32, 32, 3)


def test_it_is_a_detector_like_others(detector, monkeypatch):
    model = detector(FakeEngine(trt))
    assert (model.class_names, model.num_classes, model.image_size) == (["a", "b", "c"], 3, 32)
    image = torch.zeros(3, 32, 32, dtype=torch.uint8).permute(1, 2, 0).numpy()
    found = model.predict(image, conf=0.001)
    assert found.class_names == ["a", "b", "c"] and found.image.shape == (32, 32, 3)


def test_other_outputs_are_refused(detector):
    with pytest.raises(ValueError, match=r"no output boxes and scores, only .*: build it from a file of export_onnx"):
        detector(FakeEngine(trt, outputs=("raw",)))


def test_wrong_images_are_refused(detector):
    model = detector(FakeEngine(trt))
    with pytest.raises(ValueError, match="multiples of 32"):
        model.boxes_and_scores(torch.rand(1, 3, 32, 40))
    with pytest.raises(ValueError, match=r"built for images of shape \(1, 3, 32, 32\), not \(1, 3, 64, 64\)"):
        model.boxes_and_scores(torch.rand(1, 3, 64, 64))


def test_plans_that_do_not_belong_here(tmp_path):
    with pytest.raises(ValueError, match="There is no plan"):
        TensorRTDetector(tmp_path / "nowhere.plan")
    (tmp_path / "junk.plan").write_bytes(b"no plan at all, but longer than a header is")
    with pytest.raises(ValueError, match="is not a TensorRT plan"):
        TensorRTDetector(tmp_path / "junk.plan")
    with pytest.raises(ValueError, match=r"was built by tensorrt_rtx 1\.0\.0\.0, and .* is installed"):
        TensorRTDetector(write(tmp_path / "old.plan", version=(1, 0, 0, 0)))
    with pytest.raises(ValueError, match=r"was built by tensorrt and cannot be loaded by tensorrt_rtx"):
        TensorRTDetector(write(tmp_path / "other.plan", tag=b"ftrt"), trt)
    card_path(write(tmp_path / "bare.plan")).unlink()
    with pytest.raises(ValueError, match=r"There is no .*bare\.plan\.json"):
        TensorRTDetector(tmp_path / "bare.plan")


def test_without_a_gpu_one_sentence_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="runs only on an NVIDIA GPU that torch can use, and there is none here"):
        TensorRTDetector(write(tmp_path / "m.plan"))


def test_a_corrupted_plan_is_refused_with_the_reason(tmp_path):
    path = write(tmp_path / "m.plan")  # a header and nothing else; the real runtime looks at it
    with pytest.raises(ValueError, match=r"m\.plan: TensorRT cannot load the plan \(.+\): build it again"):
        load_engine(trt, path, path.read_bytes())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU that torch can use: plans cannot be run here")
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_on_a_gpu_the_plan_answers_like_the_graph(tmp_path, cuda_graph):
    build_engine(int8_pico(), tmp_path / "pico.plan", trt)
    x = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    boxes, scores = TensorRTDetector(tmp_path / "pico.plan", trt, cuda_graph).boxes_and_scores(x)
    expected_boxes, expected_scores = OnnxDetector(int8_pico()).boxes_and_scores(x)
    assert (boxes.cpu() - expected_boxes).abs().mean() < 0.5  # px; a rounding that falls the other way is an INT8 step
    assert (scores.cpu() - expected_scores).abs().max() < 0.05
