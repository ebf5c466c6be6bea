"""Drawings of quantization (notebook 10): grids, histograms, sensitivity, the frontier, and what the claims found."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from yolonas_lab.experiments import Result
from yolonas_lab.quantization import Frontier, FrontierPoint, Histogram, Sensitivity, fake_quantize
from yolonas_lab.teaching import figures
from yolonas_lab.teaching.figures import FP32, HIGHLIGHT, INT8, MUTED, QAREPVGG, REPVGG, WRONG
from yolonas_lab.teaching.published import MAP_LOSS_IN_TEXT, MAP_LOSS_OF_OTHERS, YOLO_NAS

PARTS = {"backbone": "#4D4D4D", "neck": "#999999", "heads": "#CCCCCC"}  # by name, from the image on
LINES = ("-", "--", "-.", ":")
BLOCKS = {"QARepVGG": QAREPVGG, "RepVGG": REPVGG}
MARKED = 5  # layers
CALIBRATORS = ("max", "percentile", "entropy", "mse")


def draw_number_line(ax: Any, values: Any, scale: Any, zero_point: Any, low: int, high: int) -> Any:
    """Values (n,) above, the grid of the integers low … high below, an arrow from each value to its grid point; red
    where it is clipped.
    """
    rounded = fake_quantize(values, scale, zero_point, low, high)
    step, origin = float(scale), int(zero_point)
    grid = (np.arange(low, high + 1) - origin) * step
    outside = ((values < grid[0] - step / 2) | (values > grid[-1] + step / 2)).tolist()
    ax.vlines(grid, -0.12, 0.12, color=INT8, linewidth=1.4)
    ax.hlines(0, grid[0], grid[-1], color=INT8, linewidth=1.4)
    for value, target, clipped in zip(values.tolist(), rounded.tolist(), outside):
        color = WRONG if clipped else "#555555"
        ax.annotate("", (target, 0.1), (value, 0.9), arrowprops={"arrowstyle": "->", "color": color})
        ax.plot(value, 0.94, "o", color=WRONG if clipped else FP32, markersize=7)
    near = (high - low) / 12  # labels closer than this would overlap
    ends = [low] * (origin - low > near) + [origin] + [high] * (high - origin > near)
    for number in range(low, high + 1) if high - low < 20 else ends:
        ax.text((number - origin) * step, -0.2, str(number), ha="center", va="top", fontsize=8.5, color=INT8)
    ax.set(ylim=(-0.62, 1.15), yticks=[], xlabel="value (integers on the grid below the line)")
    ax.spines["left"].set_visible(False)
    ax.grid(False)
    return ax


def draw_channels(ax: Any, weight: Any, bits: int, title: str) -> Any:
    """Bars of the largest magnitude in each output channel of a weight (c_out, …), with the reach of one grid for all
    and its half step.
    """
    largest = weight.detach().abs().flatten(1).amax(dim=1).sort(descending=True).values  # (c_out,)
    top = float(largest[0])
    ax.bar(range(len(largest)), largest.numpy(), width=0.85, color=MUTED)
    ax.axhline(top, color=INT8, label="reach of one grid for all")
    half_step, words = top / (2 ** (bits - 1) - 1) / 2, f"below: all rounded to 0 ({bits} bits)"
    ax.axhline(half_step, color=INT8, linestyle=":", label=words)
    ax.set(xlabel="output channel, sorted", ylabel="largest |weight|", title=title, ylim=(0, 1.35 * top))
    ax.grid(False, axis="x")
    return ax


def draw_histogram(ax: Any, seen: Histogram, limits: Mapping[str, float]) -> Any:
    """How often a tensor takes which value, zeros left out, on a logarithmic scale, with a named line at each limit."""
    values, counts = seen.occupied()
    ax.hist(values.numpy(), 100, weights=counts.numpy(), color=MUTED, log=True)
    for (name, limit), style in zip(limits.items(), LINES):
        ax.axvline(limit, color=HIGHLIGHT, linestyle=style, linewidth=1.8, label=f"{name}: {limit:.2f}")
    ax.set(xlabel="value", ylabel="number of values")
    ax.legend(loc="upper center", fontsize=9, frameon=True, framealpha=1, edgecolor="none")  # lines run behind it
    return ax


def draw_error_parts(ax: Any, limits: Any, clipped: Any, rounded: Any, limit: float) -> Any:
    """Mean squared error of clipping, rounding and their sum against the limits (n,) of the grid; a line at `limit`."""
    limits, clipped, rounded = figures.as_array(limits), figures.as_array(clipped), figures.as_array(rounded)
    total = clipped + rounded
    ax.plot(limits, clipped, color=WRONG, linestyle="--", label="clipping")
    ax.plot(limits, rounded, color="#777777", linestyle=":", label="rounding")
    ax.plot(limits, total, color="black", label="sum")
    ax.plot(limits[total.argmin()], total.min(), "o", color="black", markersize=8)
    ax.axvline(limit, color=HIGHLIGHT)
    ax.set(yscale="log", ylim=(total.min() / 4, total.max() * 2), xlabel="limit", ylabel="mean squared error")
    ax.legend(loc="upper center", ncols=3, fontsize=9)
    return ax


def draw_sensitivity(ax: Any, found: Sensitivity) -> Any:
    """Bars of each layer's noise in percent of the signal, in network order, with the names of the worst."""
    noise = {name: 100 * found.harm(name) for name in found.values}
    places = {name: place for place, name in enumerate(noise)}
    for part, color in PARTS.items():
        own = [name for name in noise if name.split(".")[0] == part]
        ax.bar([places[name] for name in own], [noise[name] for name in own], color=color, width=0.85, label=part)
    worst = found.ranked()[:MARKED]
    for rank, name in enumerate(worst, start=1):
        ax.bar([places[name]], [noise[name]], color=HIGHLIGHT, width=0.85)
        ax.text(places[name], noise[name], f" {rank}", ha="center", va="bottom", fontsize=9, color=HIGHLIGHT)
    short = [name.removesuffix(".conv").removeprefix("backbone.").removeprefix("heads.") for name in worst]
    listed = "\n".join(f"{rank}  {name.replace('bottlenecks.', '')}" for rank, name in enumerate(short, start=1))
    ax.text(0.99, 0.97, listed, transform=ax.transAxes, ha="right", va="top", fontsize=9, color=HIGHLIGHT)
    ax.set(xlabel="layer, from the image to the heads", ylabel="noise / signal in %")
    ax.set(ylim=(0, 1.12 * max(noise.values())))
    ax.legend(loc="upper center", fontsize=9)
    ax.grid(False, axis="x")
    return ax


def draw_frontier(
    ax: Any, found: Frontier, others: Mapping[str, Frontier], allowed_drop: float, chosen: FrontierPoint
) -> Any:
    """AP against ms, each point with its number of float layers; the band of the allowed drop, the chosen point, and
    `others` in gray.
    """
    float_ap = found.candidates[-1].ap
    ax.axhspan(float_ap - allowed_drop, 1, color=FP32, alpha=0.1, label=f"loses at most {allowed_drop:.3f}")
    for (name, other), style in zip(others.items(), LINES[1:]):
        ms, ap = zip(*((point.ms, point.ap) for point in other.candidates))
        ax.plot(ms, ap, linestyle=style, marker="o", color="#888888", markersize=4, linewidth=1.3, label=name)
    ms, ap = zip(*((point.ms, point.ap) for point in found.candidates))
    ax.plot(ms, ap, "o-", color=INT8, label="by harm per millisecond")
    for point in found.candidates:
        figures.note(ax, str(len(point.float_layers)), (point.ms, point.ap), (-6, 6), fontsize=9, ha="right")
    ax.plot(chosen.ms, chosen.ap, "o", markersize=15, fillstyle="none", markeredgewidth=2.5, color=HIGHLIGHT)
    lowest = min(point.ap for frontier in (found, *others.values()) for point in frontier.candidates)
    ax.set(xlabel="sum of the layers' times in ms", ylabel="AP", ylim=(lowest - 0.03, float_ap + 0.04))
    ax.legend(loc="lower right", fontsize=9)
    return ax


def draw_int8_drops(ax: Any, result: Result) -> Any:
    """AP points lost to INT8: as published for S, M and L, and each lab model of `int8_drop`, a dot per seed."""
    ax.axvspan(*MAP_LOSS_OF_OTHERS, color=MUTED, alpha=0.4, label="“other models”, published")
    sizes, models = list(MAP_LOSS_IN_TEXT), list(result.settings["models"])
    rows = np.arange(len(sizes) + len(models))
    in_table = [of_float.map - of_int8.map for of_float, of_int8 in zip(YOLO_NAS[:3], YOLO_NAS[3:])]
    ax.plot(in_table, rows[:3], "s", color="black", label="published table")
    in_text = list(MAP_LOSS_IN_TEXT.values())
    ax.plot(in_text, rows[:3], "D", color="black", fillstyle="none", label="published text")
    float_ap, int8_ap = (np.array([result.values(f"{m} {kind}", "ap") for m in models]) for kind in ("float", "INT8"))
    drops = 100 * (float_ap - int8_ap)  # (models, seeds)
    look = {"color": INT8, "alpha": 0.35, "label": "measured, one set of scenes"}
    ax.plot(drops.ravel(), rows[3:].repeat(drops.shape[1]), "o", **look)
    ax.plot(drops.mean(axis=1), rows[3:], "|", color=INT8, markersize=18, markeredgewidth=3, label="mean")
    ax.axvline(0, color="black", linewidth=0.8, linestyle=":")
    ax.set_yticks(rows, [f"YOLO-NAS {size}, COCO" for size in sizes] + [f"lab {model}" for model in models])
    ax.set(xlabel="points of AP lost to INT8 (1 point = 0.01)", ylim=(len(rows) - 0.5, -0.5))
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
    return ax


def draw_drop_by_bits(ax: Any, result: Result, granularity: str) -> Any:
    """AP lost against bits of the weights, "per tensor" or "per channel", for both blocks of `quantization_bits`."""
    bits = np.array([8, 6, 5, 4, 3])
    for shift, (block, color) in zip((-0.06, 0.06), BLOCKS.items()):
        drops = [result.values(f"{block} W{b} {granularity}", "drop") for b in bits]
        figures.draw_means(ax, -bits + shift, drops, color, block)
    ax.axhline(0, color="black", linewidth=0.8, linestyle=":")
    ax.set_xticks(-bits, [str(b) for b in bits])
    ax.set(xlabel="bits per weight", title=f"weights {granularity}")
    return ax


def draw_calibrators(ax: Any, result: Result, bits: int) -> Any:
    """AP lost with activations of `bits` bits by the way to choose their range: a dot per seed, a bar for the mean."""
    places = np.arange(len(CALIBRATORS))
    for shift, (block, color) in zip((-0.2, 0.2), BLOCKS.items()):
        drops = np.array([result.values(f"{block} A{bits} {method}", "drop") for method in CALIBRATORS])
        ax.bar(places + shift, drops.mean(axis=1), width=0.36, color=color, alpha=0.45, label=block)
        ax.plot(places + shift, drops, "o", color=color, markersize=4)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set_xticks(places, CALIBRATORS)
    ax.set(title=f"activations of {bits} bits")
    ax.grid(False, axis="x")
    return ax


def draw_selective(ax: Any, result: Result, block: str) -> Any:
    """AP lost against the number of layers in float, chosen by sensitivity and at random; a dot per seed."""
    counts = result.settings["float_layers"]
    places = np.arange(len(counts) + 1)
    none = result.values(f"{block} W4 all", "drop")
    looks = {"sensitive": ("most sensitive ones", HIGHLIGHT, "-"), "random": ("random ones", "#888888", "--")}
    for kind, (label, color, style) in looks.items():
        drops = [none, *(result.values(f"{block} W4 but {count} {kind}", "drop") for count in counts)]
        figures.draw_means(ax, places, drops, color, label, style)
    ax.axhline(0, color="black", linewidth=0.8, linestyle=":")
    ax.set_xticks(places, ["0", *map(str, counts)])
    ax.set(xlabel="layers in float", title=block)
    return ax
