"""ONNX graphs of one or two nodes, for what TensorRT's parser and builder refuse."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, UINT8, FLOAT16 = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.FLOAT16
node = helper.make_node


def constant(name: str, value) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value), name)


def write_graph(
    path, nodes: Sequence, constants: Sequence = (), shape: Sequence = (1, 3, 32, 32), dtype: int = FLOAT
) -> str:
    """A graph from "images" to "y", as a file."""
    images = helper.make_tensor_value_info("images", dtype, shape)
    y = helper.make_tensor_value_info("y", FLOAT, None)
    graph = helper.make_graph(list(nodes), "small", [images], [y], list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)
    return str(path)


def q_dq(name: str, source: str, target: str, scale: str = "s", zero: str = "z") -> list:
    """QuantizeLinear and DequantizeLinear from source to target."""
    return [
        node("QuantizeLinear", [source, scale, zero], [f"{target}_q"], f"{name}/QuantizeLinear"),
        node("DequantizeLinear", [f"{target}_q", scale, zero], [target], f"{name}/DequantizeLinear"),
    ]


SCALE, ZERO = constant("s", np.float32(0.05)), constant("z", np.int8(0))


def quantized_conv(path, **options) -> str:
    """images -> Q/DQ -> conv with a quantized 4×3×1×1 weight -> y."""
    weight = constant("w", np.arange(12, dtype=np.int8).reshape(4, 3, 1, 1))
    nodes = [
        *q_dq("images", "images", "x"),
        node("DequantizeLinear", ["w", "s", "z"], ["wf"], "conv.weight/DequantizeLinear"),
        node("Conv", ["x", "wf"], ["y"], "conv/Conv"),
    ]
    return write_graph(path, nodes, [SCALE, ZERO, weight], **options)
