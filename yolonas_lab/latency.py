"""How long networks take: the operations that a config runs when deployed, and the time of each. Notebooks 09 and 10.

What decides an operation's time is its kind and its shape. Networks have most of these in common, so that a few hundred
measurements tell the times of a whole search space. Listing and counting need no network: they take microseconds.
Look-up tables for search: Cai et al., "ProxylessNAS", arXiv 1812.00332, section 3.3.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from yolonas_lab.common import check_image_size, machine_name, time_side_by_side, unknown_name
from yolonas_lab.models.blocks import ConvBNAct
from yolonas_lab.models.configs import StageConfig, YoloNASConfig
from yolonas_lab.models.reparameterize import reparameterize
from yolonas_lab.models.yolo_nas import STRIDES, YoloNAS

CONVOLUTIONS = ("conv", "predict", "upsample")


class Layer(NamedTuple):
    """One operation of a fused network on square maps: all that its time depends on.

    A "conv" has its ReLU behind it, "predict" is a convolution without, "upsample" a transposed one; "add" is the
    scaled sum of a bottleneck; "concat" and "pool". The block types are all the same "conv" once they are fused.
    """

    kind: str
    in_channels: int  # of a concatenation, of all its pieces together
    out_channels: int
    kernel: int
    stride: int
    size: int  # px, side of the input

    @property
    def weights(self) -> int:
        """Entries of the kernel, biases not counted; only convolutions have any."""
        return self.in_channels * self.out_channels * self.kernel**2 if self.kind in CONVOLUTIONS else 0

    @property
    def parameters(self) -> int:
        """Weights and biases; only convolutions have any."""
        return self.weights + self.out_channels if self.kind in CONVOLUTIONS else 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image: each weight is used once per place, of the output or an upsampled map."""
        return self.weights * (self.size if self.kind == "upsample" else self.size // self.stride) ** 2

    def __str__(self) -> str:
        """Such as "conv 16→24 3×3/2 at 32 px"."""
        kind, c_in, c_out, kernel, stride, size = self
        return f"{kind} {c_in}→{c_out} {kernel}×{kernel}/{stride} at {size} px"


def parse_layer(text: str) -> Layer:
    """The operation that `str` wrote as this text. Raises ValueError for any other text."""
    match = re.fullmatch(r"(\w+) (\d+)→(\d+) (\d+)×\4/(\d+) at (\d+) px", text)
    if match is None:
        raise ValueError(f"'{text}' is not an operation such as 'conv 16→24 3×3/2 at 32 px'.")
    return Layer(match[1], *map(int, match.groups()[1:]))


def network_layers(config: YoloNASConfig, image_size: int, num_classes: int = 80) -> dict[str, Layer]:
    """Every operation of the fused network on an image of image_size px, by the name of its module, as they run.

    A bottleneck's name stands for its sum, ".concat" behind a name for what is joined there. Decoding is left out: it
    is the same for all networks. Raises ValueError for an image_size that is not a multiple of 32.

    >>> from yolonas_lab.models import CONFIGS
    >>> sum(layer.macs for layer in network_layers(CONFIGS["yolo_nas_s"], image_size=640).values())
    15898624000
    """
    check_image_size(image_size)
    c2, c3, c4, c5 = (stage.out_channels for stage in config.backbone)
    up1, up2, down1, down2 = config.neck
    return (
        _backbone(config, image_size)
        | _up("neck.up1", (c5, c4, c3), up1, image_size // 32)
        | _up("neck.up2", (up1.out_channels, c3, c2), up2, image_size // 16)
        | _down("neck.down1", up2.out_channels, up2.out_channels, down1, image_size // 8)
        | _down("neck.down2", down1.out_channels, up1.out_channels, down2, image_size // 16)
        | _heads(config, image_size, num_classes)
    )


def _backbone(config: YoloNASConfig, size: int) -> dict[str, Layer]:
    layers = {"backbone.stem.conv": Layer("conv", 3, config.stem_channels, 3, 2, size)}
    channels, size = config.stem_channels, size // 2
    for number, stage in enumerate(config.backbone):
        name = f"backbone.stages.{number}"
        layers[f"{name}.downsample.conv"] = Layer("conv", channels, stage.out_channels, 3, 2, size)
        channels, size = stage.out_channels, size // 2
        layers |= _csp(f"{name}.csp", channels, stage, size)
    half = channels // 2
    joined = half * (1 + len(config.spp_kernels))
    layers["backbone.spp.conv1.conv"] = Layer("conv", channels, half, 1, 1, size)
    for number, kernel in enumerate(config.spp_kernels):
        layers[f"backbone.spp.pools.{number}"] = Layer("pool", half, half, kernel, 1, size)
    layers["backbone.spp.concat"] = Layer("concat", joined, joined, 1, 1, size)
    layers["backbone.spp.conv2.conv"] = Layer("conv", joined, channels, 1, 1, size)
    return layers


def _csp(name: str, in_channels: int, stage: StageConfig, size: int) -> dict[str, Layer]:
    hidden = stage.hidden_channels
    layers = {f"{name}.conv1.conv": Layer("conv", in_channels, hidden, 1, 1, size)}
    for number in range(stage.blocks):
        bottleneck = f"{name}.bottlenecks.{number}"
        for block in ("block1", "block2"):
            layers[f"{bottleneck}.{block}.conv"] = Layer("conv", hidden, hidden, 3, 1, size)
        layers[bottleneck] = Layer("add", hidden, hidden, 1, 1, size)
    joined = hidden * (stage.blocks + 2 if stage.concat else 2)
    layers[f"{name}.conv2.conv"] = Layer("conv", in_channels, hidden, 1, 1, size)
    layers[f"{name}.concat"] = Layer("concat", joined, joined, 1, 1, size)
    layers[f"{name}.conv3.conv"] = Layer("conv", joined, stage.out_channels, 1, 1, size)
    return layers


def _up(name: str, channels: tuple[int, int, int], stage: StageConfig, size: int) -> dict[str, Layer]:
    """An up stage: `size` is the side of its coarse input in px; its skips have two and four times that."""
    coarse, skip, fine_skip = channels
    out = stage.out_channels
    layers = {
        "reduce.conv": Layer("conv", coarse, out, 1, 1, size),
        "upsample": Layer("upsample", out, out, 2, 2, size),
        "reduce_skip.conv": Layer("conv", skip, out, 1, 1, 2 * size),
        "reduce_fine_skip.conv": Layer("conv", fine_skip, out, 1, 1, 4 * size),
        "downsample_fine_skip.conv": Layer("conv", out, out, 3, 2, 4 * size),
        "concat": Layer("concat", 3 * out, 3 * out, 1, 1, 2 * size),
        "reduce_concat.conv": Layer("conv", 3 * out, out, 1, 1, 2 * size),
    }
    return {f"{name}.{key}": layer for key, layer in layers.items()} | _csp(f"{name}.csp", out, stage, 2 * size)


def _down(name: str, fine: int, skip: int, stage: StageConfig, size: int) -> dict[str, Layer]:
    """A down stage: `size` is the side of its fine input in px, twice that of the skip."""
    half = stage.out_channels // 2
    joined = half + skip
    return {
        f"{name}.downsample.conv": Layer("conv", fine, half, 3, 2, size),
        f"{name}.concat": Layer("concat", joined, joined, 1, 1, size // 2),
    } | _csp(f"{name}.csp", joined, stage, size // 2)


def _heads(config: YoloNASConfig, image_size: int, num_classes: int) -> dict[str, Layer]:
    features = (stage.out_channels for stage in config.neck[1:])
    layers = {}
    for level, (channels, width) in enumerate(zip(features, config.head_channels, strict=True)):
        name, size = f"heads.levels.{level}", image_size // STRIDES[level]
        layers[f"{name}.stem.conv"] = Layer("conv", channels, width, 1, 1, size)
        for part, outputs in (("class", num_classes), ("box", 4 * (config.reg_max + 1))):
            layers[f"{name}.{part}_conv.conv"] = Layer("conv", width, width, 3, 1, size)
            layers[f"{name}.{part}_pred"] = Layer("predict", width, outputs, 1, 1, size)
    return layers


ENGINES = ("torch", "onnxruntime", "onnxruntime int8")
WORTH_TIMING = 2e7  # multiply-accumulates; a smaller operation is repeated, so that it outweighs the call
MOST_COPIES = 16


@dataclass(frozen=True)
class LatencyTable:
    """Milliseconds of operations for one image, with where and how they were measured."""

    machine: str
    engine: str
    image_size: int  # px, of the networks that the operations come from
    layers: Mapping[Layer, float]

    def total_ms(self, layers: Iterable[Layer]) -> float:
        """The sum over operations. Raises ValueError naming one that the table lacks."""
        try:
            return sum(self.layers[layer] for layer in layers)
        except KeyError as error:
            lacking = error.args[0]
            raise ValueError(f"The latency table lacks '{lacking}': measure the whole space (space_layers).") from None


def measure_table(layers: Iterable[Layer], image_size: int, engine: str = "torch", rounds: int = 15) -> LatencyTable:
    """Time operations on this machine for one image, as PyTorch runs them or onnxruntime in float32 or INT8. All take
    turns on one thread; the median CPU time over `rounds` counts. Raises as `machine_for` does.
    """
    machine = machine_for(engine)
    times = _time([(layer, engine) for layer in layers], rounds)
    return LatencyTable(machine, engine, image_size, {layer: ms for (layer, _), ms in times.items()})


def machine_for(engine: str) -> str:
    """This machine in words, with the version of the engine: times of one machine are worth nothing on another. Raises
    ValueError for an unknown engine, and where torch uses more than one thread, whose CPU times add up.
    """
    if engine not in ENGINES:
        raise ValueError(unknown_name("engine", engine, ENGINES))
    if engine != "torch":
        import onnxruntime

        return f"{machine_name()}, onnxruntime {onnxruntime.__version__}"
    if (threads := torch.get_num_threads()) > 1:
        raise ValueError(f"torch uses {threads} threads, whose times add up: call torch.set_num_threads(1) first.")
    return machine_name()


class LayerTime(NamedTuple):
    """Milliseconds of one layer for one image."""

    float_ms: float
    int8_ms: float


def layer_latency(model: YoloNAS, image_size: int | None = None, rounds: int = 15) -> dict[str, LayerTime]:
    """Time of every layer of a network that can be quantized, in float32 and in INT8, by its name in the fused network.

    Measured with onnxruntime as in `measure_table`, for one image of image_size px (default: the model's). A transposed
    convolution, which onnxruntime cannot compute in INT8, is timed with the conversions around it.
    """
    layers = network_layers(model.config, image_size or model.image_size, model.num_classes)
    convolutions = {name: layer for name, layer in layers.items() if layer.kind in ("conv", "upsample")}
    _, in_float, in_int8 = ENGINES
    ms = _time([(layer, engine) for layer in convolutions.values() for engine in (in_float, in_int8)], rounds)
    return {name: LayerTime(ms[layer, in_float], ms[layer, in_int8]) for name, layer in convolutions.items()}


def network_ms(table: Mapping[str, LayerTime], float_layers: Iterable[str] = ()) -> float:
    """Sum over all layers of a table in ms, with float_layers in float32 and the others in INT8."""
    kept = set(float_layers)
    return sum(time.float_ms if name in kept else time.int8_ms for name, time in table.items())


def check_latency(table: Mapping[str, Sequence[float]], layers: Iterable[str]) -> dict[str, LayerTime]:
    """The times {layer: (float_ms, int8_ms)}, measured here or anywhere, in the order of these layers. Raises
    ValueError for one that is missing or no pair of positive numbers, and for a layer that is not among these.
    """
    layers = list(layers)
    if unknown := [name for name in table if name not in layers]:
        raise ValueError(unknown_name("layer in the latency table", unknown[0], layers))
    for name in layers:
        pair = table.get(name, "missing")
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(0 < ms < math.inf for ms in pair):
            raise ValueError(f"the latency of layer '{name}' is {pair}: give two positive numbers (float_ms, int8_ms).")
    return {name: LayerTime(*map(float, table[name])) for name in layers}


def _time(wanted: Iterable[tuple[Layer, str]], rounds: int) -> dict[tuple[Layer, str], float]:
    """Milliseconds of operations in engines, (layer, engine): all of them take turns, each different one once."""
    wanted = dict.fromkeys(wanted)
    copies = {layer: max(1, min(MOST_COPIES, round(WORTH_TIMING / max(layer.macs, 1)))) for layer, _ in wanted}
    runners = {f"{layer}, {engine}": _runner(layer, engine, copies[layer]) for layer, engine in wanted}
    found = time_side_by_side(runners, rounds)
    return {(layer, engine): found[f"{layer}, {engine}"].median_ms / copies[layer] for layer, engine in wanted}


def _runner(layer: Layer, engine: str, copies: int) -> Callable[[], object]:
    """Computes an operation `copies` times, with weights of their own: as in a network, not all are in the caches."""
    if engine == "torch":
        return _in_torch(layer, copies)
    int8 = engine == "onnxruntime int8" and layer.kind != "predict"  # the last convolutions stay in float
    session = onnx_session(layer_graph(layer, copies, int8).SerializeToString())
    x = np.random.default_rng(0).integers(0, 256, _input_shape(layer)).astype(np.uint8)
    feed = {tensor.name: x if int8 else x.astype(np.float32) / 255 for tensor in session.get_inputs()}
    return lambda: session.run(None, feed)


def _input_shape(layer: Layer) -> list[int]:
    """(b, c, h, w) of what is fed; a concatenation gets the same half twice."""
    return [1, layer.in_channels // (2 if layer.kind == "concat" else 1), layer.size, layer.size]


def _in_torch(layer: Layer, copies: int) -> Callable[[], list[Tensor]]:
    torch.manual_seed(0)
    x = torch.rand(_input_shape(layer)).to(memory_format=torch.channels_last)
    runs = [_operation(layer) for _ in range(copies)]
    return torch.inference_mode()(lambda: [run(x) for run in runs])


def _operation(layer: Layer) -> Callable[[Tensor], Tensor]:
    """The operation as in a re-parameterized network, channels_last as there."""
    kind, c_in, c_out, kernel, stride, _ = layer
    if kind == "add":
        alpha = torch.rand(1)
        return lambda x: alpha * x + x
    if kind == "concat":
        return lambda x: torch.cat([x, x], dim=1)
    if kind == "pool":
        return nn.MaxPool2d(kernel, stride, padding=kernel // 2)
    if kind == "conv":
        return reparameterize(ConvBNAct(c_in, c_out, kernel, stride))
    conv = nn.ConvTranspose2d if kind == "upsample" else nn.Conv2d
    return conv(c_in, c_out, kernel, stride).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def onnx_session(graph: bytes) -> Any:
    """A session of a serialized ONNX graph on one thread of the processor."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def layer_graph(layer: Layer, copies: int, int8: bool) -> Any:
    """An ONNX model that computes an operation `copies` times: in float32, or as Q/DQ with uint8 inputs and outputs.

    Convolutions have weights of their own and read one map; the others, else computed only once, an input each.
    """
    from onnx import numpy_helper, parser

    own_weights = layer.kind in CONVOLUTIONS
    side = 2 * layer.size if layer.kind == "upsample" else layer.size // layer.stride
    kind = "uint8" if int8 else "float"
    inputs = ["x"] if own_weights else [f"x{i}" for i in range(copies)]
    reads = ", ".join(f"{kind}{_input_shape(layer)} {x}" for x in inputs)
    writes = ", ".join(f"{kind}[1, {layer.out_channels}, {side}, {side}] y{i}" for i in range(copies))
    body = "\n".join(_nodes(layer, inputs[i % len(inputs)], i, int8) for i in range(copies))
    versions = '<ir_version: 10, opset_import: ["": 20]>'
    model = parser.parse_model(f"{versions} layer ({reads}) => ({writes}) {{ {body} }}")
    constants, rng = dict(_CONSTANTS), np.random.default_rng(0)
    _, c_in, c_out, k, *_ = layer
    for i in range(copies if own_weights else 0):
        shape = (c_in, c_out, k, k) if layer.kind == "upsample" else (c_out, c_in, k, k)
        kernel = rng.integers(-64, 65, shape)
        constants |= {f"wq{i}": kernel.astype(np.int8), f"bq{i}": np.zeros(c_out, np.int32)}
        constants |= {f"w{i}": kernel.astype(np.float32) / 64, f"b{i}": np.zeros(c_out, np.float32)}
    used = {name for node in model.graph.node for name in node.input} - {n for o in model.graph.node for n in o.output}
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items() if name in used]
    model.graph.initializer.extend(stored)
    return model


_CONSTANTS = {"alpha": np.float32(0.9), "s": np.float32(1 / 255), "z": np.uint8(0)}
_CONSTANTS |= {"sw": np.float32(1 / 64), "zw": np.int8(0), "sb": np.float32(1 / 255 / 64), "zb": np.int32(0)}


def _nodes(layer: Layer, x: str, i: int, int8: bool) -> str:
    """What computes copy i, from the map x to its output y, in ONNX's text form."""
    k, s, p = layer.kernel, layer.stride, 0 if layer.kind == "upsample" else layer.kernel // 2
    window = f"kernel_shape = [{k}, {k}], strides = [{s}, {s}], pads = [{p}, {p}, {p}, {p}]"
    read, write = (f"a{i}", f"c{i}") if int8 else (x, f"y{i}")
    compute = {
        "conv": f"r{i} = Conv<{window}>({read}, w{i}, b{i}) {write} = Relu(r{i})",
        "predict": f"{write} = Conv<{window}>({read}, w{i}, b{i})",
        "upsample": f"{write} = ConvTranspose<{window}>({read}, w{i}, b{i})",
        "add": f"m{i} = Mul({read}, alpha) {write} = Add(m{i}, {read})",
        "concat": f"y{i} = Concat<axis = 1>({x}, {x})",  # these two keep integers as they are
        "pool": f"y{i} = MaxPool<{window}>({x})",
    }[layer.kind]
    if not int8 or layer.kind in ("concat", "pool"):
        return compute
    if layer.kind in CONVOLUTIONS:
        compute = f"w{i} = DequantizeLinear(wq{i}, sw, zw) b{i} = DequantizeLinear(bq{i}, sb, zb) {compute}"
    return f"a{i} = DequantizeLinear({x}, s, z) {compute} y{i} = QuantizeLinear(c{i}, s, z)"


@dataclass(frozen=True)
class Frontier:
    """Models of which AP and time were measured, in the order of measuring. `points` are the best of them."""

    candidates: tuple[Any, ...]  # each with its `ap` in [0, 1] and its `ms` for one image

    @cached_property
    def points(self) -> tuple[Any, ...]:
        """Those that no other beats, the fastest first; each is better than those before it."""
        return tuple(self.candidates[index] for index in pareto_front([(c.ap, c.ms) for c in self.candidates]))

    def best(self, budget_ms: float) -> Any:
        """The one with the largest AP that takes at most budget_ms milliseconds. Raises ValueError where none does."""
        fitting = [point for point in self.points if point.ms <= budget_ms]
        if not fitting:
            fastest = f"; the fastest there is takes {self.points[0].ms:.3g} ms" if self.points else ""
            raise ValueError(f"No network fits under {budget_ms:.3g} ms{fastest}.")
        return fitting[-1]

    def fastest(self, least_ap: float) -> Any:
        """The fastest with at least this AP. Raises ValueError where none has it."""
        good = [point for point in self.points if point.ap >= least_ap]
        if not good:
            raise ValueError(f"None of {len(self.candidates)} networks has an AP of {least_ap:.3g} or more.")
        return good[0]

    def hypervolume(self, within_ms: float) -> float:
        """`area_under` the frontier: within_ms times the mean AP of all budgets (Zitzler and Thiele, 1999)."""
        return area_under(self.points, within_ms)


def area_under(points: Sequence[Any], within_ms: float) -> float:
    """AP · ms: the area under stairs through these points, the fastest first, from 0 to within_ms."""
    inside = [point for point in points if point.ms < within_ms]
    ends = [point.ms for point in inside[1:]] + [within_ms]
    return sum(point.ap * (end - point.ms) for point, end in zip(inside, ends))


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points (AP, ms) that no other beats, the fastest first; of equal points the first counts."""
    if any(math.isnan(value) for point in points for value in point):
        raise ValueError("A point of the frontier is NaN: leave out networks without an AP or a time.")
    best, front = -math.inf, []
    for index in sorted(range(len(points)), key=lambda i: (points[i][1], -points[i][0])):
        if points[index][0] > best:
            best = points[index][0]
            front.append(index)
    return front
