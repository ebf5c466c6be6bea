"""A detector from a file alone answers as the model; files that it cannot run are named."""

from pathlib import Path

import matplotlib
import numpy as np
import onnx
import pytest
import torch
from exports import all_ends_pico, cpu_nano, float_nano, int8_nano, nano, scene_images, scenes
from lab_exports import open_pico, pico

import yolonas_lab as yl
from yolonas_lab.deployment import OnnxDetector
from yolonas_lab.deployment.onnx_graph import load_onnx
from yolonas_lab.detections import Detections

torch.set_num_threads(1)
PHOTO = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"


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


def test_predict_is_the_models_predict():
    detector = OnnxDetector(float_nano(), threads=1)
    images = [scenes()[index].image for index in range(5)]  # the graph takes two at a time
    for found, expected in zip(many(detector, images), many(nano(), images), strict=True):
        same(found, expected)
    options = {"conf": 0.02, "iou": 0.5}
    same(detector.predict(PHOTO, **options), nano().predict(PHOTO, **options), px=0.2)  # the photo is ten times larger


def test_another_size_where_the_file_leaves_it_open():
    detector = OnnxDetector(open_pico(), threads=1)
    same(detector.predict(PHOTO, conf=0.02, image_size=160), pico().predict(PHOTO, conf=0.02, image_size=160), px=0.2)


def test_evaluate_takes_it():
    of_file = yl.evaluate.evaluate(OnnxDetector(float_nano(), threads=1), scenes(), progress=False)
    of_model = yl.evaluate.evaluate(nano(), scenes(), progress=False)
    assert of_file.ap == pytest.approx(of_model.ap, abs=1e-4) and of_file.num_images == 64


def test_with_preparation_and_nms_in_the_graph():
    """In float16, so the scores differ a little; the settings are those of the call, not of the export."""
    detector = OnnxDetector(all_ends_pico(), threads=1)
    assert (detector.info.images, detector.info.outputs, detector.info.precision) == (
        "uint8_nhwc",
        "detections",
        "float16",
    )
    images = [scenes()[index].image for index in range(3)]
    for conf, iou in ((0.25, 0.7), (0.05, 0.3), (0.6, 0.7), (0.25, 1.0)):
        pairs = zip(many(detector, images, conf, iou), many(pico(), images, conf, iou), strict=True)
        for found, expected in pairs:
            clear = expected.filter(conf + 0.02)
            assert abs(len(found) - len(expected)) <= 2 and len(found.filter(conf + 0.02)) >= len(clear) - 1
            overlap = yl.boxes.iou(clear.boxes, found.boxes)
            assert len(clear) == 0 or (overlap.amax(dim=1) > 0.9).all()
    ap, expected_ap = (yl.evaluate.evaluate(m, scenes(), progress=False).ap for m in (detector, pico()))
    assert abs(ap - expected_ap) < 0.01


def test_pixels_between_two_values_go_to_the_nearer_one():
    detector = OnnxDetector(all_ends_pico(), threads=1)
    between, whole = (torch.full((1, 3, 64, 64), value / 255) for value in (99.6, 100.0))
    assert torch.equal(detector.boxes_and_scores(between)[1], detector.boxes_and_scores(whole)[1])


def test_raw_answers():
    detector = OnnxDetector(float_nano(), threads=1)
    boxes, scores = detector.boxes_and_scores(scene_images()[:3])
    assert boxes.shape == (3, 84, 4) and scores.shape == (3, 84, 6)
    alone, _ = detector.boxes_and_scores(scene_images()[2:3])  # the last one of an odd number is filled up
    torch.testing.assert_close(alone[0], boxes[2], rtol=0, atol=1e-4)


def test_images_that_do_not_fit():
    detector = OnnxDetector(float_nano())
    with pytest.raises(ValueError, match=r"takes images of 64×64 px only, got 96×96: leave image_size out, or export"):
        detector.predict(PHOTO, image_size=96)
    with pytest.raises(ValueError, match="multiples of 32 px"):
        OnnxDetector(open_pico()).boxes_and_scores(torch.zeros(1, 3, 40, 64))
    with pytest.raises(ValueError, match="divide uint8 images by 255"):
        detector.boxes_and_scores(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


def test_files_that_it_cannot_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.onnx does not exist"):
        OnnxDetector(tmp_path / "none.onnx")
    path = tmp_path / "text.onnx"
    path.write_text("not a model")
    with pytest.raises(ValueError, match=r"text\.onnx .*export it again"):
        OnnxDetector(path)
    model = load_onnx(float_nano())
    model.opset_import[0].version = 22
    onnx.save(model, path := tmp_path / "new.onnx")
    with pytest.raises(ValueError, match=r"new\.onnx uses opset 22, but this library reads opsets 13 to 20"):
        OnnxDetector(path)
    model = load_onnx(float_nano())
    del model.metadata_props[:]
    onnx.save(model, path := tmp_path / "bare.onnx")
    with pytest.raises(ValueError, match=r"bare\.onnx has no 'yolonas_lab' metadata"):
        OnnxDetector(path)


def test_a_graph_that_onnxruntime_refuses(tmp_path):
    model = load_onnx(float_nano())
    model.graph.node[0].op_type = "Convolve"
    onnx.save(model, path := tmp_path / "odd.onnx")
    with pytest.raises(ValueError, match=r"onnxruntime cannot run .*odd\.onnx"):
        OnnxDetector(path)


def test_an_unknown_provider():
    with pytest.raises(ValueError, match=r"has no AbacusExecutionProvider here; it has .*CPUExecutionProvider"):
        OnnxDetector(float_nano(), providers=("AbacusExecutionProvider",))


def test_int8_graphs_are_computed_as_written_unless_told_otherwise():
    for path, optimized in ((int8_nano(), False), (cpu_nano(), True), (float_nano(), True)):
        level = OnnxDetector(path).session.get_session_options().graph_optimization_level
        assert (level.name == "ORT_ENABLE_ALL") == optimized
    assert np.isfinite(OnnxDetector(int8_nano(), optimize=True).boxes_and_scores(scene_images())[0].numpy()).all()
