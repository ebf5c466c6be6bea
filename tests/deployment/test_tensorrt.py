"""Real plans of NVIDIA's builder of TensorRT for RTX, which needs no GPU: precisions, profiles, what it refuses and how
its messages are put plainly.
"""

from types import SimpleNamespace

import onnx
import pytest
import torch
from exports import int8_pico, noise, open_pico

import yolonas_lab as yl
from yolonas_lab.deployment import export_onnx, tensorrt
from yolonas_lab.deployment.engine_report import read_plan
from yolonas_lab.deployment.graph_passes import prepend_preprocessing, to_float16
from yolonas_lab.deployment.tensorrt import (
    ADVICE,
    Profile,
    build_engine,
    builder_failure,
    find_tensorrt,
    parser_failure,
    plain,
    recorder,
)
from yolonas_lab.quantization import calibrate, quantize

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed (extra tensorrt-rtx)")


def predictions(report):
    return {name for name in report.convolutions if "class_pred" in name or "box_pred" in name}


def changed(path, change, target):
    """The graph after a pass over it."""
    model = onnx.load(path)
    onnx.save(change(model) or model, target)
    return target


@pytest.mark.slow
def test_int8_every_convolution_but_the_predictions_computes_in_int8(tmp_path):
    report = build_engine(int8_pico(), tmp_path / "pico.plan", trt)
    count = sum(node.op_type == "Conv" for node in onnx.load(int8_pico()).graph.node)
    assert len(predictions(report)) == 6 and len(report.convolutions) == count
    assert set(report.convolutions_in("Int8")) == set(report.convolutions) - predictions(report)
    assert set(report.convolutions_in("Float")) == predictions(report)
    assert (report.builder, report.version, report.gpu) == ("TensorRT for RTX", trt.__version__, "")
    assert report.plan_bytes == (tmp_path / "pico.plan").stat().st_size
    _, module, version, card = read_plan(tmp_path / "pico.plan")
    assert (module, version) == ("tensorrt_rtx", trt.__version__)
    assert card.convolutions == report.convolutions and "yolonas_lab" in card.metadata
    deconvolutions = [layer for layer in report.layers if layer.kind == "deconv"]
    assert {layer.precision for layer in deconvolutions} == {"Float"}  # this builder has no INT8 for them
    report = build_engine(changed(int8_pico(), to_float16, tmp_path / "half.onnx"), tmp_path / "half.plan", trt)
    assert set(report.convolutions_in("Half")) == predictions(report)
    assert report.convolutions_in("Float", "unknown") == []
    assert {layer.precision for layer in report.layers if layer.kind == "deconv"} == {"Half"}
    with pytest.raises(ValueError, match=r"shape \(1, 3, 64, 64\): give profiles.* and none where it is not"):
        build_engine(int8_pico(), tmp_path / "m.plan", trt, [Profile(*[(1, 3, 64, 64)] * 3)])


@pytest.mark.slow
def test_s_in_int8_at_640_px(tmp_path):
    torch.manual_seed(0)
    model = calibrate(quantize(yl.models.get("yolo_nas_s")), [noise(1, 3, 64, 64)], method="max")
    report = build_engine(export_onnx(model, tmp_path / "s.onnx", 640), tmp_path / "s.plan", trt, workspace=1024)
    assert len(predictions(report)) == 6 and len(report.convolutions) > 80
    assert set(report.convolutions_in("Int8")) == set(report.convolutions) - predictions(report)


@pytest.mark.slow
def test_open_sizes_need_profiles_and_take_several(tmp_path):
    with pytest.raises(ValueError, match=r"open\.onnx takes images of shape \(-1, 3, -1, -1\): give profiles"):
        build_engine(open_pico(), tmp_path / "m.plan", trt)
    profiles = [Profile((1, 3, 64, 64), (2, 3, 64, 96), (4, 3, 128, 128)), Profile(*[(8, 3, 64, 64)] * 3)]
    for change, precision in ((lambda model: None, "Float"), (to_float16, "Half"), (prepend_preprocessing, "Float")):
        file = changed(open_pico(), change, tmp_path / "m.onnx")
        report = build_engine(file, tmp_path / "m.plan", trt, profiles)
        assert set(report.convolutions.values()) == {precision}


def test_profiles_that_cannot_be(tmp_path):
    one = (1, 3, 64, 64)
    for bad in ((1, 3, 64, 100), (0, 3, 64, 64), (1, 4, 64, 64), (1, 3, 64)):
        with pytest.raises(ValueError, match=r"smallest must be .* multiples of 32"):
            Profile(bad, one, one)  # type: ignore[arg-type]
    file = graph(tmp_path / "open.onnx", RELU, "float[b, 3, h, w]")
    with pytest.raises(ValueError, match="smallest <= typical <= largest"):
        build_engine(file, tmp_path / "m.plan", trt, [Profile(one, (1, 3, 32, 32), one)])


# what is refused, in one sentence


FLOATS = "float[1, 3, 32, 32]"
CONSTANTS = "float s = {0.05}, int8 z = {0}, int8 five = {5}, int8 lo = {-9}, int8 hi = {9}, "
CONSTANTS += f"int8[4, 3, 1, 1] w = {{{', '.join(map(str, range(12)))}}}"
QDQ = '["images/QuantizeLinear"] q = QuantizeLinear(images, s, ZERO) x = DequantizeLinear(q, s, ZERO)'
CONV = QDQ.replace("ZERO", "z") + '["weight"] wf = DequantizeLinear(WEIGHT, s, z) ["conv/Conv"] y = Conv(x, wf)'
DET, RELU = '["determinant"] y = Det(images)', '["relu"] y = Relu(images)'


def graph(path, nodes: str, images: str = FLOATS):
    """A file of these nodes, from "images" to "y"."""
    signature = f"({images} images) => (float[a, b, c, d] y) <{CONSTANTS}>"
    text = f'<ir_version: 10, opset_import: ["" : 20]> small {signature} {{ {nodes} }}'
    onnx.save(onnx.parser.parse_model(text), path)
    return path


@pytest.mark.parametrize(
    ("nodes", "images", "message"),
    [
        (
            '["to_nchw"] t = Transpose<perm = [0, 3, 1, 2]>(images) y = Cast<to = 1>(t)',
            "uint8[1, 32, 32, 3]",
            r"node 'to_nchw' \(Transpose\): to_nchw: first input has type UInt8 .*put a Cast",
        ),
        (
            QDQ.replace("ZERO", "five").replace("x =", "y ="),
            FLOATS,
            r"node 'images/QuantizeLinear' \(QuantizeLinear\): .*zero point.*quantize symmetrically",
        ),
        (
            '["clip"] clipped = Clip(w, lo, hi) ' + CONV.replace("WEIGHT", "clipped"),
            FLOATS,
            r"cannot build the engine: Quantized constant \(w\) .*only DequantizeLinear",
        ),
        (
            'h = Cast<to = 10>(images) ["add"] y = Add(images, h)',
            FLOATS,
            r"node 'add' \(Add\): add: ElementWiseOperation SUM must have same input types.*without a Cast",
        ),
        (DET, FLOATS, r"node 'determinant' \(Det\): not supported; export without this operator"),
        (RELU, "float[b, 3, 33, 32]", r"shape \(-1, 3, 33, 32\): both sides must be multiples of 32"),
        (RELU, "float[1, 33, 32, 3]", r"shape \(1, 33, 32, 3\): both sides must be multiples of 32"),
        (RELU, "float[1, 3]", "one input, images with four axes"),
    ],
)
def test_a_graph_that_cannot_be_built(tmp_path, nodes, images, message):
    path = graph(tmp_path / "bad.onnx", nodes, images)
    with pytest.raises(ValueError, match=message) as failure:
        build_engine(path, tmp_path / "m.plan", trt)
    assert str(failure.value).startswith(f"{path}") and "\n" not in str(failure.value)
    assert not (tmp_path / "m.plan").exists()


def test_after_a_failure_the_next_build_reports_its_own_layers(tmp_path):
    with pytest.raises(ValueError, match="Det"):
        build_engine(graph(tmp_path / "bad.onnx", DET), tmp_path / "m.plan", trt)
    good = graph(tmp_path / "good.onnx", CONV.replace("WEIGHT", "w"))
    with pytest.raises(ValueError, match="workspace is 0"):
        build_engine(good, tmp_path / "m.plan", trt, workspace=0)
    assert build_engine(good, tmp_path / "m.plan", trt).convolutions == {"conv/Conv": "Int8"}


def test_an_interruption_stops_the_build(tmp_path, monkeypatch):
    class Bar:
        total = 1
        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda self, *_: None  # noqa: E731

        def update(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(tensorrt, "progress_bar", lambda *_: Bar())
    with pytest.raises(KeyboardInterrupt):
        build_engine(graph(tmp_path / "c.onnx", CONV.replace("WEIGHT", "w")), tmp_path / "m.plan", trt)
    assert not (tmp_path / "m.plan").exists()


def test_the_module_is_found_or_the_pip_command_named(monkeypatch):
    assert find_tensorrt("tensorrt_rtx") is trt
    with pytest.raises(ValueError, match="did you mean 'tensorrt'"):
        find_tensorrt("tensorrtt")
    monkeypatch.setattr(tensorrt, "find_spec", lambda name: None)
    for name, extra in (("tensorrt", "tensorrt"), ("tensorrt_rtx", "tensorrt-rtx"), (None, "tensorrt-rtx")):
        with pytest.raises(ImportError, match=rf"pip install 'yolonas-lab\[{extra}\]"):
            find_tensorrt(name)


# messages, as the builder gave them

CUDA = "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at /_src/x.hpp:2 (cudaError 35: CUDA driver version is insufficient))"  # noqa: E501
TYPES = (
    "Invalid Node - add\nITensor::getDimensions: Error Code 4: API Usage Error (add: ElementWiseOperation SUM must "
    "have same input types. But they are of types Float and Half. In validateTypes at /_src/o/elementWiseNode.cpp:40)\n"
)


def test_errors_that_only_tell_of_the_missing_gpu_are_left_out_where_there_are_others():
    log, levels = recorder(trt), trt.ILogger
    log.messages[:] = [(levels.ERROR, CUDA), (levels.WARNING, "careful"), (levels.INTERNAL_ERROR, "cause")]
    assert log.errors() == ["cause"]
    log.messages[:] = [(levels.ERROR, CUDA)]
    assert log.errors() == [CUDA]


def test_only_what_was_wrong_is_kept():
    expected = "add: ElementWiseOperation SUM must have same input types. But they are of types Float and Half"
    assert plain(TYPES + CUDA) == expected and plain("") == ""
    assert plain("Assertion failed: isZero(point): Non-zero zero point.") == "isZero(point): Non-zero zero point"


def parser(description, code):
    names = {name: (lambda: "") for name in ("node_name", "node_operator")}
    error = SimpleNamespace(desc=lambda: description, code=lambda: SimpleNamespace(name=code), **names)
    return SimpleNamespace(num_errors=1, get_error=lambda index: error)


def test_a_parser_error_names_file_reason_and_advice():
    text = parser_failure("m.onnx", parser("Failed to parse", code="MODEL_DESERIALIZE_FAILED"))
    assert "m.onnx: TensorRT cannot take the file: Failed to parse; it is not a whole ONNX file" in text
    assert "does not say why" in parser_failure("m.onnx", SimpleNamespace(num_errors=0))


def test_the_first_builder_error_is_the_cause():
    text = builder_failure("m.onnx", [TYPES, "second"])
    assert text.startswith("m.onnx: TensorRT cannot build the engine: add: ElementWiseOperation SUM must have")
    assert builder_failure("m.onnx", ["odd", CUDA]).endswith("builds without.")  # the advice may be in a later one
    assert builder_failure("m.onnx", ["odd"]).endswith("odd; run check_qdq on the file.")
    assert "does not say why" in builder_failure("m.onnx", [])


MESSAGES = {  # what the builder says, in the order of ADVICE -> a word of the advice
    "Non-zero zero point is not supported": "R3",
    "first input has type UInt8 but must have type Float, Half, FP8, Int8, Int32, or Bool": "R12",
    "input has type Int32 but must have type FP8, FP4, Int4, Int8, or UInt8": "R11",  # its own type decides
    "Quantized constant (w) is only allowed before DQ or PLUGIN_V2": "R10",
    "ElementWise SUM must have same input types.": "Cast",
    "profiles satisfy MIN<=OPT<=MAX": "smallest <= typical",
    "Network has dynamic or shape inputs, but no optimization profile has been defined": "give profiles",
    "Dimension mismatch for tensor images and profile 0": "only where it is dynamic",
    "Plugin not found, are the plugin name correct?": "NMS stays outside",
    "Failed: ParseFromCodedStream": "export it again",
    "Error Code 10: Internal Error (Could not find any implementation for node x.)": "more workspace",
    "Error Code 2: OutOfMemory (Requested size was 1)": "lower workspace",
    "cudaError 35: CUDA driver version is insufficient": "tensorrt-rtx",
}


def test_each_advice_has_its_message():
    for (message, word), advice in zip(MESSAGES.items(), ADVICE.values(), strict=True):
        assert builder_failure("m.onnx", [message]).endswith(advice) and word in advice
