"""Selective quantization: which layers stay in float, so that little AP is lost and much time is saved. Notebook 10.

Layers go back to float one after the other, first those whose quantization harms most for each millisecond that it
saves; the AP measured along this way is the accuracy-latency frontier, and the allowed loss picks a point on it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from yolonas_lab.evaluate import evaluate
from yolonas_lab.models.yolo_nas import YoloNAS
from yolonas_lab.progress import progress
from yolonas_lab.quantization.latency import LayerTime, check_latency, network_ms
from yolonas_lab.quantization.sensitivity import Sensitivity
from yolonas_lab.quantization.switch import quantizable_layers, quantized_only


@dataclass(frozen=True)
class FrontierPoint:
    """A model with some layers in float: its AP in [0, 1] as measured, and the sum of its layers' times in ms."""

    float_layers: tuple[str, ...]
    ap: float
    ms: float


@dataclass(frozen=True)
class Frontier:
    """The points that were measured, from all layers quantized to all in float."""

    points: tuple[FrontierPoint, ...]
    float_ap: float  # of the model with every layer in float

    def choose(self, allowed_drop: float) -> FrontierPoint:
        """The fastest point that loses at most allowed_drop of the float model's AP (0.01 is one point of AP).

        All layers in float lose nothing, so there always is one. Raises ValueError for a negative or infinite drop.
        """
        if not 0 <= allowed_drop < math.inf:
            raise ValueError(f"allowed_drop is {allowed_drop}: give an AP from 0 on, such as 0.01.")
        good = [point for point in self.points if self.float_ap - point.ap <= allowed_drop]
        return min(good, key=lambda point: (point.ms, len(point.float_layers)))

    def best(self) -> tuple[FrontierPoint, ...]:
        """The points than which no other is at least as fast and at least as accurate, the fastest first."""
        kept: list[FrontierPoint] = []
        for point in sorted(self.points, key=lambda point: (point.ms, -point.ap)):
            if not kept or point.ap > kept[-1].ap:
                kept.append(point)
        return tuple(kept)


def select_layers(
    qmodel: YoloNAS,
    val_set: Any,
    sensitivity: Sensitivity,
    latency: Mapping[str, LayerTime | Sequence[float]],
    allowed_drop: float,
    points: int = 9,
) -> tuple[str, ...]:
    """Names of the layers to leave in float so that a calibrated model loses at most allowed_drop of AP, as fast as
    possible: the argument float_layers of a QuantPolicy.

    AP is measured on val_set at `points` places of the frontier. Raises ValueError as `frontier` does.
    """
    order = float_order(sensitivity, latency)
    return frontier(qmodel, val_set, order, latency, points).choose(allowed_drop).float_layers


def frontier(
    qmodel: YoloNAS,
    val_set: Any,
    order: Sequence[str],
    latency: Mapping[str, LayerTime | Sequence[float]],
    points: int | Sequence[int] = 9,
    image_size: int | None = None,
) -> Frontier:
    """Measure AP with the first 0, …, all layers of `order` in float and the others quantized.

    `points` are the numbers of layers to leave in float, or how many such numbers to try: then they lie denser where
    few layers are in float. qmodel is as before afterwards. Raises ValueError for an order or a latency table that does
    not have exactly the model's layers.
    """
    layers = quantizable_layers(qmodel)
    table = check_latency(latency, layers)
    if sorted(order) != sorted(layers):
        raise ValueError(f"order must name each of the model's {len(layers)} layers once; it has {len(order)} names.")
    counts = spread(len(layers), points) if isinstance(points, int) else sorted({*points, len(layers)})
    found = []
    for count in progress(counts, "measuring the frontier", "point"):
        float_layers = tuple(order[:count])
        with quantized_only(qmodel, order[count:]):
            ap = evaluate(qmodel, val_set, image_size=image_size, progress=False).ap
        found.append(FrontierPoint(float_layers, ap, network_ms(table, float_layers)))
    return Frontier(tuple(found), float_ap=found[-1].ap)


def float_order(sensitivity: Sensitivity, latency: Mapping[str, LayerTime | Sequence[float]]) -> tuple[str, ...]:
    """All layers in the order in which they go back to float: those first that INT8 does not make faster, then by
    sensitivity for each millisecond saved.

    Raises ValueError for a table that does not have exactly these layers.
    """
    table = check_latency(latency, sensitivity.values)

    def worth(name: str) -> float:
        saved = table[name].float_ms - table[name].int8_ms
        return sensitivity.harm(name) / saved if saved > 0 else math.inf

    return tuple(sorted(sensitivity.values, key=worth, reverse=True))


def random_order(layers: Iterable[str], seed: int) -> tuple[str, ...]:
    """The layers shuffled: what a clever order must beat."""
    layers = list(layers)
    return tuple(layers[i] for i in np.random.default_rng(seed).permutation(len(layers)))


def spread(count: int, points: int) -> list[int]:
    """`points` whole numbers from 0 to count, quadratically spaced: denser near 0. Raises ValueError below 2 points."""
    if points < 2:
        raise ValueError(f"points is {points}: give at least 2, all layers quantized and all in float.")
    return sorted({round(count * (i / (points - 1)) ** 2) for i in range(points)})
