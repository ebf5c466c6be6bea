"""Every rule is broken in at least one way, and each broken graph has exactly its finding."""

import numpy as np
import onnx
import pytest
from qdq_text import network

from yolonas_lab.deployment.qdq_rules import RULES, Violation, check_qdq, quantized_layers

QDQ = '["{0}/Q"] {0}_q = QuantizeLinear({1}, {2}, z)\n["{0}/DQ"] {0} = DequantizeLinear({0}_q, {2}, z)\n'
AVERAGE = '["average"] {0} = AveragePool<kernel_shape = [1, 1]>({1})\n'
POOL = '["pool"] pooled = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(t)'
RELU3 = '["relu3"] r3 = Relu(c3)'
BATCH_NORM = '["bn"] normed = BatchNormalization(early, bn, bn, bn, bn)\n["relu3"] r3 = Relu(normed)'
TWO_CONVS = "".join(f'["{side}"] {side} = Conv<pads = [1, 1, 1, 1]>(x, w2, b)\n' for side in ("left", "right"))


def x_with(rest: str) -> tuple[tuple[str, str], ...]:
    """x quantized with another scale and zero-point."""
    return ("(r1, s_x, z)", f"(r1, {rest})"), ("(x_q, s_x, z)", f"(x_q, {rest})")


def before(name: str, line: str, *rest: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """Another line before that of this node."""
    return (f'["{name}"]', f'{line}["{name}"]'), *rest


# What is wrong: the rule, the node to be named, and what is replaced in the well-formed network. Notebook 13 breaks
# every rule once more in a network of its own (tests/teaching/test_lesson_nb13.py).
BROKEN: dict[str, tuple[str, str, tuple[tuple[str, str], ...]]] = {
    "weight only": ("R1", "conv4", (("(v, w4, b)", "(c_up, w4, b)"),)),
    "activation per channel": ("R2", "x/Q", x_with("s_channels, z_w")),
    "ConvTranspose along input channels": ("R2", "up/W", (("1>(up_int8, s_up, z_up)", "0>(up_int8, s_w, z_w)"),)),
    "no zero-point": ("R3", "x/Q", x_with("s_x")),
    "no zero-point of a weight": ("R3", "conv2/W", (("(w2_int8, s_w, z_w)", "(w2_int8, s_w)"),)),
    "uint8": ("R3", "x/Q", x_with("s_x, z_uint8")),
    "scale 0": ("R4", "x/Q", x_with("s_zero, z")),
    "scale NaN": ("R4", "x/Q", x_with("s_nan, z")),
    "Q/DQ before BatchNorm": ("R5", "early/Q", ((RELU3, QDQ.format("early", "c3", "s_x") + BATCH_NORM),)),
    "skip in float": ("R6", "sum", (("Add(skip, y)", "Add(ax, y)"),)),
    "skip before its Q/DQ": ("R6", "sum", (("Add(skip, y)", "Add(r1, y)"),)),
    "two convolutions summed": ("R6", "sum", before("sum", TWO_CONVS, ("Add(skip, y)", "Add(left, right)"))),
    "float in a Concat": ("R7", "concat", (("(t, pooled, y)", "(t, pooled, r2)"),)),
    "Q/DQ after MaxPool": (
        "R7",
        "pool",
        ((POOL, POOL.replace("pooled", "raw") + "\n" + QDQ.format("pooled", "raw", "s_y")),),
    ),
    "AveragePool quantized before only": (
        "R8",
        "average",
        before("up/W", AVERAGE.format("mean", "u"), ("(u, w_up, b_up)", "(mean, up_float, b_up)")),
    ),
    "tail quantized": (
        "R9",
        "l/Q",
        before("sigmoid", QDQ.format("l", "logits", "s_x"), ("Sigmoid(logits)", "Sigmoid(l)")),
    ),
}

# correct, though it looks like some mistake above
ALLOWED: dict[str, tuple[tuple[str, str], ...]] = {
    "as it is": (),
    "one scale for all channels of a weight": (("axis = 0>(w2_int8, s_w, z_w)", "axis = 0>(w2_int8, s_x, z)"),),
    "a float layer beside a quantized one": (("(x, w2, b)", "(x, w2_float, b)"),),
    "a weight that the graph quantizes itself": before(
        "conv2/W",
        '["conv2/WQ"] w2_q = QuantizeLinear<axis = 0>(w2_float, s_w, z_w)\n',
        ("(w2_int8, s_w, z_w)", "(w2_q, s_w, z_w)"),
    ),
    "a sum that takes a convolution directly": (
        ("Add(skip, y)", "Add(skip, r2)"),
        ("(t, pooled, y)", "(t, pooled, t)"),
    ),
    "a negative axis": (("axis = 0>(w2_int8", "axis = -4>(w2_int8"),),
    "a uint8 image cast first": before(
        "image/Q",
        '["cast"] images = Cast<to = 1>(pixels)\n',
        ("float[1, 4, 8, 8] images", "uint8[1, 4, 8, 8] pixels"),
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_each_broken_graph_has_exactly_its_finding(what):
    rule, node, replacements = BROKEN[what]
    assert [(found.rule, found.node) for found in check_qdq(network(*replacements))] == [(rule, node)]


@pytest.mark.parametrize("what", ALLOWED)
def test_well_formed_graphs_have_none(what):
    assert check_qdq(network(*ALLOWED[what])) == []


def test_findings_say_why_and_what_to_do():
    (found,) = check_qdq(network(*BROKEN["skip in float"][2]))
    assert found == Violation("R6", "sum", RULES["R6"][0], "put Q/DQ on ax.")
    assert str(found) == f"R6 at sum: {RULES['R6'][0]} Fix: put Q/DQ on ax."


def test_quantized_layers_by_name():
    layers = quantized_layers(network(("(x, w2, b)", "(x, w2_float, b)")))
    assert layers == {"conv1": True, "conv2": False, "conv3": True, "up": True, "conv4": True, "pred": False}


def test_nodes_without_names_are_called_by_their_output():
    model = network(*BROKEN["skip in float"][2])
    for node in model.graph.node:
        node.name = ""
    assert [found.node for found in check_qdq(model)] == ["added"]


def test_what_onnxruntimes_own_quantizer_does_to_a_residual_block(tmp_path):
    """An independent graph. In symmetric mode it puts Q/DQ before the ReLU too, and on the input of a float layer."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    assert check_qdq(resnet_block()) == []  # there is no Q/DQ
    float_path, path = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    onnx.save(resnet_block(), float_path)

    class Images(CalibrationDataReader):
        def __init__(self):
            self.left = iter([{"x": np.random.default_rng(0).normal(size=(1, 4, 8, 8)).astype(np.float32)}])

        def get_next(self) -> dict:
            return next(self.left, None)  # type: ignore[return-value]

    quantize_static(
        float_path,
        path,
        Images(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=["last"],
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
    )
    assert quantized_layers(path) == {"first": True, "second": True, "last": False}
    first_q = "a_QuantizeLinear"
    assert [(found.rule, found.node) for found in check_qdq(path)] == [("R1", "last"), ("R5", first_q)]


def resnet_block() -> onnx.ModelProto:
    generator = np.random.default_rng(1)
    text = """<ir_version: 10, opset_import: ["" : 20]>
    block (float[1, 4, 8, 8] x) => (float[1, 2, 8, 8] out) {
      ["first"] a = Conv<pads = [1, 1, 1, 1]>(x, w1)
      ["relu_a"] b = Relu(a)
      ["second"] c = Conv<pads = [1, 1, 1, 1]>(b, w2)
      ["sum"] d = Add(c, x)
      ["relu_d"] e = Relu(d)
      ["last"] out = Conv(e, w3)
    }"""
    model = onnx.parser.parse_model(text)
    for name, shape in (("w1", (4, 4, 3, 3)), ("w2", (4, 4, 3, 3)), ("w3", (2, 4, 1, 1))):
        array = generator.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model
