"""Q/DQ behind Concat and MaxPool: the same values, on the same grid."""

import numpy as np
import onnx
import onnxruntime
from qdq_text import network

from yolonas_lab.deployment.graph_passes import requantize_moved_values


def run(model) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, {"images": np.random.default_rng(0).random((1, 4, 8, 8), np.float32)})[0]  # type: ignore


def test_values_stay_and_both_get_a_pair():
    model = network()
    before = run(model)
    requantize_moved_values(model)
    inputs = {node.name: list(node.input) for node in model.graph.node}
    assert inputs["concat"] == ["t", "pool/DequantizeLinear", "y"] and inputs["conv3"][0] == "concat/DequantizeLinear"
    assert inputs["pool/QuantizeLinear"] == ["pooled", "s_y", "z"]
    assert inputs["concat/DequantizeLinear"] == ["concat/QuantizeLinear", "s_y", "z"]
    np.testing.assert_array_equal(run(model), before)


def test_a_concat_of_two_grids_and_float_pools_are_left_alone():
    model = network(("(r2, s_y, z)", "(r2, s_other, z)"), ("(y_q, s_y, z)", "(y_q, s_other, z)"))
    requantize_moved_values(model)
    names = {node.name for node in model.graph.node}
    assert "pool/QuantizeLinear" in names and "concat/QuantizeLinear" not in names
    model = network(("pads = [1, 1, 1, 1]>(t)", "pads = [1, 1, 1, 1]>(added)"))
    requantize_moved_values(model)
    assert "pool/QuantizeLinear" not in {node.name for node in model.graph.node}


def test_constants_that_are_merely_moved_are_left_alone():
    model = network(('["scaled"]', '["both"] alphas = Concat<axis = 0>(alpha, alpha)\n["scaled"]'))
    model.graph.output.append(onnx.helper.make_tensor_value_info("alphas", onnx.TensorProto.FLOAT, [2]))
    requantize_moved_values(model)
    assert "both/QuantizeLinear" not in {node.name for node in model.graph.node}
