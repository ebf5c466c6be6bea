"""NMS in the graph is `postprocess`; the uint8 input is divided and turned."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yolonas_lab.deployment.graph_passes import append_nms, prepend_preprocessing
from yolonas_lab.detect import postprocess

CANDIDATES = """<ir_version: 10, opset_import: ["" : 20]>
given (float[b, a, 4] given_boxes, float[b, a, 3] given_scores) => (float[b, a, 4] boxes, float[b, a, 3] scores)
{ boxes = Identity(given_boxes)  scores = Identity(given_scores) }"""
NAMES = ["num_detections", "boxes", "scores", "labels"]


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def nms_session(**numbers) -> onnxruntime.InferenceSession:
    return session(append_nms(onnx.parser.parse_model(CANDIDATES), **numbers))


DEFAULT, SMALL = nms_session(), nms_session(top_k=20, max_detections=8)


def candidates(seed: int, images: int, anchors: int, levels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Overlapping boxes; few score levels make ties."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(images, anchors, 2, generator=generator) * 60
    size = torch.rand(images, anchors, 2, generator=generator) * 40 + 1
    scores = torch.randint(0, levels + 1, (images, anchors, 3), generator=generator) / levels
    return torch.cat([corner, corner + size], dim=-1), scores


def check(run, boxes, scores, conf, iou, top_k, max_detections) -> None:
    feed = {"given_boxes": boxes.numpy(), "given_scores": scores.numpy()}
    feed |= {"conf": np.full(1, conf, np.float32), "iou": np.full(1, iou, np.float32)}
    counts, found_boxes, found_scores, labels = run.run(NAMES, feed)
    for image in range(len(boxes)):
        kept = postprocess(boxes[image], scores[image], conf, iou, top_k, max_detections)
        n = len(kept.scores)
        assert counts[image] == n
        np.testing.assert_array_equal(found_boxes[image, :n], kept.boxes.numpy())
        np.testing.assert_array_equal(found_scores[image, :n], kept.scores.numpy())
        np.testing.assert_array_equal(labels[image, :n], kept.labels.numpy())
        assert not (found_boxes[image, n:].any() or found_scores[image, n:].any() or labels[image, n:].any())


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    images=st.integers(1, 3),
    anchors=st.integers(1, 60),
    levels=st.sampled_from([1, 3, 1000]),
    conf=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    iou=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
)
def test_nms_in_the_graph_is_postprocess(seed, images, anchors, levels, conf, iou):
    boxes, scores = candidates(seed, images, anchors, levels)
    check(DEFAULT, boxes, scores, conf, iou, 1024, 300)
    check(SMALL, boxes, scores, conf, iou, 20, 8)


def test_nms_by_hand():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]]])
    scores = torch.tensor([[[0.9, 0.3, 0], [0.8, 0, 0], [0, 0.2, 0.6]]])
    feed = {"given_boxes": boxes.numpy(), "given_scores": scores.numpy()}
    counts, found, found_scores, labels = map(
        np.asarray, DEFAULT.run(NAMES, feed)
    )  # with the thresholds it was made with: .25, .7
    # the second box overlaps the first with IoU .9; the first box has two labels
    assert counts.tolist() == [3] and labels[0, :3].tolist() == [0, 2, 1]
    np.testing.assert_allclose(found_scores[0, :4], [0.9, 0.6, 0.3, 0])
    assert found[0, :3].tolist() == [[0, 0, 10, 10], [50, 50, 60, 60], [0, 0, 10, 10]]


def test_nothing_found():
    check(DEFAULT, torch.zeros(2, 5, 4), torch.zeros(2, 5, 3), 0.25, 0.7, 1024, 300)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [({"conf": 25}, "conf must lie in"), ({"iou": -1}, "iou must lie in"), ({"top_k": 0}, "at least 1")],
)
def test_bad_settings(numbers, message):
    with pytest.raises(ValueError, match=message):
        nms_session(**numbers)


def test_uint8_images_are_divided_and_turned():
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 20]>
    same (float[b, 3, h, w] images) => (float[b, 3, h, w] out) { out = Identity(images) }""")
    run = session(prepend_preprocessing(model))
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    (out,) = run.run(None, {"images": images})
    expected = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    np.testing.assert_array_equal(out, expected.numpy())
