"""How long each operation takes alone: as PyTorch runs it, and as onnxruntime does in float32 and in INT8. Notebook 09.

All operations take turns, at one thread, and the median of each counts. A small one is repeated with weights of its
own, so that it outweighs the call, and as in a network finds little of what it needs in the fastest memory.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from yolonas_lab.models.blocks import ConvBNAct
from yolonas_lab.models.reparameterize import reparameterize
from yolonas_lab.quantization.latency import (
    IR_VERSION,
    OPSET,
    WORTH_TIMING,
    Geometry,
    layer_graph,
    onnx_session,
    onnxruntime_package,
)
from yolonas_lab.search.layers import CONVOLUTIONS, Layer
from yolonas_lab.suggest import unknown_name
from yolonas_lab.timing import machine_name, time_side_by_side

ENGINES = ("torch", "onnxruntime", "onnxruntime int8")
MOST_COPIES = 16


def time_layers(layers: Iterable[Layer], engine: str = "torch", rounds: int = 15) -> dict[Layer, float]:
    """Milliseconds of each operation for one image, in CPU time: medians over `rounds` after two that warm up.

    Raises ValueError for an unknown engine, and where torch uses more than one thread, whose CPU times add up;
    ImportError with the pip command where the engine is not installed.
    """
    check_engine(engine)
    runners, copies = {}, {}
    for layer in dict.fromkeys(layers):
        copies[str(layer)] = max(1, min(MOST_COPIES, round(WORTH_TIMING / max(layer.macs, 1))))
        runners[str(layer)] = _runner(layer, engine, copies[str(layer)])
    found = time_side_by_side(runners, rounds)
    return {layer: found[str(layer)].median_ms / copies[str(layer)] for layer in dict.fromkeys(layers)}


def check_engine(engine: str) -> None:
    """Raise ValueError for an unknown engine and for torch at several threads."""
    if engine not in ENGINES:
        raise ValueError(unknown_name("engine", engine, ENGINES))
    if engine == "torch" and torch.get_num_threads() > 1:
        raise ValueError(
            f"torch uses {torch.get_num_threads()} threads, whose times add up: call torch.set_num_threads(1) first."
        )


def machine_for(engine: str) -> str:
    """This machine in words, with the version of the engine: measurements of one machine are worth nothing on another.

    Raises ValueError for an unknown engine, ImportError for one that is not installed.
    """
    check_engine(engine)
    return machine_name() + ("" if engine == "torch" else f", onnxruntime {onnxruntime_package().__version__}")


def _runner(layer: Layer, engine: str, copies: int) -> Callable[[], object]:
    if engine == "torch":
        return _in_torch(layer, copies)
    int8 = engine == "onnxruntime int8" and layer.kind != "predict"  # the last convolutions stay in float
    if layer.kind in CONVOLUTIONS:
        graph = layer_graph(_geometry(layer), copies, int8)
    else:
        graph = _other_graph(layer, copies, int8)
    session = onnx_session(graph.SerializeToString())
    inputs = session.get_inputs()
    x = np.random.default_rng(0).integers(0, 256, inputs[0].shape).astype(np.uint8)
    feed = {tensor.name: x if int8 else x.astype(np.float32) / 255 for tensor in inputs}
    return lambda: session.run(None, feed)


def _geometry(layer: Layer) -> Geometry:
    transposed = layer.kind == "upsample"
    padding = 0 if transposed else layer.kernel // 2
    channels = (layer.in_channels, layer.out_channels)
    return Geometry(*channels, layer.kernel, layer.stride, padding, layer.size, layer.size, transposed)


def _input_shape(layer: Layer) -> tuple[int, int, int, int]:
    """(b, c, h, w) of what is fed; a concatenation gets the same half twice."""
    channels = layer.in_channels // 2 if layer.kind == "concat" else layer.in_channels
    return (1, channels, layer.size, layer.size)


def _in_torch(layer: Layer, copies: int) -> Callable[[], object]:
    """The operation as in a re-parameterized network, channels_last as there."""
    torch.manual_seed(0)
    x = torch.rand(_input_shape(layer)).to(memory_format=torch.channels_last)
    runs: Sequence[Callable[[], object]]
    if layer.kind == "add":
        alphas = [torch.rand(1) for _ in range(copies)]
        runs = [lambda alpha=alpha: alpha * x + x for alpha in alphas]
    elif layer.kind == "concat":
        runs = [lambda: torch.cat([x, x], dim=1)] * copies
    else:
        runs = [lambda module=module: module(x) for module in (_module(layer) for _ in range(copies))]

    def run() -> object:
        with torch.inference_mode():
            return [once() for once in runs]

    return run


def _module(layer: Layer) -> nn.Module:
    c_in, c_out = layer.in_channels, layer.out_channels
    if layer.kind == "conv":
        return reparameterize(ConvBNAct(c_in, c_out, layer.kernel, layer.stride))
    if layer.kind == "pool":
        return nn.MaxPool2d(layer.kernel, stride=1, padding=layer.kernel // 2)
    conv = nn.ConvTranspose2d if layer.kind == "upsample" else nn.Conv2d
    module = conv(c_in, c_out, layer.kernel, layer.stride)
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _other_graph(layer: Layer, copies: int, int8: bool) -> Any:
    """An ONNX model of a sum, a concatenation or a pooling, `copies` times, each with an input of its own."""
    from onnx import TensorProto, helper, numpy_helper

    kind = TensorProto.UINT8 if int8 else TensorProto.FLOAT
    shape = _input_shape(layer)
    nodes, inputs, outputs = [], [], []
    for i in range(copies):
        inputs.append(helper.make_tensor_value_info(f"x{i}", kind, shape))
        outputs.append(helper.make_tensor_value_info(f"y{i}", kind, None))
        nodes += _other_nodes(layer, i, int8)
    constants = {"alpha": np.float32(0.9), "s": np.float32(1 / 255), "z": np.uint8(0)}
    used = {name for node in nodes for name in node.input}
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items() if name in used]
    graph = helper.make_graph(nodes, "layer", inputs, outputs, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def _other_nodes(layer: Layer, i: int, int8: bool) -> list[Any]:
    from onnx import helper

    if layer.kind == "concat":
        return [helper.make_node("Concat", [f"x{i}", f"x{i}"], [f"y{i}"], axis=1)]
    if layer.kind == "pool":
        kernel, pads = [layer.kernel] * 2, [layer.kernel // 2] * 4
        return [helper.make_node("MaxPool", [f"x{i}"], [f"y{i}"], kernel_shape=kernel, pads=pads)]
    x, y = (f"a{i}", f"b{i}") if int8 else (f"x{i}", f"y{i}")
    nodes = [helper.make_node("Mul", [x, "alpha"], [f"m{i}"]), helper.make_node("Add", [f"m{i}", x], [y])]
    if int8:
        nodes.insert(0, helper.make_node("DequantizeLinear", [f"x{i}", "s", "z"], [x]))
        nodes.append(helper.make_node("QuantizeLinear", [y, "s", "z"], [f"y{i}"]))
    return nodes
