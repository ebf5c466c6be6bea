"""Real plans of NVIDIA's builder of TensorRT for RTX, which needs no GPU: precisions, profiles, what it refuses and how
its messages are put plainly.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from exports import int8_pico, open_pico
from small_graphs import FLOAT16, SCALE, UINT8, ZERO, constant, node, q_dq, quantized_conv, write_graph

import yolonas_lab as yl
from yolonas_lab.deployment import export_onnx
from yolonas_lab.deployment.engine_report import read_card, read_plan
from yolonas_lab.deployment.graph_passes import prepend_preprocessing, to_float16
from yolonas_lab.deployment.tensorrt import (
    ADVICE,
    Profile,
    build_engine,
    builder_failure,
    find_tensorrt,
    parser_failure,
    plain,
    read_source,
    recorder,
)
from yolonas_lab.quantization import calibrate, quantize

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed (extra tensorrt-rtx)")


def is_prediction(name):
    return "class_pred" in name or "box_pred" in name


def count_of_convolutions(path):
    return sum(node.op_type == "Conv" for node in onnx.load(path).graph.node)


@pytest.mark.slow
def test_int8_every_convolution_but_the_predictions_computes_in_int8(tmp_path):
    report = build_engine(int8_pico(), tmp_path / "pico.plan", trt)
    predictions = set(filter(is_prediction, report.convolutions))
    assert len(predictions) == 6 and len(report.convolutions) == count_of_convolutions(int8_pico())
    assert set(report.convolutions_in("Int8")) == set(report.convolutions) - predictions
    assert set(report.convolutions_in("Float")) == predictions
    assert (report.builder, report.version, report.gpu) == ("TensorRT for RTX", trt.__version__, "")
    assert report.plan_bytes == (tmp_path / "pico.plan").stat().st_size
    assert read_plan(tmp_path / "pico.plan")[1:] == ("tensorrt_rtx", trt.__version__)
    card = read_card(tmp_path / "pico.plan")
    assert card.convolutions == report.convolutions and "yolonas_lab" in card.metadata
    deconvolutions = [layer for layer in report.layers if layer.kind == "deconv"]
    assert {layer.precision for layer in deconvolutions} == {"Float"}  # this builder has no INT8 for them


def halved(path, target):
    """The graph with its float part in float16, as export_onnx(…, precision="float16") makes it."""
    model = onnx.load(path)
    to_float16(model)
    onnx.save(model, target)
    return target


@pytest.mark.slow
def test_int8_and_float16_leaves_no_convolution_in_float(tmp_path):
    report = build_engine(halved(int8_pico(), tmp_path / "mixed.onnx"), tmp_path / "mixed.plan", trt)
    assert report.convolutions_in("Float", "unknown") == []
    assert set(report.convolutions_in("Half")) == set(filter(is_prediction, report.convolutions))
    assert {layer.precision for layer in report.layers if layer.kind == "deconv"} == {"Half"}


@pytest.mark.slow
def test_s_in_int8_at_640_px(tmp_path):
    torch.manual_seed(0)
    model = calibrate(quantize(yl.models.get("yolo_nas_s")), [torch.rand(1, 3, 64, 64)], method="max")
    path = export_onnx(model, tmp_path / "s.onnx", 640)
    report = build_engine(path, tmp_path / "s.plan", trt, workspace=1024)
    predictions = set(filter(is_prediction, report.convolutions))
    assert len(predictions) == 6 and len(report.convolutions) == count_of_convolutions(path)
    assert set(report.convolutions_in("Int8")) == set(report.convolutions) - predictions


# sizes


PROFILE = Profile((1, 3, 64, 64), (2, 3, 64, 96), (4, 3, 128, 128))


@pytest.mark.slow
def test_open_sizes_need_a_profile_and_take_one(tmp_path):
    with pytest.raises(ValueError, match=r"open\.onnx takes images of shape \(-1, 3, -1, -1\): give profiles"):
        build_engine(open_pico(), tmp_path / "m.plan", trt)
    report = build_engine(open_pico(), tmp_path / "m.plan", trt, [PROFILE])
    assert set(report.convolutions.values()) == {"Float"}
    report = build_engine(halved(open_pico(), tmp_path / "half.onnx"), tmp_path / "m.plan", trt, [PROFILE])
    assert set(report.convolutions.values()) == {"Half"}


@pytest.mark.slow
def test_uint8_images_in_the_graph(tmp_path):
    onnx.save(prepend_preprocessing(onnx.load(open_pico())), tmp_path / "bytes.onnx")
    report = build_engine(tmp_path / "bytes.onnx", tmp_path / "m.plan", trt, [PROFILE])
    assert set(report.convolutions.values()) == {"Float"}


@pytest.mark.slow
def test_a_fixed_size_takes_no_profile(tmp_path):
    with pytest.raises(ValueError, match=r"takes images of one shape, \(1, 3, 64, 64\): leave profiles out"):
        build_engine(int8_pico(), tmp_path / "m.plan", trt, [Profile(*[(1, 3, 64, 64)] * 3)])


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((1, 3, 64, 64), (1, 3, 32, 32), (1, 3, 64, 64)), "No dimension of a profile may shrink"),
        (((1, 3, 64, 64), (1, 3, 64, 64), (1, 3, 64, 100)), "largest must be .* multiples of 32"),
        (((0, 3, 64, 64), (1, 3, 64, 64), (1, 3, 64, 64)), "smallest must be"),
        (((1, 4, 64, 64), (1, 4, 64, 64), (1, 4, 64, 64)), "smallest must be"),
        (((1, 3, 64), (1, 3, 64, 64), (1, 3, 64, 64)), "smallest must be"),
    ],
)
def test_profiles_that_cannot_be(shapes, message):
    with pytest.raises(ValueError, match=message):
        Profile(*shapes)


# what the parser and the builder refuse, in one sentence


def transposed_bytes(path):
    nodes = [
        node("Transpose", ["images"], ["t"], "to_nchw", perm=[0, 3, 1, 2]),
        node("Cast", ["t"], ["y"], "cast", to=1),
    ]
    return write_graph(path, nodes, shape=(1, 32, 32, 3), dtype=UINT8)


def shifted(path):
    return write_graph(path, q_dq("images", "images", "y"), [SCALE, constant("z", np.int8(5))])


def clipped_constant(path):
    bounds = [constant("w", np.ones((4, 3, 1, 1), np.int8)), constant("lo", np.int8(-9)), constant("hi", np.int8(9))]
    nodes = [
        node("Clip", ["w", "lo", "hi"], ["wc"], "clip"),
        node("DequantizeLinear", ["wc", "s"], ["wf"], "weight"),
        *q_dq("images", "images", "x"),
        node("Conv", ["x", "wf"], ["y"], "conv"),
    ]
    return write_graph(path, nodes, [SCALE, ZERO, *bounds])


def mixed_types(path):
    nodes = [node("Cast", ["images"], ["h"], "half", to=FLOAT16), node("Add", ["images", "h"], ["y"], "add")]
    return write_graph(path, nodes)


def unknown_operator(path):
    return write_graph(path, [node("Det", ["images"], ["y"], "determinant")])


def wrong_rank_of_profile(path):
    return write_graph(path, [node("Relu", ["images"], ["y"], "relu")], shape=("b", 3, 33, 32))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (transposed_bytes, r"node 'to_nchw' \(Transpose\): to_nchw: first input has type UInt8 .*put a Cast"),
        (shifted, r"node 'images/QuantizeLinear' \(QuantizeLinear\): .*zero point.*quantize symmetrically"),
        (clipped_constant, r"cannot build the engine: Quantized constant \(w\) .*only DequantizeLinear"),
        (mixed_types, r"node 'add' \(Add\): add: ElementWiseOperation SUM must have same input types.*without a Cast"),
        (unknown_operator, r"node 'determinant' \(Det\): not supported; TensorRT has no such operator"),
        (wrong_rank_of_profile, r"takes images of shape \(-1, 3, 33, 32\): both sides must be multiples of 32"),
    ],
)
def test_a_graph_that_cannot_be_built(tmp_path, make, message):
    path = make(tmp_path / "bad.onnx")
    with pytest.raises(ValueError, match=message) as failure:
        build_engine(path, tmp_path / "m.plan", trt)
    assert str(failure.value).startswith(f"{path}") and "\n" not in str(failure.value)
    assert not (tmp_path / "m.plan").exists()


def test_after_a_failure_the_next_build_reports_its_own_layers(tmp_path):
    with pytest.raises(ValueError, match="Det"):
        build_engine(unknown_operator(tmp_path / "bad.onnx"), tmp_path / "m.plan", trt)
    report = build_engine(quantized_conv(tmp_path / "good.onnx"), tmp_path / "m.plan", trt)
    assert report.convolutions == {"conv/Conv": "Int8"}


def test_errors_that_only_tell_of_the_missing_gpu_are_left_out_where_there_are_others():
    log, levels = recorder(trt), trt.ILogger
    echo = "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime"
    log.messages[:] = [(levels.ERROR, echo), (levels.WARNING, "careful"), (levels.INTERNAL_ERROR, "cause")]
    assert log.errors() == ["cause"]
    log.messages[:] = [(levels.ERROR, echo)]
    assert log.errors() == [echo]
    log.clear()
    assert log.errors() == []


def test_files_that_are_no_onnx(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.onnx"):
        build_engine(tmp_path / "nowhere.onnx", tmp_path / "m.plan", trt)
    (tmp_path / "junk.onnx").write_bytes(b"\xff\xff no graph")
    with pytest.raises(ValueError, match=r"junk\.onnx"):
        build_engine(tmp_path / "junk.onnx", tmp_path / "m.plan", trt)
    two = write_graph(tmp_path / "flat.onnx", [node("Relu", ["images"], ["y"])], shape=(1, 3))
    with pytest.raises(ValueError, match="one input, images with four dimensions"):
        build_engine(two, tmp_path / "m.plan", trt)
    with pytest.raises(ValueError, match="workspace is 0"):
        build_engine(quantized_conv(tmp_path / "c.onnx"), tmp_path / "m.plan", trt, workspace=0)


def test_an_interruption_stops_the_build(tmp_path, monkeypatch):
    from yolonas_lab.deployment import tensorrt

    class Bar:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def reset(self, total):
            pass

        def set_postfix_str(self, text):
            pass

        def update(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(tensorrt, "progress_bar", lambda *_: Bar())
    with pytest.raises(KeyboardInterrupt):
        build_engine(quantized_conv(tmp_path / "c.onnx"), tmp_path / "m.plan", trt)
    assert not (tmp_path / "m.plan").exists()


# which TensorRT


def test_finding_the_module():
    assert find_tensorrt("tensorrt_rtx") is trt
    assert find_tensorrt() in (trt, *([find_tensorrt("tensorrt")] if _has_tensorrt() else []))
    with pytest.raises(ValueError, match="did you mean 'tensorrt'"):
        find_tensorrt("tensorrtt")


def _has_tensorrt():
    try:
        find_tensorrt("tensorrt")
    except ImportError:
        return False
    return True


@pytest.mark.parametrize(("name", "extra"), [("tensorrt", "tensorrt"), ("tensorrt_rtx", "tensorrt-rtx"), (None, "rtx")])
def test_a_missing_module_names_the_pip_command(monkeypatch, name, extra):
    from yolonas_lab.deployment import tensorrt

    monkeypatch.setattr(tensorrt, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=f"pip install 'yolonas-lab.*{extra}"):
        find_tensorrt(name)


# what is read of a file


def test_name_shape_and_convolutions(tmp_path):
    source = read_source(Path(quantized_conv(tmp_path / "m.onnx")))
    assert (source.input_name, source.shape, source.convolutions) == ("images", (1, 3, 32, 32), ["conv/Conv"])
    assert not source.channels_last


def test_open_sizes_and_the_order_of_bytes(tmp_path):
    relu = [node("Relu", ["images"], ["y"], "relu")]
    source = read_source(Path(write_graph(tmp_path / "m.onnx", relu, shape=("b", 3, "h", 64))))
    assert source.shape == (-1, 3, -1, 64)
    cast = [node("Cast", ["images"], ["y"], "cast", to=1)]
    source = read_source(Path(write_graph(tmp_path / "m.onnx", cast, shape=(1, 64, 96, 3), dtype=UINT8)))
    assert source.channels_last


@pytest.mark.parametrize("shape", [(1, 3, 33, 32), (1, 3, 32, 100), (1, 33, 32, 3)])
def test_sides_that_are_no_multiple_of_32(tmp_path, shape):
    path = write_graph(tmp_path / "m.onnx", [node("Relu", ["images"], ["y"], "relu")], shape=shape)
    with pytest.raises(ValueError, match=r"m\.onnx takes images of shape .*multiples of 32 px"):
        read_source(Path(path))


# messages, as the builder gave them

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
