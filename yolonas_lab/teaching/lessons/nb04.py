"""YOLO-NAS drawn from its config: every box is a part, every row a stride, every number comes from the dataclass.

Notebook 04 opens with the drawing and with the configs of several sizes side by side; notebook 09 draws the networks
that its search finds.
"""

import contextlib
import itertools
import time
from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from yolonas_lab.latency import Layer
from yolonas_lab.models import ConvBNAct, StageConfig, YoloNASConfig
from yolonas_lab.models.yolo_nas import STRIDES
from yolonas_lab.teaching.figures import add_card, draw_arrow

# One light color per part, to be read with black text (Paul Tol's "light" scheme).
PART_COLORS = {"stem": "#99DDFF", "stages": "#77AADD", "SPP": "#44BB99", "neck": "#BBCC33", "heads": "#EE8866"}
WIDTH, HEIGHT = 0.82, 0.66  # of a box; columns and rows are 1 apart
LINE = "#444444"


class Box(NamedTuple):
    """One part of the network at (column, row) of the drawing."""

    column: float
    row: float
    title: str
    lines: tuple[str, ...]
    color: str = "white"

    def side(self, name: str, shift: float = 0.0) -> tuple[float, float]:
        """The middle of a side ("left", "right", "top", "bottom"), moved along the side by `shift`."""
        dx, dy = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}[name]
        return self.column + dx * WIDTH / 2 + shift * (dx == 0), self.row + dy * HEIGHT / 2 + shift * (dy == 0)

    def draw(self, ax: Any) -> None:
        look = {"facecolor": self.color, "edgecolor": LINE, "linewidth": 0.9, "zorder": 2}
        add_card(ax, self.column, self.row, (WIDTH, HEIGHT), 0.05, **look)
        words = {"ha": "center", "va": "center", "zorder": 3}
        top = self.row - 0.185 * len(self.lines) / 2
        ax.text(self.column, top, self.title, fontsize=9, fontweight="bold", **words)
        for number, line in enumerate(self.lines, start=1):
            ax.text(self.column, top + 0.185 * number, line, fontsize=8.2, **words)


def draw_network(config: YoloNASConfig, image_size: int, num_classes: int = 80, ax: Any = None) -> Any:
    """Draw the whole network: backbone down the left, the neck up and down again, the heads on the right; channels and
    map sizes are for a square image of `image_size` px.
    """
    import matplotlib.pyplot as plt

    ax = plt.subplots(figsize=(10.6, 6.9))[1] if ax is None else ax
    ax.set_axis_off()
    boxes = _boxes(config, image_size, num_classes)
    for box in boxes.values():
        box.draw(ax)
    for arrows, linestyle in ((ARROWS, "-"), (FINER_SKIPS, "--")):  # dashed: the finer skip, halved on its way
        for a, from_side, shift, b, to_side, to_shift in arrows:
            _arrow(ax, [boxes[a].side(from_side, shift), boxes[b].side(to_side, to_shift)], linestyle)
    corner = (boxes["down1"].column, boxes["up2"].row + 0.12)
    _arrow(ax, [boxes["up2"].side("right", 0.12), corner, boxes["down1"].side("top")])
    for row, stride in enumerate((1, 2, 4, 8, 16, 32)):  # the last has two rows
        ax.axhline(row - 0.5, color="#cccccc", linewidth=0.8, zorder=0)
        name = f"stride {stride}" if stride > 1 else "pixels"
        ax.text(-0.95, row + 0.5 * (row == 5), name, ha="left", va="center", fontsize=9.5, color=LINE)
    for column, name in enumerate(("backbone", "neck: up", "neck: down", "heads", "anchor points")):
        ax.text(column, -0.68, name, ha="center", va="center", fontsize=11, fontweight="bold", color=LINE)
    title = f"{config.name} on a {image_size}×{image_size} px image"
    ax.set(xlim=(-1.0, 4.45), ylim=(6.5, -0.9), title=title)
    return ax


def draw_csp_layer(stage: StageConfig, in_channels: int, ax: Any) -> Any:
    """Draw one CSP layer: which maps are concatenated (dashed: those that only `concat` keeps), and all channels."""
    ax.set_axis_off()
    hidden, blocks = stage.hidden_channels, stage.blocks
    part = PART_COLORS["stages"]
    source = Box(0, 0.5, "input", (f"{in_channels} ch",))
    through = [Box(1.15, 0, "conv1 1×1", (f"{hidden} ch",), part)]
    through += [Box(2.2 + i, 0, f"bottleneck {i + 1}", (f"{hidden} ch",), part) for i in range(blocks)]
    around = Box(1.15, 1.25, "conv2 1×1", (f"{hidden} ch",), part)
    last, pieces = 2.2 + blocks, 2 + blocks * stage.concat
    concat = Box(last + 0.15, 1.25, "concat", (f"{pieces} × {hidden}", f"= {pieces * hidden} ch"))
    out = Box(last + 1.3, 1.25, "conv3 1×1", (f"{stage.out_channels} ch",), part)
    for box in (source, *through, around, concat, out):
        box.draw(ax)
    for a, b in [(source, through[0]), (source, around), (around, concat), (concat, out), *itertools.pairwise(through)]:
        _arrow(ax, [a.side("right"), b.side("left")])
    kept = through if stage.concat else through[-1:]
    for i, box in enumerate(kept, start=1):
        start, target = box.side("bottom"), concat.side("top", -0.3 + 0.6 * i / (len(kept) + 1))
        lane = 0.8 - 0.35 * i / (len(kept) + 1)  # the leftmost runs lowest: no line crosses another
        _arrow(ax, [start, (start[0], lane), (target[0], lane), target], "-" if box is kept[-1] else "--")
    ax.set(xlim=(-0.5, last + 1.8), ylim=(1.7, -0.5))
    return ax


def _boxes(config: YoloNASConfig, size: int, num_classes: int) -> dict[str, Box]:
    """Every box of the network drawing by name."""

    def at(stride: int, channels: int) -> str:
        return f"{channels} ch, {size // stride}×{size // stride}"

    stem, spp, neck = PART_COLORS["stem"], PART_COLORS["SPP"], PART_COLORS["neck"]
    widest, kernels = config.backbone[-1].out_channels, _joined(config.spp_kernels)
    boxes = {
        "image": Box(0, 0, "image", (at(1, 3),)),
        "stem": Box(0, 1, "stem", (at(2, config.stem_channels), "one block, stride 2"), stem),
        "spp": Box(0, 6, "SPP", (at(32, widest), f"max over {kernels}"), spp),
        "reduce": Box(1, 6, "1×1", (at(32, config.neck[0].out_channels),), neck),
    }
    for i, stage in enumerate(config.backbone):
        lines = (at(4 << i, stage.out_channels), _bottlenecks(stage))
        boxes[f"stage{i + 1}"] = Box(0, 2 + i, f"stage {i + 1}", lines, PART_COLORS["stages"])
    places = {"up 1": (1, 4, 16), "up 2": (1, 3, 8), "down 1": (2, 4, 16), "down 2": (2, 6, 32)}
    for stage, (name, (column, row, stride)) in zip(config.neck, places.items()):
        lines = (at(stride, stage.out_channels), _bottlenecks(stage))
        boxes[name.replace(" ", "")] = Box(column, row, name, lines, neck)
    for row, stride, channels in zip((3, 4, 6), STRIDES, config.head_channels):
        boxes[f"head{stride}"] = Box(3, row, "head", (at(stride, channels),), PART_COLORS["heads"])
        logits = (f"{num_classes} class logits and", f"{4 * (config.reg_max + 1)} box logits each")
        cells = f"{(size // stride) ** 2:,} points"
        boxes[f"points{stride}"] = Box(4, row, cells, logits if stride == 8 else ())
    return boxes


def _bottlenecks(stage: StageConfig) -> str:
    """In words: how many bottlenecks of how many channels, and whether all of them are concatenated."""
    plain = " (plain)" if stage.block is ConvBNAct else ""
    return f"{stage.blocks} × {stage.hidden_channels}{' concat' if stage.concat else ''}{plain}"


# Arrows of the network: from a box's side to another's, each moved along its side by a shift.
CHAIN = ("image", "stem", "stage1", "stage2", "stage3", "stage4", "spp")
ARROWS = (
    *((a, "bottom", 0, b, "top", 0) for a, b in itertools.pairwise(CHAIN)),
    ("spp", "right", 0, "reduce", "left", 0),
    ("reduce", "top", 0, "up1", "bottom", 0),
    ("up1", "top", 0, "up2", "bottom", 0),
    ("stage3", "right", 0.1, "up1", "left", 0.1),
    ("stage2", "right", 0.1, "up2", "left", 0.1),
    ("up1", "right", 0, "down1", "left", 0),
    ("reduce", "right", 0, "down2", "left", 0),
    ("down1", "bottom", 0, "down2", "top", 0),
    *((a, "right", 0, f"head{s}", "left", 0) for a, s in zip(("up2", "down1", "down2"), STRIDES)),
    *((f"head{s}", "right", 0, f"points{s}", "left", 0) for s in STRIDES),
)
FINER_SKIPS = (("stage2", "right", 0.2, "up1", "left", -0.15), ("stage1", "right", 0.1, "up2", "left", -0.15))


def _arrow(ax: Any, points: Sequence[tuple], linestyle: str = "-") -> None:
    """Draw an arrow through points, bent at those between the first and the last."""
    ax.plot(*zip(*points[:-1]), color=LINE, linewidth=1.1, linestyle=linestyle, zorder=1, solid_capstyle="butt")
    draw_arrow(ax, points[-2], points[-1], LINE, zorder=1, linewidth=1.1, linestyle=linestyle)


def config_rows(configs: Sequence[YoloNASConfig]) -> dict[str, list[tuple[str, ...]]]:
    """For each part from the stem to the heads the numbers that belong to it, as pieces of text for each config."""
    neck = ("neck up 1", "neck up 2", "neck down 1", "neck down 2")
    return {
        "stem": [(f"{c.stem_channels} ch",) for c in configs],
        **{f"stage {i + 1}": [_stage_words(c.backbone[i]) for c in configs] for i in range(4)},
        "SPP windows": [(_joined(c.spp_kernels),) for c in configs],
        **{name: [_stage_words(c.neck[i]) for c in configs] for i, name in enumerate(neck)},
        "heads, strides 8, 16, 32": [(f"{_joined(c.head_channels)} ch",) for c in configs],
        "reg_max": [(str(c.reg_max),) for c in configs],
    }


def config_table(configs: Sequence[YoloNASConfig]) -> str:
    """The rows as an HTML table; rows in which the configs differ are shaded, and what differs in them is bold."""
    head = "".join(f"<th>{escape(c.name)}</th>" for c in configs)
    lines = []
    for name, cells in config_rows(configs).items():
        shade = ' style="background: #fff3d6"' if len(set(cells)) > 1 else ""
        varies = [len(set(pieces)) > 1 for pieces in zip(*cells, strict=True)]
        words = [[f"<b>{escape(p)}</b>" if bold else escape(p) for p, bold in zip(c, varies) if p] for c in cells]
        row = "".join(f"<td>{' '.join(cell)}</td>" for cell in words)
        lines.append(f'<tr{shade}><td style="text-align: left">{escape(name)}</td>{row}</tr>')
    return f"<table><tr><th></th>{head}</tr>{''.join(lines)}</table>"


def _stage_words(stage: StageConfig) -> tuple[str, ...]:
    """Output channels, bottlenecks, their channels, and what is special: "96 ch:", "2 ×", "32", "concat"."""
    plain = " plain" if stage.block is ConvBNAct else ""
    return f"{stage.out_channels} ch:", f"{stage.blocks} ×", f"{stage.hidden_channels}{plain}", "concat" * stage.concat


def _joined(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


PARTS = {"stem": "backbone.stem", "stages": "backbone.stages", "SPP": "backbone.spp", "neck": "neck", "heads": "heads"}


def by_part(layers: Mapping[str, Layer]) -> dict[str, tuple[int, int]]:
    """Sums (parameters, multiply-accumulates) of `network_layers` for each part of PARTS."""
    own = {label: [layers[name] for name in layers if name.startswith(f"{part}.")] for label, part in PARTS.items()}
    return {label: (sum(o.parameters for o in found), sum(o.macs for o in found)) for label, found in own.items()}


def time_parts(model: nn.Module, images: Tensor, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of CPU time that each part's forward takes in each of `rounds` inferences, after two that warm up.

    Compare at one thread: CPU time adds up all threads. A part that is a ModuleList has no forward of its own: its
    children are timed and added up.
    """
    times = {label: [0.0] * (rounds + 2) for label in PARTS}
    now, began = 0, 0.0

    def start(*_: Any) -> None:
        nonlocal began
        began = time.process_time()

    def stop(label: str, *_: Any) -> None:
        times[label][now] += (time.process_time() - began) * 1000

    with contextlib.ExitStack() as hooks, torch.inference_mode():
        for label, prefix in PARTS.items():
            part = model.get_submodule(prefix)
            for module in list(part) if isinstance(part, nn.ModuleList) else [part]:
                hooks.callback(module.register_forward_pre_hook(start).remove)
                hooks.callback(module.register_forward_hook(partial(stop, label)).remove)
        for now in range(rounds + 2):  # noqa: B007  (the hooks read it)
            model(images)
    return {label: values[2:] for label, values in times.items()}
