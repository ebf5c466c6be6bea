"""A Q/DQ network small enough to read, in ONNX's text form, and a way to break each of the twelve rules in it.

Notebook 13 shows the broken ones, lets TensorRT's builder judge them, and has the reader repair one.
"""

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from yolonas_lab.suggest import unknown_name

if TYPE_CHECKING:
    from onnx import ModelProto

WELL_FORMED = """\
<ir_version: 10, opset_import: ["" : 20]>
detector (float[1, 3, 32, 32] images) => (float[1, 2, 32, 32] scores)
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
  ["sum"] added = Add(x, y)
  ["t/Q"] t_q = QuantizeLinear(added, s_y, z)
  ["t/DQ"] t = DequantizeLinear(t_q, s_y, z)
  ["concat"] cat = Concat<axis = 1>(t, y)
  ["conv3/W"] w3 = DequantizeLinear<axis = 0>(w3_int8, s_w, z_w)
  ["conv3"] c3 = Conv(cat, w3, b)
  ["relu3"] r3 = Relu(c3)
  ["pred"] logits = Conv(r3, w_pred, b_pred)
  ["sigmoid"] scores = Sigmoid(logits)
}
"""
HIDDEN = ("conv1", "conv2", "conv3")  # the convolutions that may run in INT8

_EARLY = '["early/Q"] early_q = QuantizeLinear(c2, s_x, z)\n  ["early/DQ"] early = DequantizeLinear(early_q, s_x, z)\n'
_PRED = (
    '["p/Q"] p_q = QuantizeLinear(r3, s_x, z)\n  ["p/DQ"] p = DequantizeLinear(p_q, s_x, z)\n'
    '  ["pred/W"] w_p = DequantizeLinear<axis = 0>(pred_int8, s_pred, z_pred)\n  ["pred"] logits = Conv(p, w_p, b_pred)'
)
# What was done wrong: the rule it breaks, and what is replaced in the well-formed text.
BREAKS: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "weight quantized, activation not": ("R1", (("(x, w2, b)", "(r1, w2, b)"),)),
    "activation quantized, weight not": ("R1", (("(image, w1, b)", "(image, w1_float, b)"),)),
    "one scale per input channel": ("R2", (("<axis = 0>(w2_int8", "<axis = 1>(w2_int8"),)),
    "zero-point 1": ("R3", (("(r1, s_x, z)", "(r1, s_x, z_one)"), ("(x_q, s_x, z)", "(x_q, s_x, z_one)"))),
    "scale computed at run time": (
        "R4",
        (
            ('["x/Q"]', '["scale"] s_now = Identity(s_x)\n  ["x/Q"]'),
            ("(r1, s_x, z)", "(r1, s_now, z)"),
            ("(x_q, s_x, z)", "(x_q, s_now, z)"),
        ),
    ),
    "Q/DQ before the ReLU": ("R5", (('["relu2"] r2 = Relu(c2)', f'{_EARLY}  ["relu2"] r2 = Relu(early)'),)),
    "skip in float": ("R6", (("Add(x, y)", "Add(r1, y)"),)),
    "two scales in a Concat": ("R7", (("(added, s_y, z)", "(added, s_t, z)"), ("(t_q, s_y, z)", "(t_q, s_t, z)"))),
    "AveragePool quantized behind only": (
        "R8",
        (
            ('["y/Q"]', '["average"] mean = AveragePool<kernel_shape = [1, 1]>(r2)\n  ["y/Q"]'),
            ("QuantizeLinear(r2, s_y, z)", "QuantizeLinear(mean, s_y, z)"),
        ),
    ),
    "predictions quantized": ("R9", (('["pred"] logits = Conv(r3, w_pred, b_pred)', _PRED),)),
    "Clip on integers": (
        "R10",
        (
            ('["conv2/W"]', '["clip"] w2_clipped = Clip(w2_int8, low, high)\n  ["conv2/W"]'),
            ("(w2_int8, s_w, z_w)", "(w2_clipped, s_w, z_w)"),
        ),
    ),
    "bias quantized": (
        "R11",
        (
            ('["conv2"]', '["bias"] b2 = DequantizeLinear<axis = 0>(b_int32, s_bias, z_bias)\n  ["conv2"]'),
            ("(x, w2, b)", "(x, w2, b2)"),
        ),
    ),
    "uint8 image transposed first": (
        "R12",
        (
            ("float[1, 3, 32, 32] images", "uint8[1, 32, 32, 3] pixels"),
            (
                '["image/Q"]',
                '["to_nchw"] turned = Transpose<perm = [0, 3, 1, 2]>(pixels)\n'
                '  ["cast"] images = Cast<to = 1>(turned)\n  ["image/Q"]',
            ),
        ),
    ),
}
_FAULTS = ("activation quantized, weight not", "skip in float", "two scales in a Concat")  # those of the exercise


def broken_text(name: str) -> str:
    """The text of the network with this mistake of BREAKS; ValueError for another name."""
    if name not in BREAKS:
        raise ValueError(unknown_name("mistake", name, BREAKS))
    return _replaced(name)


def faulty_text() -> str:
    """The text of the network with the three mistakes that the exercise has the reader find."""
    return _replaced(*_FAULTS)


def _replaced(*names: str) -> str:
    text = WELL_FORMED
    for name in names:
        for old, new in BREAKS[name][1]:
            if text.count(old) != 1:
                raise AssertionError(f"{old!r} must occur once in the network, not {text.count(old)} times")
            text = text.replace(old, new)
    return text


def model_of(text: str, arrays: Mapping[str, Any] | None = None) -> "ModelProto":
    """The ONNX model of a text, with those of `arrays` that it names as constants; by default those of this module.

    Raises ValueError where it is no valid graph.
    """
    import onnx
    from onnx import numpy_helper

    try:
        model = onnx.parser.parse_model(text)
    except onnx.parser.ParseError as error:
        raise ValueError(f"this is not ONNX text any more: {str(error).splitlines()[0][:200]}") from error
    made = {tensor for node in model.graph.node for tensor in node.output} | {i.name for i in model.graph.input}
    used = {tensor for node in model.graph.node for tensor in node.input}
    known = constants() if arrays is None else arrays
    if unknown := sorted(used - made - set(known)):
        raise ValueError(f"the graph reads {unknown[0]!r}, which no line makes.")
    needed = {name: array for name, array in known.items() if name in used - made}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), name) for name, a in needed.items())
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ValueError(f"this is no valid graph: {str(error).splitlines()[0][:200]}") from error
    return model


@cache
def constants() -> dict[str, Any]:
    """Everything that a line of the text, or of a broken one, may name; w1_float is what w1_int8 stands for."""
    generator = np.random.default_rng(0)

    def integers(*shape: int) -> np.ndarray:
        return generator.integers(-127, 128, shape).astype(np.int8)

    f4 = np.float32
    scales = np.linspace(0.001, 0.002, 4, dtype=f4)
    w1 = integers(4, 3, 3, 3)
    return {
        **{"s_image": f4(1 / 127), "s_x": f4(0.02), "s_y": f4(0.02), "s_t": f4(0.03), "s_w": scales},
        **{"s_bias": np.full(4, 1e-4, f4), "s_pred": np.full(2, 0.001, f4)},
        **{"z": np.int8(0), "z_one": np.int8(1), "low": np.int8(-127), "high": np.int8(127)},
        **{"z_w": np.zeros(4, np.int8), "z_pred": np.zeros(2, np.int8), "z_bias": np.zeros(4, np.int32)},
        **{"w1_int8": w1, "w2_int8": integers(4, 4, 3, 3), "w3_int8": integers(4, 8, 1, 1)},
        **{"w1_float": w1 * scales[:, None, None, None], "pred_int8": integers(2, 4, 1, 1)},
        **{"w_pred": generator.normal(scale=20, size=(2, 4, 1, 1)).astype(f4), "b_pred": np.zeros(2, f4)},
        **{"b": np.array([0.1, -0.1, 0.2, 0.0], f4), "b_int32": np.array([1000, -1000, 2000, 0], np.int32)},
    }
