"""The deployment commands as typed: what they write and print, and failures in one sentence."""

import json
import subprocess
import sys

import onnx
import pytest
import torch
from exports import float_pico, int8_pico, open_pico
from PIL import Image

from yolonas_lab.cli import main
from yolonas_lab.cli_deploy import ENGINES
from yolonas_lab.deployment import check_qdq
from yolonas_lab.deployment.benchmark import KINDS, missing_kinds
from yolonas_lab.deployment.engine_report import read_plan

PICO = ["--model", "yolo_nas_pico", "--weights", "scenes"]


@pytest.fixture(autouse=True)
def threads():
    """The commands set torch's threads; other tests keep theirs."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number in range(3):
        Image.effect_noise((70, 50), 80 + number).convert("RGB").save(folder / f"{number}.png")
    return folder


def refusal(command, arguments, capsys) -> str:
    """The one sentence in which a command fails."""
    assert main([command, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"yolonas_lab {command}: ") and error.count("\n") == 1
    return error


@pytest.mark.slow
def test_export_in_int8_with_open_batch_at_another_size(photos, tmp_path, capsys):
    path = tmp_path / "m.onnx"
    options = ["--batch", "0", "--image-size", "96", "--preprocess", "--kind", "int8", "--images", str(photos)]
    assert main(["export", *PICO, "--out", str(path), *options]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{path}: yolo_nas_pico in int8, ") and shown.count("\n") == 1
    assert check_qdq(path) == []
    graph = onnx.load(path).graph
    assert [dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim] == [0, 96, 96, 3]
    assert any(node.op_type == "QuantizeLinear" for node in graph.node)
    assert any(constant.data_type == onnx.TensorProto.FLOAT16 for constant in graph.initializer)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--kind", "int8"], "--kind is int8: give --images"),
        (["--images", "."], "--kind is float32: give --images, typical images, for INT8, and only then"),
        (["--image-size", "0"], "--image-size is 0: give a multiple of 32"),
        (["--batch", "-1"], "batch must be at least 1"),
        (["--kind", "int8", "--images", "nowhere"], "nowhere"),
    ],
)
def test_an_export_that_cannot_work(tmp_path, capsys, changes, message):
    assert message in refusal("export", [*PICO, "--out", str(tmp_path / "m.onnx"), *changes], capsys)


@pytest.mark.slow
def test_build_engine_prints_precisions_and_writes_plan_and_card(tmp_path, capsys):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed (extra tensorrt-rtx)")
    plan = tmp_path / "m.plan"
    assert main(["build-engine", str(int8_pico()), str(plan), "--builder", "rtx"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("TensorRT for RTX ") and " Int8" in lines[1]
    assert len(lines) == 2 + 6 and all("_pred/Conv" in line for line in lines[2:])
    assert len(read_plan(plan)[3].convolutions) > 50
    profiles = ["--profile", "1x64x64", "2x64x64", "4x96x96", "--profile", "8x64x64", "8x64x64", "8x64x64"]
    assert main(["build-engine", str(open_pico()), str(plan), "--builder", "rtx", *profiles, "--workspace", "256"]) == 0


@pytest.mark.parametrize(
    ("onnx_file", "changes", "message"),
    [
        ("nowhere.onnx", [], "nowhere.onnx"),
        ("m.onnx", ["--profile", "1x64", "1x64x64", "1x64x64"], "--profile is 1x64 1x64x64 1x64x64: give three"),
        ("m.onnx", ["--profile", "1x64x64", "1x64x64", "1x64x65"], "largest must be"),
    ],
)
def test_an_engine_that_cannot_be_built(tmp_path, capsys, onnx_file, changes, message):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed (extra tensorrt-rtx)")
    arguments = [onnx_file, str(tmp_path / "m.plan"), "--builder", "rtx", *changes]
    assert message in refusal("build-engine", arguments, capsys)


@pytest.mark.slow
def test_benchmark_of_a_model_with_everything_here(tmp_path):
    table, drawing = tmp_path / "t.json", tmp_path / "t.png"
    arguments = ["benchmark", *PICO, "--rounds", "2", "--json", str(table), "--plot", str(drawing)]
    # In a process of its own, as on the command line: OpenVINO beside other libraries' forked workers brought down
    # the process that ran all tests.
    command = [sys.executable, "-m", "yolonas_lab", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    shown, numbers = result.stdout, json.loads(table.read_text())
    names = [row["name"] for row in numbers["rows"]]
    assert names[:4] == ["torch", "torch, fused", "onnxruntime", "onnxruntime, INT8"]
    assert numbers["image"] == "image of 640×480 px at 64 px"
    for kind, reason in missing_kinds().items():
        assert f"{kind} is left out: {reason}" in shown
    assert Image.open(drawing).width > 500


@pytest.mark.slow
def test_benchmark_of_files_of_one_name_with_an_image(tmp_path, photos, capsys):
    other = tmp_path / "float32.onnx"
    other.write_bytes(int8_pico().read_bytes())
    files = [str(float_pico()), str(other), str(int8_pico())]
    assert main(["benchmark", *files, "--image", str(photos / "0.png"), "--rounds", "1"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n{name} " in shown for name in (*files[:2], "int8.onnx"))
    assert "image of 70×50 px at 64 px" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is nothing to time: give --model, or exported files"),
        ([*PICO, "--threads", "0"], "--threads is 0"),
        (["m.txt"], "m.txt is neither an .onnx file nor a .plan"),
        (["nowhere.plan"], "There is no nowhere.plan"),
        ([*PICO, "--engines", "torch", "--rounds", "0"], "0 rounds"),
        ([*PICO, "--engines", "torch", "--image", "nowhere.png"], "There is no image nowhere.png"),
        ([*PICO, "--engines", "torch", "--image-size", "-64"], "--image-size is -64"),
        ([*PICO, "--json", "nowhere/t.json"], "--json is nowhere/t.json: give"),
    ],
)
def test_a_benchmark_that_cannot_work(capsys, arguments, message):
    assert message in refusal("benchmark", arguments, capsys)


def test_engines_have_the_names_that_the_library_knows(capsys):
    assert ENGINES == KINDS
    with pytest.raises(SystemExit):
        main(["benchmark", *PICO, "--engines", "zz"])
    assert "'zz'" in capsys.readouterr().err


@pytest.mark.slow
def test_doctor_ends_well_without_optional_packages():
    code = """if True:
        import sys
        missing = ("tensorrt", "tensorrt_rtx", "openvino", "onnxruntime", "onnx", "onnxscript")
        sys.modules |= dict.fromkeys(missing)
        import importlib.util
        real = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *rest: None if name in missing else real(name, *rest)
        from yolonas_lab.cli import main
        raise SystemExit(main(["doctor"]))"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("not found") >= 5 and "pip install onnxruntime" in result.stdout
