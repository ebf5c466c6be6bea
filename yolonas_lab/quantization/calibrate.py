"""Calibration: show a quantized model typical images, and give each activation the range that they call for.

Notebook 10. Nothing is learned and labels are not needed; memory does not grow with the number of images.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from yolonas_lab.common import progress
from yolonas_lab.data.coco import Batch, CocoDataset
from yolonas_lab.data.loader import Loader
from yolonas_lab.detect import prepare
from yolonas_lab.models.yolo_nas import YoloNAS, check_images
from yolonas_lab.quantization.calibrators import PERCENTILE, Extremes, Histogram, check_method, choose_range
from yolonas_lab.quantization.layers import activation_quantizers, check_quantized, modes_kept, quantizers


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

    >>> import yolonas_lab as yl
    >>> model = yl.quantization.quantize(yl.models.get("yolo_nas_pico", num_classes=6))
    >>> print(calibrate(model, torch.rand(2, 3, 64, 64), method="max").calibration)
    67 activations calibrated by max on 2 images
    """
    check_quantized(model)
    check_method(method, percentile)
    if max_images < 1 or batch_size < 1:
        raise ValueError(f"max_images is {max_images} and batch_size {batch_size}: give at least 1 of each.")
    observed = {quantizer: Extremes() if method == "max" else Histogram() for quantizer in activation_quantizers(model)}
    seen = _observe(model, observed, image_batches(images, model.image_size, max_images, batch_size))
    if seen == 0:
        raise ValueError("There are no images to calibrate with: give a data set or batches that hold some.")
    ranges = {}
    for quantizer, statistics in observed.items():
        ranges[quantizer.name] = choose_range(statistics, method, percentile, quantizer.bits, quantizer.symmetric)
        low, high = torch.tensor(ranges[quantizer.name], dtype=quantizer.scale.dtype)
        quantizer.set_range(low, high)
    named = f"{method} ({percentile} %)" if method == "percentile" else method
    model.calibration = CalibrationReport(named, seen, ranges)  # type: ignore[assignment]
    return model


@torch.no_grad()
def _observe(model: YoloNAS, observed: dict, batches: Iterator[Tensor]) -> int:
    """Run the model in float over the batches; each quantizer shows its tensors to its statistics. The number of
    images seen.
    """
    parameter = next(model.parameters())
    seen = 0
    with modes_kept(model):
        model.eval()
        for quantizer in quantizers(model):
            quantizer.statistics = observed.get(quantizer)
            quantizer.mode = "observe" if quantizer in observed else "off"
        for batch in batches:
            model(batch.to(parameter.device, parameter.dtype))
            seen += len(batch)
    return seen


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
