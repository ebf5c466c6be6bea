"""What an engine became, drawn: the precision of every convolution, which nodes were fused, and when a GPU is done.

Notebook 13. Precisions come from a builder's layer report, or from the graph: then they say what is permitted. Also
here: a Q/DQ network small enough to read, in ONNX's text form, with a way to break each of the twelve rules in it; and
a GPU that exists in numbers only, on which a stopwatch can be tested.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from yolonas_lab.deployment.engine_report import EngineLayer
from yolonas_lab.deployment.onnx_graph import Graph, is_quantized_layer, layers
from yolonas_lab.teaching.figures import FP32, HIGHLIGHT, INT8, MUTED, PREDICTION, add_rectangle, draw_arrow
from yolonas_lab.teaching.lessons.nb12 import chip, draw_graph, node_chip

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

    from yolonas_lab.deployment.qdq_rules import Violation

PRECISION_COLORS = {"Float": FP32, "Half": "#56B4E9", "Int8": INT8}
# Parts of the network: the beginning of their nodes' names -> column, row and title in the drawing, as in notebook 04.
PARTS = {
    "backbone.stem": (0, 0, "stem"), **{f"backbone.stages.{i}": (0, i + 1, f"stage {i + 1}") for i in range(4)},
    "backbone.spp": (0, 5, "SPP"), "neck.up1": (1, 3, "up 1"), "neck.up2": (1, 2, "up 2"),
    "neck.down1": (2, 3, "down 1"), "neck.down2": (2, 4, "down 2"),
    **{f"heads.levels.{i}": (3, i + 2, f"head, stride {8 << i}") for i in range(3)},
}  # fmt: skip
# Which part feeds which, by number; the finer skips, which come from one stage above, are left out.
FLOW = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (3, 6), (2, 7), (6, 7), (6, 8), (6, 9), (7, 8), (8, 9)]
FLOW += [(7, 10), (8, 11), (9, 12)]
PER_LINE = 8  # squares
WIDE, HIGH = 0.86, 0.72  # of a part; columns and rows are 1 apart


def permitted_precisions(graph: Graph) -> dict[str, str]:
    """What the graph permits each convolution at most, by node name: "Int8", "Half" or "Float"."""
    found = {}
    for node in layers(graph):
        if node.op_type == "Conv":
            weight = graph.constants.get(node.input[1])
            plain = "Half" if weight is not None and weight.dtype.itemsize == 2 else "Float"
            found[node.name] = "Int8" if is_quantized_layer(graph, node) else plain
    return found


def draw_precisions(ax: Any, convolutions: Mapping[str, str], title: str) -> Any:
    """Draw one square for each convolution by node name, in its part of the network and the color of its precision."""
    places = list(PARTS.values())
    for a, b in FLOW:
        draw_arrow(ax, _edge(places[a], places[b]), _edge(places[b], places[a]), "#888888")
    for part, place in PARTS.items():
        _draw_part(ax, place, [p for name, p in convolutions.items() if name.startswith((part + ".", part + "/"))])
    for index, (precision, color) in enumerate(PRECISION_COLORS.items()):
        count = list(convolutions.values()).count(precision)
        ax.scatter([1.05 + index], [5.05], s=90, marker="s", color=color)
        ax.text(1.15 + index, 5.05, f"{precision}: {count}", va="center", fontsize=10)
    ax.set(xlim=(-0.55, 3.55), ylim=(5.5, -0.5), title=title)
    ax.axis("off")
    return ax


def _edge(start: tuple[int, int, str], end: tuple[int, int, str]) -> tuple[float, float]:
    """The point on the frame of a part where its arrow from or to another one begins."""
    (x, y, _), (to_x, to_y, _) = start, end
    if to_x != x:
        return x + math.copysign(WIDE / 2, to_x - x), y + 0.18 * (to_y > y) - 0.18 * (to_y < y)
    return x, y + math.copysign(HIGH / 2, to_y - y)


def _draw_part(ax: Any, place: tuple[int, int, str], precisions: Sequence[str]) -> None:
    x, y, title = place
    frame = (x - WIDE / 2, y - HIGH / 2, x + WIDE / 2, y + HIGH / 2)
    add_rectangle(ax, frame, facecolor="white", edgecolor="#888888", zorder=2)
    ax.text(x, y - 0.22, title, ha="center", va="center", fontsize=9, zorder=3)
    for index, precision in enumerate(precisions):
        line, column = divmod(index, PER_LINE)
        left = x - 0.05 * min(len(precisions), PER_LINE) + 0.1 * column + 0.008
        top = y - 0.06 + 0.19 * line
        color = PRECISION_COLORS.get(precision, MUTED)
        add_rectangle(ax, (left, top, left + 0.084, top + 0.16), color=color, zorder=3)


def draw_fusion(ax: Any, graph: Graph, nodes: Sequence[NodeProto], layers: Sequence[EngineLayer], title: str) -> Any:
    """Draw nodes of a graph above, the engine's layers that they went into below, and a line for each membership."""
    names = [node.name for node in nodes]
    hit = [layer for layer in layers if set(names).intersection(layer.nodes)]
    for index, layer in enumerate(hit):
        x = (len(nodes) - 1) / len(hit) * (index + 0.5)
        color = PRECISION_COLORS.get(layer.precision, MUTED) if layer.computes else MUTED
        for node in set(layer.nodes).intersection(names):
            ax.plot([names.index(node), x], [1, 0], color=color, linewidth=1.6, zorder=1)
        chip(ax, x, 0, f"multiply\n{layer.precision}" if layer.computes else "elementwise", color)
    for x, node in enumerate(nodes):
        node_chip(ax, x, 1, graph, node)
    ax.text(-1.0, 1.32, f"{len(nodes)} nodes of the ONNX graph", fontsize=10)
    ax.text(-1.0, -0.48, f"{len(hit)} layers of the engine", fontsize=10)
    ax.set(xlim=(-1.0, len(nodes)), ylim=(-0.6, 1.5), title=title)
    ax.axis("off")
    return ax


def draw_broken(ax: Any, graph: Graph, violations: Sequence[Violation], title: str) -> Any:
    """Draw a small graph, with a frame around each node that breaks a rule."""
    draw_graph(ax, graph, graph.nodes, title)
    marked = {violation.node for violation in violations}
    boxes = [(text, patch) for text in ax.texts if (patch := text.get_bbox_patch()) is not None]  # as the nodes
    for node, (text, patch) in zip(graph.nodes, boxes):
        text.set_fontsize(7.5)  # the network is long
        if (node.name or node.output[0]) in marked:
            patch.set(edgecolor=HIGHLIGHT, linewidth=3)
            text.set_zorder(5)
    return ax


def draw_timeline(ax: Any, launch_ms: float, kernel_ms: float) -> Any:
    """Draw what CPU and GPU do while five runs are launched one after another, and what two stopwatches read."""
    runs, done = 5, 0.0
    for index in range(runs):
        began = launch_ms * index
        start = max(began + launch_ms, done)
        done = start + kernel_ms
        edge = {"edgecolor": "white", "linewidth": 1}
        ax.barh(1, launch_ms, left=began, color=PREDICTION, label="launch" if index == 0 else None, **edge)
        ax.barh(0, kernel_ms, left=start, color=HIGHLIGHT, label="compute" if index == 0 else None, **edge)
    for x, words in ((launch_ms * runs, "without waiting"), (done, "after waiting")):
        ax.axvline(x, color="#444444", linestyle="--", linewidth=1.2)
        ax.text(x, 1.62, f" {words}:\n {x / runs:.2f} ms per run", fontsize=9, va="center")
    ax.set_yticks([1, 0], ["CPU", "GPU"])
    ax.set(xlabel="ms", ylim=(-0.6, 2.0), xlim=(0, 1.35 * done))
    ax.legend(loc="lower right")
    ax.set_title(f"{runs} runs: {launch_ms:.2f} ms to launch, {kernel_ms:.2f} ms to compute each", fontsize=11)
    return ax


WELL_FORMED = """\
<ir_version: 10, opset_import: ["" : 20]>
detector (float[1, 3, 32, 32] images) => (float[1, 2, 32, 32] scores)
{
  ["image/Q"] image_q = QuantizeLinear(images, s_image, z)
  ["image/DQ"] image = DequantizeLinear(image_q, s_image, z)
  ["conv1/W"] w1 = DequantizeLinear<axis = 0>(w1_int8, s_w, z_w)
  ["conv1"] c1 = Conv<pads = [1, 1, 1, 1]>(image, w1, b)
  ["relu1"] r1 = Relu(c1)
  ["x/Q"] x_q = QuantizeLinear(r1, s_x, z)
  ["x/DQ"] x = DequantizeLinear(x_q, s_x, z)
  ["conv2/W"] w2 = DequantizeLinear<axis = 0>(w2_int8, s_w, z_w)
  ["conv2"] c2 = Conv<pads = [1, 1, 1, 1]>(x, w2, b)
  ["relu2"] r2 = Relu(c2)
  ["y/Q"] y_q = QuantizeLinear(r2, s_y, z)
  ["y/DQ"] y = DequantizeLinear(y_q, s_y, z)
  ["sum"] added = Add(x, y)
  ["t/Q"] t_q = QuantizeLinear(added, s_y, z)
  ["t/DQ"] t = DequantizeLinear(t_q, s_y, z)
  ["concat"] cat = Concat<axis = 1>(t, y)
  ["conv3/W"] w3 = DequantizeLinear<axis = 0>(w3_int8, s_w, z_w)
  ["conv3"] c3 = Conv(cat, w3, b)
  ["relu3"] r3 = Relu(c3)
  ["pred"] logits = Conv(r3, w_pred, b_pred)
  ["sigmoid"] scores = Sigmoid(logits)
}
"""
HIDDEN = ("conv1", "conv2", "conv3")  # the convolutions that may run in INT8

# What was done wrong: the rule it breaks, and what is replaced in the well-formed text: "old -> new".
BREAKS: dict[str, tuple[str, ...]] = {
    "weight quantized, activation not": ("R1", "(x, w2, b) -> (r1, w2, b)"),
    "activation quantized, weight not": ("R1", "(image, w1, b) -> (image, w1_float, b)"),
    "one scale per input channel": ("R2", "<axis = 0>(w2_int8 -> <axis = 1>(w2_int8"),
    "zero-point 1": ("R3", "(r1, s_x, z) -> (r1, s_x, z_one)", "(x_q, s_x, z) -> (x_q, s_x, z_one)"),
    "scale computed at run time": (
        "R4",
        '["x/Q"] -> ["scale"] s_now = Identity(s_x)\n  ["x/Q"]',
        "(r1, s_x, z) -> (r1, s_now, z)",
        "(x_q, s_x, z) -> (x_q, s_now, z)",
    ),
    "Q/DQ before the ReLU": (
        "R5",
        '["relu2"] r2 = Relu(c2) -> ["early/Q"] early_q = QuantizeLinear(c2, s_x, z)\n'
        '  ["early/DQ"] early = DequantizeLinear(early_q, s_x, z)\n  ["relu2"] r2 = Relu(early)',
    ),
    "skip in float": ("R6", "Add(x, y) -> Add(r1, y)"),
    "two scales in a Concat": ("R7", "(added, s_y, z) -> (added, s_t, z)", "(t_q, s_y, z) -> (t_q, s_t, z)"),
    "AveragePool quantized behind only": (
        "R8",
        '["y/Q"] -> ["average"] mean = AveragePool<kernel_shape = [1, 1]>(r2)\n  ["y/Q"]',
        "QuantizeLinear(r2, s_y, z) -> QuantizeLinear(mean, s_y, z)",
    ),
    "predictions quantized": (
        "R9",
        '["pred"] logits = Conv(r3, w_pred, b_pred) -> ["p/Q"] p_q = QuantizeLinear(r3, s_x, z)\n'
        '  ["p/DQ"] p = DequantizeLinear(p_q, s_x, z)\n'
        '  ["pred/W"] w_p = DequantizeLinear<axis = 0>(pred_int8, s_pred, z_pred)\n'
        '  ["pred"] logits = Conv(p, w_p, b_pred)',
    ),
    "Clip on integers": (
        "R10",
        '["conv2/W"] -> ["clip"] w2_clipped = Clip(w2_int8, low, high)\n  ["conv2/W"]',
        "(w2_int8, s_w, z_w) -> (w2_clipped, s_w, z_w)",
    ),
    "bias quantized": (
        "R11",
        '["conv2"] -> ["bias"] b2 = DequantizeLinear<axis = 0>(b_int32, s_bias, z_bias)\n  ["conv2"]',
        "(x, w2, b) -> (x, w2, b2)",
    ),
    "uint8 image transposed first": (
        "R12",
        "float[1, 3, 32, 32] images -> uint8[1, 32, 32, 3] pixels",
        '["image/Q"] -> ["to_nchw"] turned = Transpose<perm = [0, 3, 1, 2]>(pixels)\n'
        '  ["cast"] images = Cast<to = 1>(turned)\n  ["image/Q"]',
    ),
}
FAULTS = ("activation quantized, weight not", "skip in float", "two scales in a Concat")  # those of the exercise


def broken_text(*names: str) -> str:
    """The text of the network with these mistakes of BREAKS."""
    text = WELL_FORMED
    for name in names:
        for change in BREAKS[name][1:]:
            old, new = change.split(" -> ")
            text = text.replace(old, new)
    return text


def faulty_text() -> str:
    """The text of the network with the three mistakes that the exercise has the reader find."""
    return broken_text(*FAULTS)


def model_of(text: str, arrays: Mapping[str, Any] | None = None) -> ModelProto:
    """The ONNX model of a text, with those of `arrays` (default: `constants()`) that it names; ValueError where it is
    no valid graph.
    """
    import onnx
    from onnx import numpy_helper

    try:
        model = onnx.parser.parse_model(text)
    except onnx.parser.ParseError as error:
        raise ValueError(f"this is not ONNX text any more: {str(error).splitlines()[0][:200]}") from error
    made = {tensor for node in model.graph.node for tensor in node.output} | {i.name for i in model.graph.input}
    missing = {tensor for node in model.graph.node for tensor in node.input} - made
    known = constants() if arrays is None else arrays
    if unknown := sorted(missing - set(known)):
        raise ValueError(f"the graph reads {unknown[0]!r}, which no line makes.")
    needed = [numpy_helper.from_array(np.asarray(array), name) for name, array in known.items() if name in missing]
    model.graph.initializer.extend(needed)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ValueError(f"this is no valid graph: {str(error).splitlines()[0][:200]}") from error
    return model


@cache
def constants() -> dict[str, Any]:
    """Everything that a line of the text, or of a broken one, may name; w1_float is what w1_int8 stands for."""
    generator = np.random.default_rng(0)

    def integers(*shape: int) -> np.ndarray:
        return generator.integers(-127, 128, shape).astype(np.int8)

    f4 = np.float32
    scales = np.linspace(0.001, 0.002, 4, dtype=f4)
    w1 = integers(4, 3, 3, 3)
    return {
        **{"s_image": f4(1 / 127), "s_x": f4(0.02), "s_y": f4(0.02), "s_t": f4(0.03), "s_w": scales},
        **{"s_bias": np.full(4, 1e-4, f4), "s_pred": np.full(2, 0.001, f4)},
        **{"z": np.int8(0), "z_one": np.int8(1), "low": np.int8(-127), "high": np.int8(127)},
        **{"z_w": np.zeros(4, np.int8), "z_pred": np.zeros(2, np.int8), "z_bias": np.zeros(4, np.int32)},
        **{"w1_int8": w1, "w2_int8": integers(4, 4, 3, 3), "w3_int8": integers(4, 8, 1, 1)},
        **{"w1_float": w1 * scales[:, None, None, None], "pred_int8": integers(2, 4, 1, 1)},
        **{"w_pred": generator.normal(scale=20, size=(2, 4, 1, 1)).astype(f4), "b_pred": np.zeros(2, f4)},
        **{"b": np.array([0.1, -0.1, 0.2, 0.0], f4), "b_int32": np.array([1000, -1000, 2000, 0], np.int32)},
    }


LAUNCH_MS = 0.2  # what the CPU needs to hand work over


@dataclass
class SimulatedGpu:
    """Engines by name with the ms that one image takes; all times below in ms.

    The first `slow_runs` of each engine take `slow_ms` longer, each run makes the later ones slower by the share
    `warming`, and every `interrupted`-th run (0: none) takes 300 ms longer.
    """

    engines: dict[str, float]
    slow_runs: int = 0
    slow_ms: float = 400.0
    warming: float = 0.0
    interrupted: int = 0
    now: float = 0.0
    busy_until: float = 0.0
    runs: list[str] = field(default_factory=list)

    def candidates(self) -> dict[str, Callable[[], None]]:
        """One function per engine, which hands the work to the GPU and comes back before it is done."""
        return {name: partial(self._launch, name) for name in self.engines}

    def wait(self) -> None:
        """Return when the GPU has finished everything (torch.cuda.synchronize on a real one)."""
        self.now = max(self.now, self.busy_until)

    def clock(self) -> float:
        """Seconds since the machine was switched on (time.perf_counter on a real one)."""
        return self.now / 1e3

    def _launch(self, name: str) -> None:
        ms = self.engines[name] * (1 + self.warming * len(self.runs))
        ms += self.slow_ms * (self.runs.count(name) < self.slow_runs)
        self.runs.append(name)
        ms += 300.0 * (self.interrupted > 0 and len(self.runs) % self.interrupted == 0)
        self.now += LAUNCH_MS
        self.busy_until = max(self.now, self.busy_until) + ms
