"""A small well-formed Q/DQ network in ONNX's text form, to be broken by replacing a line."""

from typing import Any

import numpy as np
import onnx

from yolonas_lab.teaching.lessons.nb13 import model_of

WELL_FORMED = """
<ir_version: 10, opset_import: ["" : 20]>
detector (float[1, 4, 8, 8] images) => (float[1, 2, 16, 16] scores)
{
  ["image/Q"] image_q = QuantizeLinear(images, s_image, z)
  ["image/DQ"] image = DequantizeLinear(image_q, s_image, z)
  ["conv1/W"] w1 = DequantizeLinear<axis = 0>(w1_int8, s_w, z_w)
  ["conv1"] c1 = Conv<pads = [1, 1, 1, 1]>(image, w1, b)
  ["relu1"] r1 = Relu(c1)
  ["x/Q"] x_q = QuantizeLinear(r1, s_x, z)
  ["x/DQ"] x = DequantizeLinear(x_q, s_x, z)
  ["conv2/W"] w2 = DequantizeLinear<axis = 0>(w2_int8, s_w, z_w)
  ["conv2"] c2 = Conv<pads = [1, 1, 1, 1]>(x, w2, b)
  ["relu2"] r2 = Relu(c2)
  ["y/Q"] y_q = QuantizeLinear(r2, s_y, z)
  ["y/DQ"] y = DequantizeLinear(y_q, s_y, z)
  ["scaled"] ax = Mul(x, alpha)
  ["skip/Q"] skip_q = QuantizeLinear(ax, s_skip, z)
  ["skip/DQ"] skip = DequantizeLinear(skip_q, s_skip, z)
  ["sum"] added = Add(skip, y)
  ["added/Q"] t_q = QuantizeLinear(added, s_y, z)
  ["added/DQ"] t = DequantizeLinear(t_q, s_y, z)
  ["pool"] pooled = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(t)
  ["concat"] cat = Concat<axis = 1>(t, pooled, y)
  ["conv3/W"] w3 = DequantizeLinear<axis = 0>(w3_int8, s_w, z_w)
  ["conv3"] c3 = Conv(cat, w3, b)
  ["relu3"] r3 = Relu(c3)
  ["u/Q"] u_q = QuantizeLinear(r3, s_x, z)
  ["u/DQ"] u = DequantizeLinear(u_q, s_x, z)
  ["up/W"] w_up = DequantizeLinear<axis = 1>(up_int8, s_up, z_up)
  ["up"] c_up = ConvTranspose<strides = [2, 2]>(u, w_up, b_up)
  ["v/Q"] v_q = QuantizeLinear(c_up, s_x, z)
  ["v/DQ"] v = DequantizeLinear(v_q, s_x, z)
  ["conv4/W"] w4 = DequantizeLinear<axis = 0>(w4_int8, s_w, z_w)
  ["conv4"] c4 = Conv<pads = [1, 1, 1, 1]>(v, w4, b)
  ["relu4"] r4 = Relu(c4)
  ["pred"] logits = Conv(r4, w_pred, b_pred)
  ["sigmoid"] scores = Sigmoid(logits)
}
"""


def constants() -> dict[str, Any]:
    """Everything that a line of the text, or of a broken one, may name."""
    generator, f4 = np.random.default_rng(0), np.float32
    shapes = {"w1": (4, 4, 3, 3), "w2": (4, 4, 3, 3), "w3": (4, 12, 1, 1), "w4": (4, 6, 3, 3), "up": (4, 6, 2, 2)}
    scales = {"image": 1 / 128, "x": 0.03, "y": 0.05, "skip": 0.04, "other": 0.07, "zero": 0, "nan": np.nan}
    return {
        **{f"s_{name}": f4(scale) for name, scale in scales.items()},
        **{f"{name}_int8": generator.integers(-127, 128, shape).astype(np.int8) for name, shape in shapes.items()},
        "s_channels": np.full(4, 0.03, f4),
        "s_w": np.linspace(0.001, 0.002, 4, dtype=f4),
        "s_up": np.linspace(0.001, 0.002, 6, dtype=f4),
        "z": np.int8(0),
        "z_uint8": np.uint8(0),
        "z_w": np.zeros(4, np.int8),
        "z_up": np.zeros(6, np.int8),
        "w2_float": generator.normal(size=(4, 4, 3, 3)).astype(f4),
        "up_float": generator.normal(size=(4, 6, 2, 2)).astype(f4),
        "w_pred": generator.normal(size=(2, 4, 1, 1)).astype(f4),
        "b": np.array([0.1, -0.1, 0.2, 0.0], f4),
        "b_up": np.zeros(6, f4),
        "b_pred": np.zeros(2, f4),
        "alpha": np.array([0.8], f4),
        "bn": np.ones(4, f4),
    }


def network(*replacements: tuple[str, str]) -> onnx.ModelProto:
    """The well-formed network with parts of its text replaced, each of which must occur."""
    text = WELL_FORMED
    for old, new in replacements:
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times"
        text = text.replace(old, new)
    return model_of(text, constants())
