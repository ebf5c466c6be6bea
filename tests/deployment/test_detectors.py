"""A detector from a file alone answers as the model; files that cannot be run are named; TensorRT runs a stand-in.

The stand-in has the real classes of TensorRT for RTX; a run on a GPU is tested where there is one.
"""

import importlib.util
import json
import sys
from pathlib import Path

import matplotlib
import numpy as np
import onnx
import pytest
import torch
from exports import (
    all_ends_pico,
    cpu_nano,
    float_nano,
    float_pico,
    int8_nano,
    int8_pico,
    nano,
    noise,
    open_pico,
    pico,
    scene_images,
    scenes,
)
from fake_engine import FakeEngine, FakeGraph, pretend_gpu

import yolonas_lab as yl
from yolonas_lab.deployment import OnnxDetector, OpenVinoDetector, TensorRTDetector, build_engine, detectors
from yolonas_lab.deployment.engine_report import PlanCard, write_plan
from yolonas_lab.deployment.onnx_graph import load_onnx
from yolonas_lab.deployment.tensorrt import load_engine
from yolonas_lab.detections import Detections

trt = pytest.importorskip("tensorrt_rtx") if importlib.util.find_spec("tensorrt_rtx") else None
needs_rtx = pytest.mark.skipif(trt is None, reason="TensorRT for RTX is not installed (extra tensorrt-rtx)")
PHOTO = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    torch.set_num_threads(1)


def many(model, images: list, conf: float = 0.25, iou: float = 0.7) -> list[Detections]:
    """predict, which must answer several images with a list."""
    found = model.predict(images, conf, iou)
    assert isinstance(found, list)
    return found


def same(found, expected, px: float = 1e-2) -> None:
    assert len(found) == len(expected) and found.class_names == expected.class_names
    assert torch.equal(found.labels, expected.labels)
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=0, atol=px)
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-4)


def ap(model) -> float:
    return yl.evaluate.evaluate(model, scenes(), progress=False).ap


# onnxruntime


def test_it_answers_as_the_model_for_any_number_of_images():
    detector = OnnxDetector(float_nano(), threads=1)  # the graph takes two at a time, the last is filled up
    images = [scenes()[index].image for index in range(5)]
    for found, expected in zip(many(detector, images), many(nano(), images), strict=True):
        same(found, expected)
    options = {"conf": 0.02, "iou": 0.5}
    same(detector.predict(PHOTO, **options), nano().predict(PHOTO, **options), px=0.2)  # the photo is ten times larger
    assert ap(detector) == pytest.approx(ap(nano()), abs=1e-4)


@pytest.mark.slow
def test_another_size_where_the_file_leaves_it_open():
    detector = OnnxDetector(open_pico(), threads=1)
    same(detector.predict(PHOTO, conf=0.02, image_size=160), pico().predict(PHOTO, conf=0.02, image_size=160), px=0.2)
    with pytest.raises(ValueError, match="multiples of 32 px"):
        detector(torch.zeros(1, 3, 40, 64))


@pytest.mark.slow
def test_with_preparation_and_nms_in_the_graph():
    """In float16, so the scores differ a little; the settings are those of the call, not of the export."""
    detector = OnnxDetector(all_ends_pico(), threads=1)
    info = detector.info
    assert (info.images, info.outputs, info.precision) == ("uint8_nhwc", "detections", "float16")
    images = [scenes()[index].image for index in range(3)]
    for conf, iou in ((0.25, 0.7), (0.05, 0.3), (0.6, 0.7), (0.25, 1.0)):
        pairs = zip(many(detector, images, conf, iou), many(pico(), images, conf, iou), strict=True)
        for found, expected in pairs:
            clear = expected.filter(conf + 0.02)
            assert abs(len(found) - len(expected)) <= 2 and len(found.filter(conf + 0.02)) >= len(clear) - 1
            overlap = yl.boxes.iou(clear.boxes, found.boxes)
            assert len(clear) == 0 or (overlap.amax(dim=1) > 0.9).all()
    assert abs(ap(detector) - ap(pico())) < 0.01
    _, scores = detector(scene_images()[:2])
    assert ((scores > 0).sum(dim=-1) <= 1).all()  # a detection has a score for its own class only
    between, whole = (torch.full((1, 3, 64, 64), value / 255) for value in (99.6, 100.0))
    assert torch.equal(detector(between)[1], detector(whole)[1])  # pixels go to the nearest value


def test_images_that_do_not_fit():
    detector = OnnxDetector(float_nano())
    with pytest.raises(ValueError, match=r"takes images of 64×64 px only, got 96×96: leave image_size out, or export"):
        detector.predict(PHOTO, image_size=96)
    with pytest.raises(ValueError, match="divide uint8 images by 255"):
        detector(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


def test_a_file_without_metadata(tmp_path):
    model = load_onnx(float_nano())
    model.ClearField("metadata_props")
    onnx.save(model, tmp_path / "bare.onnx")
    with pytest.raises(ValueError, match=r"bare\.onnx has no 'yolonas_lab' metadata"):
        OnnxDetector(tmp_path / "bare.onnx")


@pytest.mark.slow
def test_int8_graphs_are_computed_as_written_unless_told_otherwise():
    for path, optimized in ((int8_nano(), False), (cpu_nano(), True), (float_nano(), True)):
        level = OnnxDetector(path).session.get_session_options().graph_optimization_level
        assert (level.name == "ORT_ENABLE_ALL") == optimized
    assert np.isfinite(OnnxDetector(int8_nano(), optimize=True)(scene_images())[0].numpy()).all()


# OpenVINO


def test_openvino_is_asked_for_and_takes_some_files_only(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ImportError, match=r"pip install 'yolonas-lab\[openvino\]'"):
        OpenVinoDetector(float_nano())
    for path, reason in ((int8_pico(), "is quantized for TensorRT"), (open_pico(), "has NMS, preprocessing or open")):
        with pytest.raises(ValueError, match=f"{path.name} {reason}"):
            OpenVinoDetector(path)


@pytest.mark.slow
def test_openvino_answers_like_onnxruntime():
    pytest.importorskip("openvino", reason="OpenVINO is not installed (extra openvino)")
    x = noise(3, 3, 64, 64)
    detector, expected = OpenVinoDetector(float_pico(), threads=1), OnnxDetector(float_pico())
    (boxes, scores), (expected_boxes, expected_scores) = detector(x), expected(x)
    assert (boxes - expected_boxes).abs().max() < 1e-2 and (scores - expected_scores).abs().max() < 1e-4
    detector, written = OpenVinoDetector(cpu_nano(), threads=1), OnnxDetector(cpu_nano(), optimize=False)
    three = scene_images()[:3]  # the file takes eight at a time
    (boxes, scores), (_, expected_scores) = detector(three), written(three)
    assert len(boxes) == len(scores) == 3
    assert (scores - expected_scores).abs().mean() < 1e-3  # a rounding the other way may be a whole step
    assert ap(detector) == pytest.approx(ap(written), abs=0.01)


# TensorRT

ONE, SMALL, LARGE = (1, 3, 32, 32), (4, 3, 32, 32), (4, 3, 64, 64)
OPEN = (-1, 3, -1, -1)
VERSION = tuple(int(part) for part in trt.__version__.split(".")) if trt else (0, 0, 0, 0)
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

    def make(fake, cuda_graph=False, **info):
        pretend_gpu(monkeypatch)
        monkeypatch.setattr(detectors, "check_plan", lambda *_: None)
        monkeypatch.setattr(detectors, "load_engine", lambda *_: fake.engine)
        return TensorRTDetector(write(tmp_path / "m.plan", **info), trt, cuda_graph, "cpu")

    return make


def check(found, x):
    boxes, scores = found
    assert len(boxes) == len(scores) == len(x)
    torch.testing.assert_close(boxes[:, 2, 1], x.sum((1, 2, 3)))
    torch.testing.assert_close(scores[:, 0, 0], x.mean((1, 2, 3)))


@needs_rtx
@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize(
    ("shape", "profiles", "most"),
    [(ONE, (), 1), (SMALL, (), 4), ((-1, 3, 32, 32), [(ONE, (2, 3, 32, 32))], 2)],
)
def test_any_batch_is_cut_into_what_the_engine_takes(detector, shape, profiles, most, batch):
    fake = FakeEngine(trt, shape, profiles)
    model, x = detector(fake), noise(batch, 3, 32, 32)
    found = model(x)
    check(found, x)
    check(model(noise(batch, 3, 32, 32, seed=1)), noise(batch, 3, 32, 32, seed=1))
    check(found, x)  # the second run has not overwritten what the first returned
    assert fake.runs == 2 * -(-batch // most)


@needs_rtx
def test_another_shape_gets_other_buffers(detector):
    fake = FakeEngine(trt, OPEN, [(ONE, LARGE)])
    model = detector(fake)
    for shape in (ONE, (4, 3, 32, 64), (2, 3, 64, 64), (2, 3, 64, 64), ONE):
        x = noise(*shape)
        check(model(x), x)
    assert fake.context.set_input_shape.call_count == 4  # once per change, not once per run
    assert fake.context.set_optimization_profile_async.call_count == 0  # a new context has the only one


@needs_rtx
def test_the_profile_is_the_one_that_holds_the_shape(detector):
    """Of two sizes, and of one image or many; what is between two batches is filled up to the nearest."""
    profiles = [(ONE, ONE), ((4, 3, 32, 32), (8, 3, 32, 32)), ((1, 3, 64, 64), (2, 3, 96, 96))]
    fake = FakeEngine(trt, OPEN, profiles)
    model = detector(fake)
    wanted = [(ONE, 0), ((6, 3, 32, 32), 1), ((3, 3, 32, 32), 1), ((1, 3, 96, 64), 2), (ONE, 0)]
    for shape, profile in wanted:
        x = noise(*shape)
        check(model(x), x)
        assert fake.profile == profile
    for size in (128, 32 * 64):
        with pytest.raises(ValueError, match=r"32×32 or 32×32 or 64×64 to 96×96 px only, got (\d+)×.* a profile"):
            model(noise(1, 3, size, 32))


@needs_rtx
def test_a_cuda_graph_is_recorded_once_per_shape(detector):
    fake = FakeEngine(trt, (-1, 3, 32, 32), [(ONE, (4, 3, 32, 32))])
    model = detector(fake, cuda_graph=True)
    for _ in range(3):
        model(noise(1, 3, 32, 32))
    assert (fake.runs, FakeGraph.replays) == (2, 3)  # one run to warm up, one while recording
    model(noise(2, 3, 32, 32))
    assert (fake.runs, FakeGraph.replays) == (4, 4)


@needs_rtx
def test_bytes_go_in_as_bytes_and_sizes_are_read_in_their_order(detector):
    fake = FakeEngine(trt, (1, 32, 64, 3), dtype=trt.uint8)  # type: ignore[union-attr]
    model = detector(fake, images="uint8_nhwc")
    pixels = torch.randint(0, 256, (1, 3, 32, 64), generator=torch.Generator().manual_seed(0))
    boxes, _ = model(pixels / 255 - 1e-4)  # nearly whole
    assert boxes[0, 0, 0] == pixels.sum() and fake.shape == (1, 32, 64, 3)
    with pytest.raises(ValueError, match=r"takes images of 32×64 px only, got 64×32"):
        model(noise(1, 3, 64, 32))


@needs_rtx
def test_it_is_a_detector_like_others(detector):
    model = detector(FakeEngine(trt))
    assert (model.class_names, model.num_classes, model.image_size) == (["a", "b", "c"], 3, 32)
    found = model.predict(np.zeros((32, 32, 3), np.uint8), conf=0.001)
    assert found.class_names == ["a", "b", "c"] and found.image.shape == (32, 32, 3)
    fake = FakeEngine(trt)
    fake.context.execute_async_v3.side_effect = lambda stream: False
    with pytest.raises(RuntimeError, match="could not start"):
        detector(fake)(noise(1, 3, 32, 32))


@needs_rtx
def test_plans_that_do_not_belong_here(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"was built by tensorrt_rtx 1\.0\.0\.0, and is loaded by"):
        TensorRTDetector(write(tmp_path / "old.plan", version=(1, 0, 0, 0)))
    with pytest.raises(ValueError, match="runs only on an NVIDIA GPU that torch can use, and there is none here"):
        TensorRTDetector(write(tmp_path / "m.plan"))
    path = write(tmp_path / "m.plan")  # a header and nothing else; the real runtime looks at it
    with pytest.raises(ValueError, match=r"m\.plan: TensorRT cannot load the plan \(.+\): build it again"):
        load_engine(trt, path, path.read_bytes())  # type: ignore[arg-type]


@needs_rtx
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU that torch can use: plans cannot be run here")
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_on_a_gpu_the_plan_answers_like_the_graph(tmp_path, cuda_graph):
    build_engine(int8_pico(), tmp_path / "pico.plan", trt)
    x = noise(3, 3, 64, 64)
    boxes, scores = TensorRTDetector(tmp_path / "pico.plan", trt, cuda_graph)(x)
    expected_boxes, expected_scores = OnnxDetector(int8_pico())(x)
    assert (boxes.cpu() - expected_boxes).abs().mean() < 0.5  # px; a rounding that falls the other way is an INT8 step
    assert (scores.cpu() - expected_scores).abs().max() < 0.05
