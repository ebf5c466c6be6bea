"""Half precision inside, float32 at both ends; scales that float16 can hold."""

import copy

import numpy as np
import onnx
import onnxruntime
import pytest
from exports import float_nano, int8_nano, scene_images
from onnx import TensorProto, numpy_helper

from yolonas_lab.deployment.graph_passes import SMALLEST, to_float16
from yolonas_lab.deployment.onnx_graph import load_onnx


def run(model: onnx.ModelProto, images: np.ndarray) -> list[np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"images": images})  # type: ignore


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    model = copy.deepcopy(model)
    to_float16(model)
    return model


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    return {v.name: v.type.tensor_type.elem_type for v in (*inferred.graph.value_info, *inferred.graph.output)}


@pytest.mark.parametrize("path", [float_nano, int8_nano])
def test_every_convolution_is_half_and_the_ends_are_float(path):
    model = halved(load_onnx(path()))
    types = types_of(model)
    convolutions = [node for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose")]
    assert convolutions and all(types[node.output[0]] == TensorProto.FLOAT16 for node in convolutions)
    tail = [node for node in model.graph.node if node.name.startswith("decode/")]
    assert tail and all(types[node.output[0]] == TensorProto.FLOAT for node in tail)
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    left = {node.op_type for node in model.graph.node if node.op_type == "Cast"}
    assert left == {"Cast"} and sum(node.op_type == "Cast" for node in model.graph.node) <= 3


def test_the_answers_are_nearly_those_of_float32():
    images = scene_images()[:2].numpy()
    model = load_onnx(float_nano())
    (boxes, scores), (half_boxes, half_scores) = run(model, images), run(halved(model), images)
    assert np.abs(half_boxes - boxes).max() < 0.5 and np.abs(half_scores - scores).max() < 0.02
    assert np.abs(half_boxes - boxes).max() > 0  # it is another computation


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
    images = np.full((1, 1, 2, 2), 2.0, np.float32)
    (out,) = run(model, images)
    np.testing.assert_allclose(out[0, :, 0, 0], [2 * 100 * 1e-5, 2 * 100 * 0.01], atol=2 * SMALLEST / 2 + 2e-3)


def test_a_weight_beyond_float16():
    text = SCALED.replace('  ["W"] w = DequantizeLinear<axis = 0>(w_int8, s_w, z_w)\n', "")
    model = with_weight(text, "w", np.full((2, 1, 1, 1), 1e5, np.float32))
    with pytest.raises(ValueError, match="w holds values beyond 65504, which float16 cannot hold"):
        to_float16(model)
