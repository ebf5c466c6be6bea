"""OpenVINO against onnxruntime on the same exported file, and the files that it does not take."""

import pytest
import torch
from exports import cpu_nano, scene_images, scenes
from lab_exports import float_pico, int8_pico, open_pico

import yolonas_lab as yl
from yolonas_lab.deployment.detectors import OnnxDetector, OpenVinoDetector
from yolonas_lab.detections import Detections
from yolonas_lab.models import decode


def test_a_missing_package_names_the_pip_command(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(ImportError, match=r"pip install 'yolonas-lab\[openvino\]'"):
        OpenVinoDetector(float_pico())


def test_files_that_it_does_not_take(tmp_path):
    with pytest.raises(ValueError, match=r"int8\.onnx is quantized for TensorRT"):
        OpenVinoDetector(int8_pico())
    with pytest.raises(ValueError, match=r"open\.onnx has NMS, preprocessing or open sizes"):
        OpenVinoDetector(open_pico())
    with pytest.raises(FileNotFoundError, match="nowhere"):
        OpenVinoDetector(tmp_path / "nowhere.onnx")


def test_it_answers_like_onnxruntime():
    pytest.importorskip("openvino", reason="OpenVINO is not installed (extra openvino)")
    x = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    detector, expected = OpenVinoDetector(float_pico(), threads=1), OnnxDetector(float_pico())
    boxes, scores = detector.boxes_and_scores(x)
    expected_boxes, expected_scores = expected.boxes_and_scores(x)
    assert (boxes - expected_boxes).abs().max() < 1e-2 and (scores - expected_scores).abs().max() < 1e-4
    torch.testing.assert_close(decode(detector(x))[1], scores)
    image = (x[0] * 255).to(torch.uint8).permute(1, 2, 0).numpy()
    found, wanted = detector.predict(image, conf=0.05), expected.predict(image, conf=0.05)
    assert isinstance(found, Detections) and isinstance(wanted, Detections)
    assert len(found) == len(wanted) and found.class_names == wanted.class_names
    with pytest.raises(ValueError, match="takes images of 64 px only"):
        detector.boxes_and_scores(torch.rand(1, 3, 96, 96))


def test_the_int8_export_for_cpus_finds_what_the_graph_as_written_finds():
    pytest.importorskip("openvino", reason="OpenVINO is not installed (extra openvino)")
    detector, written = OpenVinoDetector(cpu_nano(), threads=1), OnnxDetector(cpu_nano(), optimize=False)
    three = scene_images()[:3]  # the file takes eight at a time
    (boxes, scores), (_, expected) = detector.boxes_and_scores(three), written.boxes_and_scores(three)
    assert len(boxes) == len(scores) == 3
    assert (scores - expected).abs().mean() < 1e-3  # roundings fall the other way, and each may be a whole step
    ap, expected_ap = (yl.evaluate.evaluate(d, scenes(), progress=False).ap for d in (detector, written))
    assert ap == pytest.approx(expected_ap, abs=0.01)
