"""A network as the list of operations that it runs when deployed, worked out from its config alone. Notebook 09.

What decides an operation's time is its kind and its shape. Different networks have many of these in common, so that
few measurements tell the times of many networks. Nothing is built: a list takes microseconds.
"""

import hashlib
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from yolonas_lab.common import machine_name, time_side_by_side, unknown_name, write_atomically
from yolonas_lab.models.blocks import ConvBNAct
from yolonas_lab.models.configs import StageConfig, YoloNASConfig
from yolonas_lab.models.reparameterize import reparameterize
from yolonas_lab.models.yolo_nas import STRIDES
from yolonas_lab.quantization.latency import (
    IR_VERSION,
    OPSET,
    WORTH_TIMING,
    Geometry,
    layer_graph,
    onnx_session,
    onnxruntime_package,
)
from yolonas_lab.search.space import Space, config_of

# "conv" has its ReLU behind it, "predict" is a convolution without, "upsample" a transposed one; "add" is the scaled
# sum of a bottleneck. The block types are all the same "conv" once they are fused.
KINDS = ("conv", "predict", "upsample", "add", "concat", "pool")
CONVOLUTIONS = ("conv", "predict", "upsample")


class Layer(NamedTuple):
    """One operation of a fused network on square maps: all that its time depends on."""

    kind: str  # one of KINDS
    in_channels: int  # of a concatenation, of all its pieces together
    out_channels: int
    kernel: int
    stride: int
    size: int  # px, side of the input

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image; only convolutions have any."""
        if self.kind not in CONVOLUTIONS:
            return 0
        side = self.size if self.kind == "upsample" else self.size // self.stride
        return self.weights * side**2

    @property
    def weights(self) -> int:
        """Entries of the kernel, biases not counted; only convolutions have any."""
        return self.in_channels * self.out_channels * self.kernel**2 if self.kind in CONVOLUTIONS else 0

    def __str__(self) -> str:
        """Such as "conv 16→24 3×3/2 at 32 px"."""
        channels = f"{self.in_channels}→{self.out_channels}"
        return f"{self.kind} {channels} {self.kernel}×{self.kernel}/{self.stride} at {self.size} px"


def parse_layer(text: str) -> Layer:
    """The operation that `str` wrote as this text. Raises ValueError for any other text."""
    match = _TEXT.fullmatch(text)
    if match is None or match["kind"] not in KINDS:
        raise ValueError(f"'{text}' is not an operation such as '{Layer('conv', 16, 24, 3, 2, 32)}'.")
    numbers = (int(match[field]) for field in ("c_in", "c_out", "kernel", "stride", "size"))
    return Layer(match["kind"], *numbers)


_TEXT = re.compile(
    r"(?P<kind>\w+) (?P<c_in>\d+)→(?P<c_out>\d+) (?P<kernel>\d+)×(?P=kernel)/(?P<stride>\d+) at (?P<size>\d+) px"
)


def network_layers(config: YoloNASConfig, image_size: int, num_classes: int = 80) -> dict[str, Layer]:
    """Every operation of the fused network on an image of image_size px, by the name of its module, part by part.

    A bottleneck's name stands for its sum, a pyramid's or stage's with ".concat" for what is joined there. Left out is
    what follows the last convolutions (decoding): it is the same for all networks at one image_size. Raises ValueError
    for an image_size that is not a multiple of 32.
    """
    if image_size < STRIDES[-1] or image_size % STRIDES[-1]:
        raise ValueError(f"image_size must be a multiple of {STRIDES[-1]} px, but is {image_size}.")
    return _backbone(config, image_size) | _neck(config, image_size) | _heads(config, image_size, num_classes)


def count_macs(layers: Iterable[Layer]) -> int:
    """Multiply-accumulates of all these operations for one image."""
    return sum(layer.macs for layer in layers)


def space_layers(space: Space, image_size: int, num_classes: int = 80) -> list[Layer]:
    """Every operation that some network of a space has, each once.

    An operation depends on the decisions of one stage and the width of at most one other, so that it is enough to
    combine these. Raises ValueError for an image_size that is not a multiple of 32.
    """
    found: dict[Layer, None] = {}
    for free in _groups(space):
        options = [space.decisions[decision] for decision in free]
        fixed = {decision: options[0] for decision, options in space.decisions.items()}
        for chosen in itertools.product(*options):
            config = config_of(space, fixed | dict(zip(free, chosen)))
            found |= dict.fromkeys(network_layers(config, image_size, num_classes).values())
    return list(found)


def _groups(space: Space) -> Iterator[list[str]]:
    """Sets of decisions that may meet in one operation: those of a stage, and one width of another. Block types are
    left out: fused, they are all the same.
    """
    matter = [decision for decision in space.decisions if not decision.endswith("block")]
    widths = [decision for decision in matter if decision.endswith(("out_channels", "stem_channels"))]
    places = dict.fromkeys(decision.rpartition(".")[0] for decision in matter if decision.count(".") == 2)
    for place in places:
        own = [decision for decision in matter if decision.startswith(f"{place}.")]
        yield from ([*own, width] for width in widths if width not in own)
    heads = [decision for decision in matter if decision.startswith("head_channels")]
    yield from ([head, width] for head in heads for width in widths)


def _backbone(config: YoloNASConfig, size: int) -> dict[str, Layer]:
    layers = {"backbone.stem.conv": Layer("conv", 3, config.stem_channels, 3, 2, size)}
    channels, size = config.stem_channels, size // 2
    for number, stage in enumerate(config.backbone):
        name = f"backbone.stages.{number}"
        layers[f"{name}.downsample.conv"] = Layer("conv", channels, stage.out_channels, 3, 2, size)
        channels, size = stage.out_channels, size // 2
        layers |= _csp(f"{name}.csp", channels, stage, size)
    half, pieces = channels // 2, 1 + len(config.spp_kernels)
    layers["backbone.spp.conv1.conv"] = Layer("conv", channels, half, 1, 1, size)
    for number, kernel in enumerate(config.spp_kernels):
        layers[f"backbone.spp.pools.{number}"] = Layer("pool", half, half, kernel, 1, size)
    layers["backbone.spp.concat"] = _concat(pieces * half, size)
    layers["backbone.spp.conv2.conv"] = Layer("conv", pieces * half, channels, 1, 1, size)
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
    layers[f"{name}.concat"] = _concat(joined, size)
    layers[f"{name}.conv3.conv"] = Layer("conv", joined, stage.out_channels, 1, 1, size)
    return layers


def _neck(config: YoloNASConfig, image_size: int) -> dict[str, Layer]:
    c2, c3, c4, c5 = (stage.out_channels for stage in config.backbone)
    up1, up2, down1, down2 = config.neck
    return (
        _up("neck.up1", (c5, c4, c3), up1, image_size // 32)
        | _up("neck.up2", (up1.out_channels, c3, c2), up2, image_size // 16)
        | _down("neck.down1", up2.out_channels, up2.out_channels, down1, image_size // 8)
        | _down("neck.down2", down1.out_channels, up1.out_channels, down2, image_size // 16)
    )


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
        "concat": _concat(3 * out, 2 * size),
        "reduce_concat.conv": Layer("conv", 3 * out, out, 1, 1, 2 * size),
    }
    return {f"{name}.{key}": layer for key, layer in layers.items()} | _csp(f"{name}.csp", out, stage, 2 * size)


def _down(name: str, fine: int, skip: int, stage: StageConfig, size: int) -> dict[str, Layer]:
    """A down stage: `size` is the side of its fine input in px, that of the skip half of it."""
    half = stage.out_channels // 2
    return {
        f"{name}.downsample.conv": Layer("conv", fine, half, 3, 2, size),
        f"{name}.concat": _concat(half + skip, size // 2),
    } | _csp(f"{name}.csp", half + skip, stage, size // 2)


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


def _concat(channels: int, size: int) -> Layer:
    return Layer("concat", channels, channels, 1, 1, size)


# How long each operation takes alone: as PyTorch runs it, and as onnxruntime does in float32 and in INT8. Notebook 09.
#
# All operations take turns, at one thread, and the median of each counts. A small one is repeated with weights of its
# own, so that it outweighs the call, and as in a network finds little of what it needs in the fastest memory.

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


# Milliseconds by operation: measured here once and kept in a file, or brought from another machine. Notebook 09.
#
# A table says on which machine, with which engine and at which image size it was measured, and is refused elsewhere.


@dataclass(frozen=True)
class LatencyTable:
    """Milliseconds of operations, with where and how they were measured.

    `kinds` are the kinds of operations that the table counts. A GPU's compiler leaves hardly anything of the others:
    its table holds convolutions alone.
    """

    machine: str
    engine: str
    image_size: int  # px, of the networks that the operations come from
    layers: Mapping[Layer, float]
    kinds: tuple[str, ...] = KINDS

    def total_ms(self, layers: Iterable[Layer]) -> float:
        """The sum over operations, of the kinds that count. Raises ValueError naming one that the table lacks."""
        counted = [layer for layer in layers if layer.kind in self.kinds]
        if missing := [layer for layer in dict.fromkeys(counted) if layer not in self.layers]:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise ValueError(
                f"The latency table lacks '{missing[0]}'{more}: measure the operations of the whole space "
                "(space_layers) at this image size and number of classes."
            )
        return sum(self.layers[layer] for layer in counted)


def measure_table(
    layers: Iterable[Layer], image_size: int, engine: str = "torch", folder: str | Path | None = None, rounds: int = 15
) -> LatencyTable:
    """Time operations on this machine, see `time_layers`; with a folder they are kept there, and only those that the
    folder has not yet from this machine, engine and image_size are timed.

    Raises ValueError as `time_layers` does and for an unreadable file, FileNotFoundError for a missing folder.
    """
    table = LatencyTable(machine_for(engine), engine, image_size, {})
    path = None
    if folder is not None:
        path = table_path(folder, table)
        table = load_table(path) if path.is_file() else table
    wanted = list(dict.fromkeys(layers))
    if missing := [layer for layer in wanted if layer not in table.layers]:
        table = replace(table, layers={**table.layers, **time_layers(missing, engine, rounds)})
        if path is not None:
            save_table(table, path)
    return table


def table_path(folder: str | Path, table: LatencyTable) -> Path:
    """The file for a table in a folder of tables; every machine, engine and image size has its own."""
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"There is no folder {folder} to keep latencies in: make it first.")
    key = hashlib.sha256(f"{table.machine}, {table.engine}".encode()).hexdigest()[:8]
    return Path(folder) / f"latency_{table.engine.replace(' ', '_')}_{table.image_size}px_{key}.json"


def save_table(table: LatencyTable, path: str | Path) -> Path:
    """Write a table as JSON, {"machine": …, "engine": …, "image_size": …, "kinds": […], "layers": {"conv 16→24 3×3/2
    at 32 px": ms, …}}, atomically; returns the path.
    """
    text = json.dumps(table_content(table), indent=1, ensure_ascii=False) + "\n"
    return write_atomically(Path(path), lambda file: file.write(text.encode()))


def load_table(path: str | Path, machine: str | None = None) -> LatencyTable:
    """Read a table of this machine, or of the machine that is named as the file says it.

    Raises ValueError naming the file for one of another machine, and for what is not such a table.
    """
    content = read_json(path)
    try:
        table = table_of(content)
    except ValueError as error:
        raise ValueError(f"{path} is not a latency table: {error}") from error
    check_machine(table, path, machine)
    return table


def check_machine(table: LatencyTable, path: str | Path, machine: str | None) -> None:
    """Raise ValueError naming the file unless its table is of the machine named, by default this one."""
    if machine is None and table.engine not in ENGINES:
        raise ValueError(f"{path} was measured on '{table.machine}': to search for it, give machine='{table.machine}'.")
    expected = machine_for(table.engine) if machine is None else machine
    if table.machine != expected:
        raise ValueError(
            f"{path} was measured on '{table.machine}', and the search is for '{expected}': measure there, or give "
            "machine as the file says it."
        )


def merge_tables(tables: Iterable[LatencyTable]) -> LatencyTable:
    """All operations of several tables, the mean where several have one: profiles of some networks make a table for
    many. Raises ValueError for no tables, and for tables of different machines, engines, image sizes or kinds.
    """
    tables = list(tables)
    if not tables:
        raise ValueError("There are no tables to merge: give at least one.")
    times: dict[Layer, list[float]] = {}
    for table in tables:
        if replace(table, layers={}) != replace(tables[0], layers={}):
            raise ValueError(
                f"Tables of '{tables[0].machine}' and '{table.machine}' do not go together: machine, engine, "
                "image_size and kinds must be the same."
            )
        for layer, ms in table.layers.items():
            times.setdefault(layer, []).append(ms)
    return replace(tables[0], layers={layer: math.fsum(values) / len(values) for layer, values in times.items()})


def read_json(path: str | Path) -> Any:
    """What a JSON file holds. Raises ValueError naming the file where it is not readable."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not readable as JSON ({error}).") from error


def table_content(table: LatencyTable) -> dict[str, Any]:
    """A table as what JSON can hold."""
    layers = {str(layer): ms for layer, ms in table.layers.items()}
    about = {"machine": table.machine, "engine": table.engine, "image_size": table.image_size}
    return {**about, "kinds": list(table.kinds), "layers": layers}


def table_of(content: Any) -> LatencyTable:
    """The table that `table_content` wrote. Raises ValueError naming the entry that is wrong."""
    keys = ("machine", "engine", "image_size", "layers")
    if not isinstance(content, dict) or any(key not in content for key in keys):
        raise ValueError(f"it needs the entries {', '.join(keys)}.")
    kinds = tuple(content.get("kinds", KINDS))
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(unknown_name("kind", kind, KINDS))
    if not isinstance(content["layers"], dict):
        raise ValueError(f"layers is a {type(content['layers']).__name__}: give operations with their milliseconds.")
    if not isinstance(content["image_size"], int):
        raise ValueError(f"image_size is {content['image_size']!r}: give the side of the images in px.")
    layers = {}
    for name, ms in content["layers"].items():
        if not isinstance(ms, (int, float)) or isinstance(ms, bool) or not 0 < ms < math.inf:
            raise ValueError(f"the time of '{name}' is {ms!r}: give a positive number of milliseconds.")
        layers[parse_layer(name)] = float(ms)
    return LatencyTable(str(content["machine"]), str(content["engine"]), content["image_size"], layers, kinds)


# A GPU's latency table from what TensorRT measured layer by layer, for a search on a machine without it. Notebook 09.
#
# TensorRT merges layers: what it calls one may be several convolutions of the network with all that stands between.

_CONVOLUTION_NODE = re.compile(r"([\w.]+)/Conv(?:Transpose)?(?!\w)")  # as export_onnx names them: "<module>/Conv"


def tensorrt_table(
    path: str | Path, config: YoloNASConfig, image_size: int, machine: str, num_classes: int = 80
) -> LatencyTable:
    """The convolutions' times of one network from TensorRT's layer profile: `trtexec --exportProfile=FILE`, of an
    engine built from `export_onnx` of this config.

    What TensorRT runs as one layer is divided among its convolutions by their multiply-accumulates; layers without
    one are left out (`LatencyModel.base_ms` can stand for them). Raises ValueError naming the file for what is no
    profile, and a convolution that is not in it.
    """
    layers = {n: layer for n, layer in network_layers(config, image_size, num_classes).items() if layer.macs}
    times: dict[Layer, list[float]] = {layer: [] for layer in layers.values()}
    found = set()
    for name, ms in _profile(Path(path)):
        inside = [n for n in dict.fromkeys(_CONVOLUTION_NODE.findall(name)) if n in layers]
        macs = sum(layers[n].macs for n in inside)
        for n in inside:
            times[layers[n]].append(ms * layers[n].macs / macs)
        found.update(inside)
    if missing := [n for n in layers if n not in found]:
        raise ValueError(
            f"{path} has no layer for the convolution {missing[0]}: is it the profile of {config.name}, built from "
            "what export_onnx wrote?"
        )
    means = {layer: math.fsum(values) / len(values) for layer, values in times.items()}
    return LatencyTable(machine, "tensorrt", image_size, means, CONVOLUTIONS)


def _profile(path: Path) -> list[tuple[str, float]]:
    """Names and ms of the layers in a profile, whose first entry is the number of runs."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        layers = [row for row in rows if "name" in row]
        times = [(row["name"], float(row.get("medianMs", row.get("averageMs")))) for row in layers]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is not a layer profile of trtexec --exportProfile ({error}).") from error
    if not times:
        raise ValueError(f"{path} holds no layers: build the engine anew and run trtexec with --exportProfile.")
    return times
