"""TensorRT's messages: what is said plainly, what is dropped, and that every piece of advice has its message.

The messages are those that the builder of TensorRT for RTX gave; tests/deployment/test_tensorrt.py provokes them.
"""

from types import SimpleNamespace

import pytest

from yolonas_lab.deployment.tensorrt import ADVICE, builder_failure, parser_failure, plain

CUDA = "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at /_src/x.hpp:2 (cudaError 35: CUDA driver version is insufficient))"  # noqa: E501
TYPES = (
    "Invalid Node - add\nITensor::getDimensions: Error Code 4: API Usage Error (add: ElementWiseOperation SUM must "
    "have same input types. But they are of types Float and Half. In validateTypes at /_src/o/elementWiseNode.cpp:40)\n"
)


def test_only_what_was_wrong_is_kept():
    expected = "add: ElementWiseOperation SUM must have same input types. But they are of types Float and Half"
    assert plain(TYPES + CUDA) == expected
    assert plain("Assertion failed: shiftIsAllZeros(zeroPoint): Non-zero zero point.") == (
        "shiftIsAllZeros(zeroPoint): Non-zero zero point"
    )
    assert plain("") == ""


class FakeParser:
    def __init__(self, *errors):
        self.num_errors, self.get_error = len(errors), lambda index: errors[index]


def parser_error(description, node="", operator="", code="INVALID_NODE"):
    return SimpleNamespace(
        desc=lambda: description,
        node_name=lambda: node,
        node_operator=lambda: operator,
        code=lambda: SimpleNamespace(name=code),
    )


def test_a_parser_error_names_file_node_reason_and_advice():
    text = parser_failure("m.onnx", FakeParser(parser_error(TYPES + CUDA, "add", "Add"), parser_error("later")))
    assert text.startswith("m.onnx: TensorRT cannot take node 'add' (Add): add: ElementWiseOperation SUM must have")
    assert text.endswith("float32 meets float16 without a Cast: export again with one precision.")
    assert "\n" not in text and "/_src" not in text
    text = parser_failure("m.onnx", FakeParser(parser_error("false", "d", "Det", "UNSUPPORTED_NODE")))
    assert "node 'd' (Det): not supported; TensorRT has no such operator" in text
    text = parser_failure("m.onnx", FakeParser(parser_error("Failed to parse", code="MODEL_DESERIALIZE_FAILED")))
    assert "TensorRT cannot take the file: Failed to parse; it is not a whole ONNX file" in text
    assert "does not say why" in parser_failure("m.onnx", FakeParser())


def test_the_first_builder_error_is_the_cause():
    profile = "IOptimizationProfile::isValid: Error Code 4: API Usage Error (Profiles must satisfy MIN<=OPT<=MAX. In isValid at /_src/p.cpp:367)"  # noqa: E501
    text = builder_failure("m.onnx", [profile, "second"])
    assert text == (
        "m.onnx: TensorRT cannot build the engine: Profiles must satisfy MIN<=OPT<=MAX; "
        "in each profile let smallest <= typical <= largest hold for every dimension."
    )
    assert builder_failure("m.onnx", ["odd", CUDA]).endswith("builds without.")  # the advice may be in a later one
    assert builder_failure("m.onnx", ["odd"]).endswith("odd; run check_qdq on the file.")
    assert "does not say why" in builder_failure("m.onnx", [])


@pytest.mark.parametrize(
    ("message", "word"),
    [
        ("Non-zero zero point is not supported", "R3"),
        ("first input has type UInt8 but must have type Float, Half, FP8, Int8, Int32, or Bool", "R12"),
        ("input has type Int32 but must have type FP8, FP4, Int4, Int8, or UInt8", "R11"),  # its own type decides
        ("Quantized constant (w) is only allowed before DQ or PLUGIN_V2", "R10"),
        ("ElementWise SUM must have same input types.", "Cast"),
        ("profiles satisfy MIN<=OPT<=MAX", "smallest <= typical"),
        ("Network has dynamic or shape inputs, but no optimization profile has been defined", "give profiles"),
        ("Dimension mismatch for tensor images and profile 0", "only where it is dynamic"),
        ("Plugin not found, are the plugin name correct?", "NMS stays outside"),
        ("Failed: ParseFromCodedStream", "export it again"),
        ("Error Code 10: Internal Error (Could not find any implementation for node x.)", "more workspace"),
        ("Error Code 2: OutOfMemory (Requested size was 1)", "lower workspace"),
        ("cudaError 35: CUDA driver version is insufficient", "tensorrt-rtx"),
    ],
)
def test_each_advice_has_its_message(message, word):
    assert word in builder_failure("m.onnx", [message]).partition("; ")[2]


def test_no_advice_is_without_a_test():
    [test] = [mark for mark in test_each_advice_has_its_message.pytestmark if mark.name == "parametrize"]
    assert len(test.args[1]) == len(ADVICE)
