"""Selective quantization: which layers suffer, and which stay in float so that little AP is lost and much time saved.

Notebook 10. Each layer is quantized alone, the rest stays in float; then layers go back to float one after the other,
first those that harm most for each millisecond that INT8 saves there; AP measured along this way is the frontier.
Signal-to-noise ratio as a layer's measure: Lin et al., "Fixed Point Quantization of Deep Convolutional Networks",
arXiv 1511.06393, section 3.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yolonas_lab.common import progress, unknown_name
from yolonas_lab.evaluate import evaluate
from yolonas_lab.latency import Frontier, LayerTime, check_latency, network_ms
from yolonas_lab.models.yolo_nas import RawPredictions, YoloNAS
from yolonas_lab.quantization.calibrate import image_batches
from yolonas_lab.quantization.layers import check_calibrated, quantizable_layers, quantized_only

MODES = ("cheap", "exact")


@dataclass(frozen=True)
class Sensitivity:
    """How much each layer, quantized alone, harms the model; layers in network order.

    cheap: noise power over signal power of the outputs, from 0 (`output_noise`). exact: the AP lost, in [-1, 1].
    """

    mode: str
    values: Mapping[str, float] = field(repr=False)

    def ranked(self) -> list[str]:
        """Layer names, the one that harms most first."""
        return sorted(self.values, key=self.harm, reverse=True)

    def harm(self, layer: str) -> float:
        """The value of a layer. Raises ValueError with the nearest match for an unknown one."""
        if layer not in self.values:
            raise ValueError(unknown_name("layer", layer, self.values))
        return self.values[layer]


def sensitivity(
    qmodel: YoloNAS, data: Any, mode: str = "cheap", max_images: int = 64, batch_size: int = 32
) -> Sensitivity:
    """Quantize each layer of a calibrated model alone and see what it costs.

    "cheap" takes the first max_images of a CocoDataset, a Loader or batches (b, 3, h, w) in [0, 1], and compares the
    outputs with those of the model in float; "exact" takes all of a CocoDataset and measures AP. qmodel is as before
    afterwards. Raises ValueError for an unknown mode, a model that is not quantized or not calibrated, and no images.

    >>> import yolonas_lab as yl
    >>> images = torch.rand(2, 3, 32, 32)
    >>> model = yl.quantization.quantize(yl.models.get("yolo_nas_pico", num_classes=6))
    >>> len(sensitivity(yl.quantization.calibrate(model, images), images).ranked())
    70
    """
    if mode not in MODES:
        raise ValueError(unknown_name("mode", mode, MODES))
    check_calibrated(qmodel)
    harm = _lost_ap(qmodel, data, batch_size) if mode == "exact" else _noise(qmodel, data, max_images, batch_size)
    values = {}
    for layer in progress(quantizable_layers(qmodel), f"{mode} sensitivity", "layer"):
        with quantized_only(qmodel, [layer]):
            values[layer] = harm()
    return Sensitivity(mode, values)


def _noise(qmodel: YoloNAS, data: Any, max_images: int, batch_size: int) -> Callable[[], float]:
    """What measures the mean noise over the batches, with whatever is quantized then."""
    parameter = next(qmodel.parameters())
    batches = list(image_batches(data, qmodel.image_size, max_images, batch_size))
    if not batches:
        raise ValueError("There are no images to compare outputs on: give a data set or batches that hold some.")

    @torch.inference_mode()
    def outputs() -> Iterator[RawPredictions]:
        for images in batches:
            yield qmodel(images.to(parameter.device, parameter.dtype))

    with quantized_only(qmodel, []):
        clean = list(outputs())
    return lambda: sum(map(output_noise, clean, outputs())) / len(batches)


def _lost_ap(qmodel: YoloNAS, dataset: Any, batch_size: int) -> Callable[[], float]:
    """What measures the AP that is lost, with whatever is quantized then."""
    if not hasattr(dataset, "coco_dict"):
        raise ValueError(f"mode='exact' measures AP and needs a CocoDataset, not {type(dataset).__name__}.")

    def ap() -> float:
        return evaluate(qmodel, dataset, batch_size=batch_size, progress=False).ap

    with quantized_only(qmodel, []):
        float_ap = ap()
    return lambda: float_ap - ap()


def output_noise(clean: RawPredictions, noisy: RawPredictions) -> float:
    """Noise power over signal power of all probabilities that a detector predicts, class scores and distributions of
    box sides, from 0.

    Each anchor point is weighted by the clean model's best score there: where nothing is found, noise does no harm.
    Unweighted, as raw logits, or as decoded boxes, the outputs rank layers less like the lost AP does.
    """
    scores, noisy_scores = clean.class_logits.sigmoid(), noisy.class_logits.sigmoid()  # (b, a, k)
    sides, noisy_sides = clean.box_logits.softmax(dim=3), noisy.box_logits.softmax(dim=3)  # (b, a, 4, r)
    weight = scores.amax(dim=2)  # (b, a)

    def power(scores: Tensor, sides: Tensor) -> Tensor:
        return (weight * (scores.square().sum(dim=2) + sides.square().sum(dim=(2, 3)))).sum()

    return (power(noisy_scores - scores, noisy_sides - sides) / power(scores, sides)).item()


@dataclass(frozen=True)
class FrontierPoint:
    """A model with some layers in float: its AP in [0, 1] as measured, and the sum of its layers' times in ms."""

    float_layers: tuple[str, ...]
    ap: float
    ms: float


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

    AP is measured on val_set at `points` places of the frontier. All layers in float lose nothing, so that there always
    is an answer. Raises ValueError for a negative or infinite drop, and as `frontier` does.

    >>> layers = select_layers(int8, val_set, harm, milliseconds, allowed_drop=0.01)  # doctest: +SKIP
    >>> model = quantize(model, QuantPolicy(float_layers=layers))  # doctest: +SKIP
    """
    if not 0 <= allowed_drop < math.inf:
        raise ValueError(f"allowed_drop is {allowed_drop}: give an AP from 0 on, such as 0.01.")
    found = frontier(qmodel, val_set, float_order(sensitivity, latency), latency, points)
    return found.fastest(found.candidates[-1].ap - allowed_drop).float_layers


def frontier(
    qmodel: YoloNAS,
    val_set: Any,
    order: Sequence[str],
    latency: Mapping[str, LayerTime | Sequence[float]],
    points: int | Sequence[int] = 9,
    image_size: int | None = None,
) -> Frontier:
    """Measure AP with the first 0, …, all layers of `order` in float and the others quantized: FrontierPoints, the last
    with every layer in float.

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
    return Frontier(tuple(found))


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
