"""Which layers suffer from quantization: each is quantized alone, the rest of the network stays in float. Notebook 10.

The cheap mode compares outputs on a few images, the exact one measures AP. Signal-to-noise ratio as a layer's measure:
Lin et al., "Fixed Point Quantization of Deep Convolutional Networks", arXiv 1511.06393, section 3.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yolonas_lab.common import progress, unknown_name, write_atomically
from yolonas_lab.evaluate import evaluate
from yolonas_lab.latency import Frontier, LayerTime, check_latency, network_ms
from yolonas_lab.models.yolo_nas import RawPredictions, YoloNAS
from yolonas_lab.quantization.calibrate import check_quantized, image_batches, quantizable_layers, quantized_only
from yolonas_lab.quantization.layers import Quantizer

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

    def sqnr_db(self, layer: str) -> float:
        """Signal-to-quantization-noise ratio of the outputs in dB, large is good. Raises ValueError in exact mode."""
        if self.mode != "cheap":
            raise ValueError("exact sensitivity is a loss of AP and has no noise: measure with mode='cheap'.")
        noise = self.harm(layer)
        return math.inf if noise == 0 else -10 * math.log10(noise)


def sensitivity(
    qmodel: YoloNAS,
    data: Any,
    mode: str = "cheap",
    path: str | Path | None = None,
    max_images: int = 64,
    batch_size: int = 32,
) -> Sensitivity:
    """Quantize each layer of a calibrated model alone and see what it costs.

    "cheap" takes the first max_images of a CocoDataset, a Loader or batches (b, 3, h, w) in [0, 1], and compares the
    outputs with those of the model in float; "exact" takes all of a CocoDataset and measures AP. With `path`, each
    layer's value is written there as JSON as soon as it is known, and a second call with the same model, images and
    mode goes on from there. qmodel is as before afterwards. Raises ValueError for an unknown mode, a model that is not
    quantized or not calibrated, no images, and a file that holds another measurement.
    """
    if mode not in MODES:
        raise ValueError(unknown_name("mode", mode, MODES))
    check_calibrated(qmodel)
    if mode == "cheap":
        batches = list(image_batches(data, qmodel.image_size, max_images, batch_size))
        if not batches:
            raise ValueError("There are no images to compare outputs on: give a data set or batches that hold some.")
        images, measure = batches, _noise_measure(qmodel, batches)
    else:
        if not hasattr(data, "coco_dict"):
            raise ValueError(f"mode='exact' measures AP and needs a CocoDataset, not {type(data).__name__}.")
        images, measure = _images_of(data), _ap_measure(qmodel, data, batch_size)
    about = {"mode": mode, "model": _digest([*grids(qmodel), *qmodel.state_dict().values()]), "images": _digest(images)}
    values = {} if path is None else _read_values(Path(path), about)
    layers = quantizable_layers(qmodel)
    for layer in progress(layers, f"{mode} sensitivity", "layer"):
        if layer in values:
            continue
        with quantized_only(qmodel, [layer]):
            values[layer] = measure()
        if path is not None:
            _write(Path(path), {**about, "values": values})
    return Sensitivity(mode, {layer: values[layer] for layer in layers})


def load_sensitivity(path: str | Path) -> Sensitivity:
    """What a finished call of `sensitivity` wrote. Raises ValueError for a file that is none."""
    content = _read(Path(path))
    return Sensitivity(content["mode"], content["values"])


def check_calibrated(qmodel: YoloNAS) -> None:
    """Raise ValueError unless the model is quantized and all its quantizers have a range."""
    check_quantized(qmodel)
    waiting = [q.name for q in qmodel.modules() if isinstance(q, Quantizer) and not q.calibrated]
    if waiting:
        raise ValueError(f"{len(waiting)} quantizers have no range, such as '{waiting[0]}': calibrate the model.")


def grids(qmodel: YoloNAS) -> list[str]:
    """Each quantizer of a model in words: for what tensor, how many bits, which integers."""
    quantizers = [module for module in qmodel.modules() if isinstance(module, Quantizer)]
    return [f"{q.name}: {q.bits} bits, {q.low} to {q.high}, axis {q.axis}" for q in quantizers]


def output_noise(clean: RawPredictions, noisy: RawPredictions) -> float:
    """Noise power over signal power of all probabilities that a detector predicts, class scores and distributions of
    box sides, from 0.

    Each anchor point is weighted by the clean model's best score there: where nothing is found, noise does no harm.
    Unweighted, as raw logits, or as decoded boxes, the outputs rank layers less like the lost AP does (see the bench).
    """
    scores, noisy_scores = clean.class_logits.sigmoid(), noisy.class_logits.sigmoid()  # (b, a, k)
    sides, noisy_sides = clean.box_logits.softmax(dim=3), noisy.box_logits.softmax(dim=3)  # (b, a, 4, r)
    weight = scores.amax(dim=2)  # (b, a)

    def power(scores: Tensor, sides: Tensor) -> Tensor:
        return (weight * (scores.square().sum(dim=2) + sides.square().sum(dim=(2, 3)))).sum()

    return (power(noisy_scores - scores, noisy_sides - sides) / power(scores, sides)).item()


def _noise_measure(qmodel: YoloNAS, batches: Sequence[Tensor]) -> Callable[[], float]:
    """Mean noise over the batches, in whatever state the model is then; the float outputs are computed now."""
    with quantized_only(qmodel, []):
        clean = [_predictions(qmodel, images) for images in batches]

    def measure() -> float:
        noise = [output_noise(exact, _predictions(qmodel, images)) for exact, images in zip(clean, batches)]
        return sum(noise) / len(noise)

    return measure


def _predictions(qmodel: YoloNAS, images: Tensor) -> RawPredictions:
    parameter = next(qmodel.parameters())
    with torch.inference_mode():
        return qmodel(images.to(parameter.device, parameter.dtype))


def _ap_measure(qmodel: YoloNAS, dataset: Any, batch_size: int) -> Callable[[], float]:
    """The AP that is lost, in whatever state the model is then; the float AP is measured now."""

    def ap() -> float:
        return evaluate(qmodel, dataset, batch_size=batch_size, progress=False).ap

    with quantized_only(qmodel, []):
        float_ap = ap()
    return lambda: float_ap - ap()


def _images_of(dataset: Any) -> Iterable[Any]:
    """All that decides an AP: annotations and pixels."""
    yield json.dumps(dataset.coco_dict, sort_keys=True)
    for sample in dataset:
        yield torch.from_numpy(sample.image)


def _digest(parts: Iterable[str | Tensor]) -> str:
    """Fingerprint (16 hex digits) of texts and tensors."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part.encode() if isinstance(part, str) else part.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def _read_values(path: Path, about: Mapping[str, str]) -> dict[str, float]:
    """The values in a file of the same measurement; none where there is no file."""
    if not path.exists():
        return {}
    content = _read(path)
    if different := [name for name, value in about.items() if content[name] != value]:
        raise ValueError(f"{path} was measured with another {' and '.join(different)}: give another path.")
    return dict(content["values"])


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not readable as JSON ({error}): delete it to measure anew.") from error
    if not isinstance(content, dict) or not {"mode", "model", "images", "values"} <= content.keys():
        raise ValueError(f"{path} is no file of a sensitivity: give another path.")
    return content


def _write(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=1) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


# Selective quantization: which layers stay in float, so that little AP is lost and much time is saved. Notebook 10.
#
# Layers go back to float one after the other, first those whose quantization harms most for each millisecond that it
# saves; the AP measured along this way is the accuracy-latency frontier, and the allowed loss picks a point on it.


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
