"""Drawings of what quantization costs, from the stored results of the claims (notebook 10)."""

from typing import Any

import numpy as np

from yolonas_lab.experiments import Result
from yolonas_lab.teaching.figures import HIGHLIGHT, INT8, MUTED, QAREPVGG, REPVGG
from yolonas_lab.teaching.published import MAP_LOSS_IN_TEXT, MAP_LOSS_OF_OTHERS, YOLO_NAS

BLOCKS = {"QARepVGG": QAREPVGG, "RepVGG": REPVGG}
CALIBRATORS = ("max", "percentile", "entropy", "mse")


def published_drop(size: str) -> float:
    """Loss of mAP in points from a size's row to its INT8 row in the published table."""
    by_name = {row.name: row.map for row in YOLO_NAS}
    return by_name[f"{size} FP16"] - by_name[f"{size} INT8"]


def draw_int8_drops(ax: Any, result: Result) -> Any:
    """AP points lost to INT8: the published table and text for S, M and L, and each lab model of `int8_drop`, a dot per
    seed.
    """
    ax.axvspan(*MAP_LOSS_OF_OTHERS, color=MUTED, alpha=0.4, label="“other models”, published")
    names = []
    for row, size in enumerate(MAP_LOSS_IN_TEXT):
        first = row == 0
        ax.plot(published_drop(size), row, "s", color="black", label="published table" if first else None)
        label = "published text" if first else None
        ax.plot(MAP_LOSS_IN_TEXT[size], row, "D", color="black", fillstyle="none", label=label)
        names.append(f"YOLO-NAS {size}, COCO")
    for name in result.settings["models"]:
        row = len(names)
        drops = 100 * (np.array(result.values(f"{name} float", "ap")) - np.array(result.values(f"{name} INT8", "ap")))
        dots, mean = ("measured, one set of scenes", "mean") if row == len(MAP_LOSS_IN_TEXT) else (None, None)
        ax.plot(drops, [row] * len(drops), "o", color=INT8, alpha=0.35, label=dots)
        ax.plot(drops.mean(), row, "|", color=INT8, markersize=18, markeredgewidth=3, label=mean)
        names.append(f"lab {name}")
    ax.axvline(0, color="black", linewidth=0.8, linestyle=":")
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel="points of AP lost to INT8 (1 point = 0.01)", ylim=(len(names) - 0.5, -0.5))
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
    return ax


def draw_drop_by_bits(ax: Any, result: Result, granularity: str, bits: tuple[int, ...] = (8, 6, 5, 4, 3)) -> Any:
    """AP lost against the bits of the weights for both blocks of `quantization_bits`: a dot per seed, a line through
    the means. granularity: "per tensor" or "per channel".
    """
    for shift, (block, color) in zip((-0.06, 0.06), BLOCKS.items()):
        drops = np.array([result.values(f"{block} W{b} {granularity}", "drop") for b in bits])  # (bits, seeds)
        x = -np.array(bits) + shift
        ax.plot(np.repeat(x, drops.shape[1]), drops.ravel(), "o", color=color, alpha=0.4, markersize=5)
        ax.plot(x, drops.mean(axis=1), color=color, label=block)
    ax.axhline(0, color="black", linewidth=0.8, linestyle=":")
    ax.set_xticks([-b for b in bits], [str(b) for b in bits])
    ax.set(xlabel="bits per weight", title=f"weights {granularity}")
    return ax


def draw_calibrators(ax: Any, result: Result, bits: int) -> Any:
    """AP lost with activations of `bits` bits by the way to choose their range: a dot per seed, a bar for the mean."""
    for shift, (block, color) in zip((-0.2, 0.2), BLOCKS.items()):
        for place, method in enumerate(CALIBRATORS):
            drops = result.values(f"{block} A{bits} {method}", "drop")
            label = block if place == 0 else None
            ax.bar(place + shift, np.mean(drops), width=0.36, color=color, alpha=0.45, label=label)
            ax.plot([place + shift] * len(drops), drops, "o", color=color, markersize=4)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set_xticks(range(len(CALIBRATORS)), CALIBRATORS)
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
        drops = np.array([none, *(result.values(f"{block} W4 but {count} {kind}", "drop") for count in counts)])
        ax.plot(np.repeat(places, drops.shape[1]), drops.ravel(), "o", color=color, alpha=0.4, markersize=5)
        ax.plot(places, drops.mean(axis=1), color=color, linestyle=style, label=label)
    ax.axhline(0, color="black", linewidth=0.8, linestyle=":")
    ax.set_xticks(places, ["0", *map(str, counts)])
    ax.set(xlabel="layers in float", title=block)
    return ax
