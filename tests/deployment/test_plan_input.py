"""What is read of an ONNX file before an engine is built from it."""

from pathlib import Path

import pytest
from small_graphs import UINT8, node, quantized_conv, write_graph

from yolonas_lab.deployment.tensorrt import read_source


def test_name_shape_and_convolutions(tmp_path):
    source = read_source(Path(quantized_conv(tmp_path / "m.onnx")))
    assert (source.input_name, source.shape, source.convolutions) == ("images", (1, 3, 32, 32), ["conv/Conv"])
    assert not source.is_dynamic and not source.channels_last
    assert source.as_input((2, 3, 64, 96)) == (2, 3, 64, 96)


def test_open_sizes_and_the_order_of_bytes(tmp_path):
    relu = [node("Relu", ["images"], ["y"], "relu")]
    source = read_source(Path(write_graph(tmp_path / "m.onnx", relu, shape=("b", 3, "h", 64))))
    assert source.shape == (-1, 3, -1, 64) and source.is_dynamic
    cast = [node("Cast", ["images"], ["y"], "cast", to=1)]
    source = read_source(Path(write_graph(tmp_path / "m.onnx", cast, shape=(1, 64, 96, 3), dtype=UINT8)))
    assert source.channels_last and source.as_input((2, 3, 64, 96)) == (2, 64, 96, 3)


@pytest.mark.parametrize("shape", [(1, 3, 33, 32), (1, 3, 32, 100), (1, 33, 32, 3)])
def test_sides_that_are_no_multiple_of_32(tmp_path, shape):
    path = write_graph(tmp_path / "m.onnx", [node("Relu", ["images"], ["y"], "relu")], shape=shape)
    with pytest.raises(ValueError, match=r"m\.onnx takes images of shape .*multiples of 32 px"):
        read_source(Path(path))
