"""Engine layers from the log and the inspector, precision by convolution, and plans that do not belong here."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from yolonas_lab.deployment.engine_report import (
    EngineLayer,
    EngineReport,
    PlanCard,
    card_path,
    check_plan,
    convolution_precisions,
    layers_from_inspector,
    layers_from_log,
    read_plan,
    type_name,
    write_plan,
)


def tensor(dtype, dims="1,4,8,8"):
    return f"{{ Name: t, Dimensions: [{dims}], Strides: [1], Datatype: {dtype}, Format: (NHWC) Channel major }}"


LOG = "\n".join(
    [
        "Layers:",
        f"Name: stem/Conv_myl0_1, LayerType: correlation, Inputs: [ {tensor('Int8')}], "
        f"Constants: [ {tensor('Float', '1')}, {tensor('Int8', '16,3,3,3')}], "
        f"Outputs: [ {tensor('Half')}], TacticName: x, StreamId: 0, "
        "Metadata: [ONNX Layer: stem/Conv][ONNX Layer: images/DequantizeLinear]",
        f"Name: __myl_Relu_2, LayerType: kgen, Inputs: [ {tensor('Half')}], Outputs: [ {tensor('Int8')}], "
        "TacticName: y, StreamId: 0, Metadata: [ONNX Layer: stem/Conv][ONNX Layer: stem/Relu]",
        "I/O Tensors:",
        " Name: images, IOMode: Input, DataType: Float, Dimensions: [1,3,64,64]",
    ]
)


def test_the_log_of_the_builder():
    conv, relu = layers_from_log(["Layers:\nName: old", "something", LOG])
    nodes = ("stem/Conv", "images/DequantizeLinear")
    assert conv == EngineLayer("stem/Conv_myl0_1", "correlation", nodes, ("Int8",), ("Int8", "Float"), ("Half",))
    assert conv.precision == "Int8" and conv.computes
    assert (relu.inputs, relu.constants, relu.outputs) == (("Half",), (), ("Int8",))
    assert not relu.computes
    assert layers_from_log(["nothing"]) == []


def test_the_precision_is_that_of_what_is_multiplied():
    for inputs, constants, precision in (
        (["Int8"], ["Float"], "Float"),  # weights alone in float: nothing is gained
        (["Half"], ["Int8"], "Half"),
        (["Half", "Float"], ["Half"], "Half"),  # the second input is added, not multiplied
        (["Int8"], [], "Int8"),
        ([], [], "unknown"),
    ):
        assert EngineLayer("l", "correlation", (), tuple(inputs), tuple(constants), ()).precision == precision


TEN = {
    "Name": "stem/Conv + stem/Relu",
    "LayerType": "CaskConvolution",
    "Inputs": [{"Name": "a", "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format."}],
    "Outputs": [{"Name": "b", "Format/Datatype": "Row major linear FP16 format"}],
    "Weights": {"Type": "Int8", "Count": 432},
    "Constants": [{"Name": "c", "Dimensions": [1, 16], "Format/Datatype": "Float"}],
    "Metadata": "[ONNX Layer: stem/Conv]\x1e[ONNX Layer: stem/Relu]",
}
ELEVEN = {
    **TEN,
    "Inputs": [{"Name": "a", "Datatype": "Int8", "Format": "(NHWC) Channel major format"}],
    "Outputs": [{"Name": "b", "Datatype": "Half", "Format": "(NHWC) Channel major format"}],
    "Constants": [{"Name": "c", "Dimensions": [1, 16], "Datatype": "Float", "Format": "(Linear) Row major"}],
}


SCALAR = {
    "Weights": {"Count": 0},
    "Constants": [{"Dimensions": [], "Datatype": "Float"}, {"Dimensions": [4, 4], "Datatype": "Int8"}],
}


@pytest.mark.parametrize(
    ("row", "tensors"), [(TEN, "Bindings"), (ELEVEN, "I/O Tensors"), (ELEVEN | SCALAR, "I/O Tensors")]
)
def test_the_inspector_of_version_10_and_11(row, tensors):
    [layer] = layers_from_inspector(json.dumps({"Layers": [row], tensors: []}))
    assert layer.inputs == ("Int8",) and layer.outputs == ("Half",) and layer.constants == ("Int8", "Float")
    assert layer.nodes == ("stem/Conv", "stem/Relu") and layer.computes and layer.precision == "Int8"


def test_an_engine_that_kept_only_names():
    with pytest.raises(ValueError, match="profiling verbosity DETAILED"):
        layers_from_inspector('{"Layers": ["stem/Conv"]}')


def test_type_names():
    expected = {
        "Row major linear FP32": "Float",
        "BFloat16": "BFloat16",
        "Two wide channel vectorized row major FP16 format": "Half",
        "Int64": "Int64",
        "N/A due to dynamic shapes": "unknown",
        "": "unknown",
    }
    assert {text: type_name(text) for text in expected} == expected


def test_the_widest_computing_layer_decides_for_a_convolution():
    def layer(kind, dtype, *nodes):
        return EngineLayer("l", kind, nodes, (dtype,), (dtype,), (dtype,))

    layers = [
        layer("correlation", "Int8", "a/Conv", "b/Conv"),
        layer("gemm", "Half", "b/Conv"),
        layer("kgen", "Float", "a/Conv"),  # bias and ReLU: not where the products are
    ]
    found = convolution_precisions(layers, ["a/Conv", "b/Conv", "c/Conv"])
    assert found == {"a/Conv": "Int8", "b/Conv": "Half", "c/Conv": "unknown"}


def test_the_report_counts_and_names_what_is_not_int8():
    precisions = {"a": "Int8", "b": "Int8", "c": "Float", "d": "Half"}
    report = EngineReport("TensorRT", "11.1", "", 2_500_000, 4.25, [], precisions)
    assert report.convolutions_in("Float", "Half") == ["c", "d"]
    assert str(report).splitlines() == [
        "TensorRT 11.1: a plan of 2.5 MB in 4.2 s",
        "0 layers; 4 convolutions: 2 Int8, 1 Float, 1 Half",
        "  not Int8: c (Float)",
        "  not Int8: d (Half)",
    ]
    assert "not Int8" not in str(EngineReport("TensorRT", "11.1", "", 1, 1.0, [], {"a": "Half"}))  # nobody asked


# plans on the disk


def plan_bytes(tag=b"vtrt", version=(1, 7, 1, 116), size=64):
    return (tag + bytes(20) + bytes(version)).ljust(size, b"\0")


def card(content=b"", **changes):
    known = {"gpu": "", "compute_capability": "", "metadata": {"a": "b"}, "convolutions": {"stem/Conv": "Int8"}}
    return PlanCard(plan_bytes=len(content), **known | changes)


def test_what_is_written_is_read(tmp_path):
    for tag, version, expected in (
        (b"vtrt", (1, 7, 1, 116), ("tensorrt_rtx", "1.7.1.116")),
        (b"ftrt", (10, 13, 0, 35), ("tensorrt", "10.13.0.35")),
    ):
        content = plan_bytes(tag, version)
        write_plan(tmp_path / "m.plan", content, card(content))
        assert read_plan(tmp_path / "m.plan") == (content, *expected, card(content))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.plan", "m.plan.json"]


GOOD = plan_bytes(size=100)


@pytest.mark.parametrize(
    ("content", "text", "message"),
    [
        (None, "{}", r"There is no .*m\.plan: copy plan and card"),
        (GOOD, None, r"There is no .*m\.plan\.json: copy plan and card"),
        (b"vtrt", "{}", r"m\.plan is not a TensorRT plan; build one"),
        (b"PK\3\4 a zip file, say, and long enough for a header", "{}", r"m\.plan is not a TensorRT plan; build one"),
        (GOOD[:70], json.dumps(vars(card(GOOD))), "damaged: it has 70 bytes, and had 100"),
        *[(GOOD, text, r"m\.plan\.json is not what build_engine writes") for text in ("{", "[]", '{"plan_bytes": 1}')],
    ],
)
def test_what_is_no_plan_with_its_card(tmp_path, content, text, message):
    if content is not None:
        (tmp_path / "m.plan").write_bytes(content)
    if text is not None:
        card_path(tmp_path / "m.plan").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_plan(tmp_path / "m.plan")


def test_a_plan_belongs_to_one_version_and_kind_of_gpu(monkeypatch):
    def check(name="tensorrt", installed="10.13.0", **changes):
        trt: Any = SimpleNamespace(__name__=name, __version__=installed)
        check_plan("m.plan", "tensorrt", "10.13.0.0", card(**changes), trt)

    for wrong in ({"installed": "11.0.0.1"}, {"name": "tensorrt_rtx"}):
        with pytest.raises(ValueError, match=r"built by tensorrt 10\.13\.0\.0, and is loaded by tensorrt(_rtx 10| 11)"):
            check(**wrong)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"runs only on an NVIDIA GPU .* OnnxDetector"):
        check()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 6))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A10")
    check()  # built without a GPU
    check(gpu="RTX 3090", compute_capability="8.6")
    with pytest.raises(ValueError, match=r"built on T4 \(compute capability 7\.5\), and this GPU is A10 \(8\.6\)"):
        check(gpu="T4", compute_capability="7.5")
