"""Calibration: show a quantized model typical images, and give each activation the range that they call for.

Notebook 10. Nothing is learned and labels are not needed; memory does not grow with the number of images.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from yolonas_lab.common import progress, unknown_name
from yolonas_lab.data.coco import Batch, CocoDataset
from yolonas_lab.data.loader import Loader
from yolonas_lab.detect import prepare
from yolonas_lab.models.blocks import ConvAct, ConvBNAct, QARepVGGBlock, RepVGGBlock
from yolonas_lab.models.yolo_nas import YoloNAS, check_images
from yolonas_lab.quantization.calibrators import PERCENTILE, Extremes, Histogram, check_method, choose_range
from yolonas_lab.quantization.layers import QuantConv2d, QuantConvAct, QuantConvTranspose2d, Quantizer

# Which layers of a quantized model compute on the grid and which in float: a switch, without any copying.
#
# Notebook 10 finds the layers to leave in float with it.

_WITH_CONV = (ConvAct, ConvBNAct, RepVGGBlock, QARepVGGBlock, QuantConvAct)


def quantizable_layers(model: nn.Module) -> list[str]:
    """The convolutions that can be quantized, from the image to the heads, by the names that they have in the fused
    model and in the quantized one.

    The prediction convolutions are not among them: they and all that follows stay in float.
    """
    layers = []
    for name, module in model.named_modules():
        if isinstance(module, _WITH_CONV):
            layers.append(f"{name}.conv")
        elif isinstance(module, nn.ConvTranspose2d):
            layers.append(name)
    return layers


def is_quantized(model: nn.Module) -> bool:
    """True for what `quantize` returns, calibrated or not."""
    return any(isinstance(module, Quantizer) for module in model.modules())


def weight_quantizers(model: nn.Module) -> dict[str, Quantizer]:
    """The weight quantizer of each layer of a quantized model."""
    return {
        n: m.weight_quantizer for n, m in model.named_modules() if isinstance(m, (QuantConv2d, QuantConvTranspose2d))
    }


def activation_quantizers(model: nn.Module) -> list[Quantizer]:
    """The other quantizers, those that calibration gives their grid, each once."""
    weights = set(weight_quantizers(model).values())
    return [module for module in model.modules() if isinstance(module, Quantizer) and module not in weights]


def set_float(model: nn.Module, names: Iterable[str]) -> None:
    """Let exactly these layers of a quantized model compute in float, in place; with none, all are quantized again.

    A float layer has a float weight, and a tensor that only float layers read is not quantized either. Raises
    ValueError for a model that is not quantized and for an unknown name.
    """
    check_quantized(model)
    names = set(names)
    check_layers(model, names)
    for module in model.modules():
        if isinstance(module, Quantizer):
            module.switch(any(reader not in names for reader in module.readers))


def float_layers(model: nn.Module) -> list[str]:
    """The layers of a quantized model that compute in float at the moment."""
    check_quantized(model)
    return [name for name, quantizer in weight_quantizers(model).items() if not quantizer.wanted]


@contextmanager
def quantized_only(model: nn.Module, names: Iterable[str]) -> Iterator[None]:
    """Inside, these layers of a quantized model alone are quantized; afterwards those that were before.

    Raises ValueError as `set_float` does.
    """
    before = float_layers(model)
    names = set(names)
    check_layers(model, names)
    set_float(model, [name for name in quantizable_layers(model) if name not in names])
    try:
        yield
    finally:
        set_float(model, before)


def check_layers(model: nn.Module, names: Iterable[str]) -> None:
    """Raise ValueError naming the nearest layer unless all names are among the quantizable layers."""
    known = quantizable_layers(model)
    for name in names:
        if name not in known:
            raise ValueError(unknown_name("layer", name, known))


def check_quantized(model: nn.Module) -> None:
    """Raise ValueError unless the model is quantized."""
    if not is_quantized(model):
        raise ValueError("The model is not quantized: give what quantize(model) returns.")


def check_float(model: nn.Module) -> None:
    """Raise ValueError if the model is quantized."""
    if is_quantized(model):
        raise ValueError("The model is quantized already: give the float model, or dequantize(model) first.")


@dataclass(frozen=True)
class CalibrationReport:
    """What a calibration did; `ranges` holds the range that each tensor's grid was made for."""

    method: str
    images: int
    ranges: dict[str, tuple[float, float]]

    def __str__(self) -> str:
        return f"{len(self.ranges)} activations calibrated by {self.method} on {self.images} images"


def calibrate(
    model: YoloNAS,
    images: Any,
    method: str = "percentile",
    percentile: float = PERCENTILE,
    max_images: int = 256,
    batch_size: int = 16,
) -> YoloNAS:
    """Set the activation ranges of a quantized model, in place, from at most max_images images; returns the model.

    images: a CocoDataset (letterboxed as for `predict`), a Loader (its first epoch), or tensors or Batches of
    (b, 3, h, w) floats in [0, 1]. method: "max" (the extremes), "percentile" (all but the outermost values), "mse"
    (least squared error) or "entropy" (least KL divergence). Layers compute in float meanwhile, in eval mode;
    `model.calibration` says what was done. Raises ValueError for bad settings, no images, and activations that are
    NaN, naming the tensor; the model is then as before.
    """
    check_quantized(model)
    check_method(method, percentile)
    if max_images < 1 or batch_size < 1:
        raise ValueError(f"max_images is {max_images} and batch_size {batch_size}: give at least 1 of each.")
    quantizers = activation_quantizers(model)
    statistics = [Extremes() if method == "max" else Histogram() for _ in quantizers]
    seen = _observe(model, quantizers, statistics, image_batches(images, model.image_size, max_images, batch_size))
    if seen == 0:
        raise ValueError("There are no images to calibrate with: give a data set or batches that hold some.")
    ranges = {}
    for quantizer, values in zip(quantizers, statistics):
        ranges[quantizer.name] = choose_range(values, method, percentile, quantizer.bits, quantizer.symmetric)
        low, high = torch.tensor(ranges[quantizer.name], dtype=quantizer.scale.dtype)
        quantizer.set_range(low, high)
    named = f"{method} ({percentile} %)" if method == "percentile" else method
    model.calibration = CalibrationReport(named, seen, ranges)  # type: ignore[assignment]
    return model


@torch.no_grad()
def _observe(model: nn.Module, quantizers: list[Quantizer], statistics: list[Any], batches: Iterator[Tensor]) -> int:
    """Run the float model over the batches and collect statistics; the number of images seen."""
    parameter = next(model.parameters())
    seen = 0
    with _as_before(model):
        model.eval()
        for module in model.modules():
            if isinstance(module, Quantizer):
                module.mode = "off"
        for quantizer, values in zip(quantizers, statistics):
            quantizer.statistics, quantizer.mode = values, "observe"
        for batch in batches:
            model(batch.to(parameter.device, parameter.dtype))
            seen += len(batch)
    return seen


@contextmanager
def _as_before(model: nn.Module) -> Iterator[None]:
    """Afterwards every module is in the mode that it had."""
    training = {module: module.training for module in model.modules()}
    modes = {module: module.mode for module in model.modules() if isinstance(module, Quantizer)}
    try:
        yield
    finally:
        for module, was_training in training.items():
            module.training = was_training
        for quantizer, mode in modes.items():
            quantizer.mode, quantizer.statistics = mode, None


def image_batches(images: Any, image_size: int, max_images: int, batch_size: int) -> Iterator[Tensor]:
    """Tensors (b, 3, h, w) with max_images images in all, or as many as there are, behind a progress bar; `images` as
    in `calibrate`. batch_size and image_size (px) are for a CocoDataset, all others bring theirs.
    """
    if isinstance(images, CocoDataset):
        count = min(max_images, len(images))
        for start in progress(range(0, count, batch_size), "calibrating", "batch"):
            samples = [images[i] for i in range(start, min(start + batch_size, count))]
            yield prepare([sample.image for sample in samples], image_size)[0]
        return
    given = images.batches(0) if isinstance(images, Loader) else [images] if isinstance(images, Tensor) else images
    left = max_images
    for batch in progress(given, "calibrating", "batch"):
        batch = batch.images if isinstance(batch, Batch) else batch
        check_images(batch)
        yield batch[:left]
        left -= len(batch[:left])
        if left == 0:
            return
