"""Half precision inside, Q/DQ behind Concat and MaxPool, NMS that is `postprocess`, uint8 images: by onnxruntime."""

import copy

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from exports import float_nano, int8_pico, scene_images
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper
from qdq_text import network

from yolonas_lab.deployment.graph_passes import (
    SMALLEST,
    append_nms,
    prepend_preprocessing,
    requantize_moved_values,
    to_float16,
)
from yolonas_lab.deployment.onnx_graph import load_onnx
from yolonas_lab.detect import postprocess


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """The graph as it is written."""
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def run(model: onnx.ModelProto, images: np.ndarray) -> list[np.ndarray]:
    return session(model).run(None, {"images": images})  # type: ignore[return-value]


# half precision


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    model = copy.deepcopy(model)
    to_float16(model)
    return model


@pytest.mark.parametrize("path", [float_nano, pytest.param(int8_pico, marks=pytest.mark.slow)])
def test_every_convolution_is_half_and_the_ends_are_float(path):
    model = halved(load_onnx(path()))
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.output)}
    convolutions = [node for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose")]
    assert convolutions and all(types[node.output[0]] == TensorProto.FLOAT16 for node in convolutions)
    tail = [node for node in model.graph.node if node.name.startswith("decode/")]
    assert tail and all(types[node.output[0]] == TensorProto.FLOAT for node in tail)
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert sum(node.op_type == "Cast" for node in model.graph.node) <= 3


def test_the_answers_are_nearly_those_of_float32():
    images, model = scene_images()[:2].numpy(), load_onnx(float_nano())
    (boxes, scores), (half_boxes, half_scores) = run(model, images), run(halved(model), images)
    assert 0 < np.abs(half_boxes - boxes).max() < 0.5 and np.abs(half_scores - scores).max() < 0.02


SCALED = """<ir_version: 10, opset_import: ["" : 20]>
layer (float[1, 1, 2, 2] images) => (float[1, 2, 2, 2] out)
<float s = {0.5}, int8 z = {0}, float[2] s_w = {0.00001, 0.01}, int8[2] z_w = {0, 0}>
{
  ["Q"] q = QuantizeLinear(images, s, z)
  ["DQ"] x = DequantizeLinear(q, s, z)
  ["W"] w = DequantizeLinear<axis = 0>(w_int8, s_w, z_w)
  ["conv"] y = Conv(x, w)
  ["decode/Identity"] out = Identity(y)
}"""


def with_weight(text: str, name: str, array: np.ndarray) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


def test_scales_too_small_for_float16_are_raised_and_their_weights_rounded_anew():
    weight = np.array([100, 100], np.int8).reshape(2, 1, 1, 1)
    model = halved(with_weight(SCALED, "w_int8", weight))
    arrays = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    assert arrays["s_w"].dtype == np.float16
    assert arrays["s_w"].tolist() == [SMALLEST, np.float16(0.01)]
    assert arrays["w_int8"].ravel().tolist() == [round(100 * 1e-5 / SMALLEST), 100]
    (out,) = run(model, np.full((1, 1, 2, 2), 2.0, np.float32))
    np.testing.assert_allclose(out[0, :, 0, 0], [2 * 100 * 1e-5, 2 * 100 * 0.01], atol=2 * SMALLEST / 2 + 2e-3)


def test_a_weight_beyond_float16():
    text = SCALED.replace('  ["W"] w = DequantizeLinear<axis = 0>(w_int8, s_w, z_w)\n', "")
    with pytest.raises(ValueError, match="w holds values beyond 65504, too large for float16"):
        to_float16(with_weight(text, "w", np.full((2, 1, 1, 1), 1e5, np.float32)))


# Q/DQ for CPUs


def test_values_stay_and_both_get_a_pair():
    model, images = network(), np.random.default_rng(0).random((1, 4, 8, 8), np.float32)
    before = run(model, images)[0]
    requantize_moved_values(model)
    inputs = {node.name: list(node.input) for node in model.graph.node}
    assert inputs["concat"] == ["t", "pool/DequantizeLinear", "y"] and inputs["conv3"][0] == "concat/DequantizeLinear"
    assert inputs["pool/QuantizeLinear"] == ["pooled", "s_y", "z"]
    assert inputs["concat/DequantizeLinear"] == ["concat/QuantizeLinear", "s_y", "z"]
    np.testing.assert_array_equal(run(model, images)[0], before)


def test_two_grids_float_pools_and_moved_constants_are_left_alone():
    two_grids = network(("(r2, s_y, z)", "(r2, s_other, z)"), ("(y_q, s_y, z)", "(y_q, s_other, z)"))
    float_pool = network(("pads = [1, 1, 1, 1]>(t)", "pads = [1, 1, 1, 1]>(added)"))
    constant = network(('["scaled"]', '["both"] alphas = Concat<axis = 0>(alpha, alpha)\n["scaled"]'))
    constant.graph.output.append(onnx.helper.make_tensor_value_info("alphas", TensorProto.FLOAT, [2]))
    for model, left in ((two_grids, "concat"), (float_pool, "pool"), (constant, "both")):
        requantize_moved_values(model)
        names = {node.name for node in model.graph.node}
        assert f"{left}/QuantizeLinear" not in names
        assert (left == "pool") == ("pool/QuantizeLinear" not in names)


# both ends

CANDIDATES = """<ir_version: 10, opset_import: ["" : 20]>
given (float[b, a, 4] given_boxes, float[b, a, 3] given_scores) => (float[b, a, 4] boxes, float[b, a, 3] scores)
{ boxes = Identity(given_boxes)  scores = Identity(given_scores) }"""
NAMES = ["num_detections", "boxes", "scores", "labels"]


def nms_session(**numbers) -> onnxruntime.InferenceSession:
    return session(append_nms(onnx.parser.parse_model(CANDIDATES), **numbers))


DEFAULT, SMALL = nms_session(), nms_session(top_k=20, max_detections=8)


def check_nms(run, boxes, scores, conf, iou, top_k, max_detections) -> None:
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
    levels=st.sampled_from([1, 3, 1000]),  # few score levels make ties
    conf=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    iou=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
)
def test_nms_in_the_graph_is_postprocess(seed, images, anchors, levels, conf, iou):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(images, anchors, 2, generator=generator) * 60
    size = torch.rand(images, anchors, 2, generator=generator) * 40 + 1
    boxes = torch.cat([corner, corner + size], dim=-1)
    scores = torch.randint(0, levels + 1, (images, anchors, 3), generator=generator) / levels
    check_nms(DEFAULT, boxes, scores, conf, iou, 1024, 300)
    check_nms(SMALL, boxes, scores, conf, iou, 20, 8)


def test_nms_with_its_own_thresholds_and_where_nothing_is_found():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]]])
    scores = torch.tensor([[[0.9, 0.3, 0], [0.8, 0, 0], [0, 0.2, 0.6]]])  # two labels on the first box
    feed = {"given_boxes": boxes.numpy(), "given_scores": scores.numpy()}
    counts, _, found_scores, labels = map(np.asarray, DEFAULT.run(NAMES, feed))  # .25 and .7
    assert counts.tolist() == [3] and labels[0, :3].tolist() == [0, 2, 1]
    np.testing.assert_allclose(found_scores[0, :4], [0.9, 0.6, 0.3, 0])
    check_nms(DEFAULT, torch.zeros(2, 5, 4), torch.zeros(2, 5, 3), 0.25, 0.7, 1024, 300)


def test_uint8_images_are_divided_and_turned():
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 20]>
    same (float[b, 3, h, w] images) => (float[b, 3, h, w] out) { out = Identity(images) }""")
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    (out,) = run(prepend_preprocessing(model), images)
    np.testing.assert_array_equal(out, (torch.from_numpy(images).permute(0, 3, 1, 2) / 255).numpy())
