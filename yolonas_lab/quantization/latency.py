"""How many milliseconds each layer takes in float32 and in INT8, measured here or read from a table. Notebook 10.

Every convolution is timed alone, with the shapes it has in the network, as onnxruntime runs it on one thread: float32
against unsigned 8-bit activations with signed 8-bit weights. The times of another machine, such as a GPU, come as JSON.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from yolonas_lab.common import time_side_by_side, unknown_name, write_atomically
from yolonas_lab.models.reparameterize import reparameterize
from yolonas_lab.quantization.calibrate import quantizable_layers

OPSET, IR_VERSION = 20, 10
WORTH_TIMING = 2e7  # multiply-accumulates; a smaller layer is repeated in its graph, so that it outweighs the call


class LayerTime(NamedTuple):
    """Milliseconds of one layer for one image."""

    float_ms: float
    int8_ms: float


class Geometry(NamedTuple):
    """All that decides the time of a convolution: sizes in channels and px, and whether it is a transposed one."""

    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    padding: int
    height: int  # of the input
    width: int
    transposed: bool

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        pixels = self.height * self.width / (1 if self.transposed else self.stride**2)
        return round(self.in_channels * self.out_channels * self.kernel**2 * pixels)


def layer_latency(model: nn.Module, image_size: int | None = None, rounds: int = 15) -> dict[str, LayerTime]:
    """Time of every quantizable layer of a float model, in network order, for one image of image_size px (default: the
    model's).

    Layers of the same shape are timed once; medians over `rounds` in which all layers take turns. A layer that
    onnxruntime cannot compute in INT8 (a transposed convolution) is timed as it would run among INT8 layers: with the
    conversions around it. Raises ImportError with the pip command where onnx or onnxruntime is missing.
    """
    shapes = layer_shapes(model, image_size)
    different = list(dict.fromkeys(shapes.values()))
    candidates, copies = {}, {}
    for number, shape in enumerate(different):
        copies[shape] = max(1, min(16, round(WORTH_TIMING / shape.macs)))
        candidates[f"float {number}"] = _runner(shape, copies[shape], int8=False)
        candidates[f"int8 {number}"] = _runner(shape, copies[shape], int8=True)
    found = time_side_by_side(candidates, rounds)
    times = {}
    for number, shape in enumerate(different):
        float_ms, int8_ms = (found[f"{kind} {number}"].median_ms / copies[shape] for kind in ("float", "int8"))
        times[shape] = LayerTime(float_ms, int8_ms)
    return {name: times[shape] for name, shape in shapes.items()}


def layer_shapes(model: nn.Module, image_size: int | None = None) -> dict[str, Geometry]:
    """The geometry of every quantizable layer of a float model, by name, for square images of image_size px."""
    fused = reparameterize(model)
    parameter = next(fused.parameters())
    size = image_size if image_size is not None else int(fused.image_size)  # type: ignore[arg-type]
    shapes: dict[str, Geometry] = {}

    def note(name: str) -> Callable[[Any, tuple[Tensor, ...]], None]:
        def hook(conv: Any, inputs: tuple[Tensor, ...]) -> None:
            (kernel, _), (stride, _), (padding, _) = conv.kernel_size, conv.stride, conv.padding
            channels, (h, w) = (conv.in_channels, conv.out_channels), inputs[0].shape[2:]
            transposed = isinstance(conv, nn.ConvTranspose2d)
            shapes[name] = Geometry(*channels, kernel, stride, padding, h, w, transposed)

        return hook

    names = quantizable_layers(fused)
    for name in names:
        fused.get_submodule(name).register_forward_pre_hook(note(name))
    with torch.inference_mode():
        fused(torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype))
    return {name: shapes[name] for name in names}


def network_ms(table: Mapping[str, LayerTime], float_layers: Iterable[str] = ()) -> float:
    """Sum over all layers of a table in ms, with float_layers in float32 and the others in INT8."""
    kept = set(float_layers)
    return sum(time.float_ms if name in kept else time.int8_ms for name, time in table.items())


def save_latency(table: Mapping[str, LayerTime], path: str | Path) -> Path:
    """Write a table as JSON, {"layer": [float_ms, int8_ms], …}, atomically; returns the path."""
    text = json.dumps({name: list(time) for name, time in table.items()}, indent=1) + "\n"
    return write_atomically(Path(path), lambda file: file.write(text.encode()))


def load_latency(path: str | Path) -> dict[str, LayerTime]:
    """Read a table that save_latency, or another machine, wrote. Raises ValueError naming the file and the entry."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not readable as JSON ({error}).") from error
    try:
        return check_latency(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def check_latency(table: Any, layers: Iterable[str] | None = None) -> dict[str, LayerTime]:
    """The table {layer: (float_ms, int8_ms)} as LayerTimes, in the order of `layers` where these are given.

    Raises ValueError for an entry that is no pair of positive numbers, a layer that is missing, and one that the model
    does not have, with the nearest match.
    """
    if not isinstance(table, Mapping):
        raise ValueError(f"a latency table is a mapping of layer names to (float_ms, int8_ms), not {type(table)}.")
    times = {}
    for name, entry in table.items():
        pair = tuple(entry) if isinstance(entry, (list, tuple)) else ()
        if len(pair) != 2 or not all(isinstance(ms, (int, float)) and 0 < ms < np.inf for ms in pair):
            raise ValueError(
                f"the latency of layer '{name}' is {entry!r}: give two positive numbers, (float_ms, int8_ms)."
            )
        times[name] = LayerTime(float(pair[0]), float(pair[1]))
    if layers is None:
        return times
    layers = list(layers)
    if unknown := [name for name in times if name not in set(layers)]:
        raise ValueError(unknown_name("layer in the latency table", unknown[0], layers))
    if missing := [name for name in layers if name not in times]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(f"the latency table lacks layer '{missing[0]}'{more}: give every layer (float_ms, int8_ms).")
    return {name: times[name] for name in layers}


def _runner(shape: Geometry, copies: int, int8: bool) -> Any:
    """A function without arguments that computes the layer `copies` times, each with weights of its own."""
    session = onnx_session(layer_graph(shape, copies, int8).SerializeToString())
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (1, shape.in_channels, shape.height, shape.width)).astype(np.uint8)
    feed = {"x": x if int8 else x.astype(np.float32) / 255}
    return lambda: session.run(None, feed)


def onnx_session(graph: bytes) -> Any:
    """An onnxruntime session of a serialized ONNX graph on one thread of the processor.

    Raises ImportError with the pip command where onnxruntime is missing.
    """
    onnxruntime = onnxruntime_package()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def onnxruntime_package() -> Any:
    """The package, which timing needs; raises ImportError with the pip command where it is missing."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError("timing with onnxruntime needs two packages: pip install onnx onnxruntime") from error
    return onnxruntime


def layer_graph(shape: Geometry, copies: int, int8: bool) -> Any:
    """An ONNX model of the layer, `copies` times with different weights: float32, or Q/DQ with uint8 input and output.

    A convolution has its ReLU behind it, as everywhere in the network; a transposed one has none.
    """
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes, outputs, constants = [], [], {}
    kind = TensorProto.UINT8 if int8 else TensorProto.FLOAT
    if int8:
        constants |= {"s": np.float32(1 / 255), "z": np.uint8(0), "sw": np.float32(1 / 64), "zw": np.int8(0)}
        constants |= {"sb": np.float32(1 / 255 / 64), "zb": np.int32(0)}
        nodes.append(helper.make_node("DequantizeLinear", ["x", "s", "z"], ["a"]))
    channels = (shape.in_channels, shape.out_channels)
    order = channels if shape.transposed else channels[::-1]
    for i in range(copies):
        weight = rng.integers(-64, 65, (*order, shape.kernel, shape.kernel))
        if int8:
            constants |= {f"wq{i}": weight.astype(np.int8), f"bq{i}": np.zeros(shape.out_channels, np.int32)}
            nodes.append(helper.make_node("DequantizeLinear", [f"wq{i}", "sw", "zw"], [f"w{i}"]))
            nodes.append(helper.make_node("DequantizeLinear", [f"bq{i}", "sb", "zb"], [f"b{i}"]))
        else:
            constants |= {f"w{i}": weight.astype(np.float32) / 64, f"b{i}": np.zeros(shape.out_channels, np.float32)}
        nodes += _layer_nodes(shape, i, int8)
        outputs.append(helper.make_tensor_value_info(f"y{i}", kind, None))
    x = helper.make_tensor_value_info("x", kind, [1, shape.in_channels, shape.height, shape.width])
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "layer", [x], outputs, stored)
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)


def _layer_nodes(shape: Geometry, i: int, int8: bool) -> list[Any]:
    """The nodes of copy i, from its weights to its output."""
    from onnx import helper

    last = f"c{i}" if int8 else f"y{i}"
    kernel, strides, pads = [shape.kernel] * 2, [shape.stride] * 2, [shape.padding] * 4
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "pads": pads}
    inputs = ["a" if int8 else "x", f"w{i}", f"b{i}"]
    if shape.transposed:
        nodes = [helper.make_node("ConvTranspose", inputs, [last], **attributes)]
    else:
        nodes = [
            helper.make_node("Conv", inputs, [f"r{i}"], **attributes),
            helper.make_node("Relu", [f"r{i}"], [last]),
        ]
    if int8:
        nodes.append(helper.make_node("QuantizeLinear", [last, "s", "z"], [f"y{i}"]))
    return nodes
