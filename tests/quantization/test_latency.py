import json

import numpy as np
import pytest
import torch
from torch import nn
from yolonas_lab.quantization.latency import (
    Geometry,
    LayerTime,
    check_latency,
    layer_graph,
    layer_latency,
    layer_shapes,
    load_latency,
    network_ms,
    save_latency,
)

import yolonas_lab as yl
from yolonas_lab.quantization import quantizable_layers, quantize

PLAIN = Geometry(5, 7, 3, 2, 1, 8, 6, transposed=False)
TRANSPOSED = Geometry(5, 7, 2, 2, 0, 4, 3, transposed=True)
TABLE = {"a": LayerTime(4.0, 1.0), "b": LayerTime(2.0, 3.0), "c": LayerTime(8.0, 2.0)}


@pytest.fixture(scope="module")
def pico():
    return yl.models.get("yolo_nas_pico", pretrained_weights="scenes")


def run(graph, x):
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


def initializers(graph):
    from onnx import numpy_helper

    return {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.graph.initializer}


@pytest.mark.parametrize("shape", [PLAIN, TRANSPOSED])
def test_the_timed_graph_computes_the_layer(shape):
    graph = layer_graph(shape, 2, int8=False)
    x = np.random.default_rng(1).random((1, 5, shape.height, shape.width), np.float32)
    weights = initializers(graph)
    for i, y in enumerate(run(graph, x)):
        if shape.transposed:
            expected = nn.functional.conv_transpose2d(torch.from_numpy(x), weights[f"w{i}"], stride=2)
        else:
            expected = nn.functional.conv2d(torch.from_numpy(x), weights[f"w{i}"], stride=2, padding=1).relu()
        torch.testing.assert_close(torch.from_numpy(y), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [PLAIN, TRANSPOSED])
def test_the_int8_graph_computes_the_same_layer_on_the_grid(shape):
    graph = layer_graph(shape, 1, int8=True)
    x = np.random.default_rng(1).integers(0, 256, (1, 5, shape.height, shape.width)).astype(np.uint8)
    weight = initializers(graph)["wq0"].double() / 64
    convolve = nn.functional.conv_transpose2d if shape.transposed else nn.functional.conv2d
    exact = convolve(torch.from_numpy(x).double() / 255, weight, stride=2, padding=shape.padding)
    expected = (exact * 255).round().clamp(0, 255)
    (y,) = run(graph, x)
    assert y.dtype == np.uint8
    assert (torch.from_numpy(y).double() - expected).abs().max() <= 1  # a half may be rounded either way


def test_a_convolution_is_timed_in_integers(tmp_path):
    import onnx

    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    graph = layer_graph(PLAIN, 3, int8=True).SerializeToString()
    ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds.count("QLinearConv") == 3 and "Conv" not in kinds and "Relu" not in kinds


def test_the_shapes_are_those_of_the_network(pico):
    shapes = layer_shapes(pico, 64)
    assert list(shapes) == quantizable_layers(pico) == quantizable_layers(quantize(pico))
    assert shapes["backbone.stem.conv"] == Geometry(3, 8, 3, 2, 1, 64, 64, False)
    assert shapes["neck.up2.upsample"].transposed and shapes["neck.up2.upsample"].height == 4
    assert shapes["heads.levels.2.stem.conv"].height == 2  # 64 / 32


def test_multiply_accumulates_by_hand():
    assert PLAIN.macs == 5 * 7 * 9 * 4 * 3
    assert TRANSPOSED.macs == 5 * 7 * 4 * 4 * 3  # each input pixel meets each weight once


def test_every_layer_is_timed(pico):
    table = layer_latency(pico, 32, rounds=1)
    assert list(table) == quantizable_layers(pico)
    assert all(time.float_ms > 0 and time.int8_ms > 0 for time in table.values())
    same = [n for n in table if n.endswith(("csp.conv1.conv", "csp.conv2.conv")) and "stages.0" in n]
    assert len({table[name] for name in same}) == 1  # layers of one shape share one measurement


def test_the_time_of_a_network_by_hand():
    assert network_ms(TABLE) == 6
    assert network_ms(TABLE, ["a", "c"]) == 15


def test_a_table_survives_its_file(tmp_path):
    assert load_latency(save_latency(TABLE, tmp_path / "t.json")) == TABLE
    (tmp_path / "gpu.json").write_text('{"a": [1, 0.5]}')
    assert load_latency(tmp_path / "gpu.json") == {"a": LayerTime(1.0, 0.5)}


def test_a_table_comes_back_in_the_order_of_the_layers():
    assert list(check_latency({"b": (2, 1), "a": [3, 1]}, ["a", "b"])) == ["a", "b"]


@pytest.mark.parametrize(
    "table, message",
    [
        ({"stem": (1, 2)}, "did you mean 'stem.conv'"),
        ({"stem.conv": (1, 2)}, r"lacks layer 'head\.conv'"),
        ({"stem.conv": (1,), "head.conv": (1, 2)}, r"'stem\.conv' is \(1,\)"),
        ({"stem.conv": (1, -2), "head.conv": (1, 2)}, "two positive numbers"),
        ({"stem.conv": (1, float("nan")), "head.conv": (1, 2)}, "two positive numbers"),
        ({"stem.conv": 3, "head.conv": (1, 2)}, "two positive numbers"),
        ([("stem.conv", 3)], "is a mapping"),
    ],
)
def test_a_bad_table_is_refused(table, message):
    with pytest.raises(ValueError, match=message):
        check_latency(table, ["stem.conv", "head.conv"])


def test_a_bad_file_is_named(tmp_path):
    path = tmp_path / "t.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"t\.json is not readable"):
        load_latency(path)
    path.write_text(json.dumps({"a": 1}))
    with pytest.raises(ValueError, match=r"t\.json: the latency of layer 'a'"):
        load_latency(path)


@pytest.mark.bench
def test_bench_layer_latency():
    model = yl.models.get("yolo_nas_nano", pretrained_weights="scenes")
    table = layer_latency(model, 64)
    print(f"\nnano at 64 px: float {network_ms(table, table):.2f} ms, int8 {network_ms(table):.2f} ms (sums of layers)")
    slower = [name for name, time in table.items() if time.int8_ms >= time.float_ms]
    print(f"int8 is not faster in {len(slower)} of {len(table)} layers: {', '.join(slower[:6])} …")
