"""Prediction: image in, letterbox, network, decoding, NMS, detections in the image's own pixels out.

Notebook 00 uses it; notebooks 01 and 04 open it. Preparation as in super-gradients' COCO pipeline for YOLO-NAS: the
longest side to 636 of 640 px, centered, padded with 114, divided by 255.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from yolonas_lab.boxes import Letterbox, clip, letterbox
from yolonas_lab.detections import Detection, Detections
from yolonas_lab.models.heads import STRIDES, decode
from yolonas_lab.postprocess import check_thresholds, postprocess
from yolonas_lab.progress import progress
from yolonas_lab.sources import NamedImage, is_single, is_video, list_items, read_image, video_frames

__all__ = ["Detection", "Detections", "detect", "predict", "prepare"]

PAD_VALUE = 114  # gray, of 255


def predict(
    model: nn.Module,
    source: Any,
    conf: float = 0.25,
    iou: float = 0.7,
    image_size: int | None = None,
    batch_size: int = 8,
    class_names: Sequence[str] | None = None,
) -> Detections | list[Detections] | Iterator[Detections]:
    """Detect objects with score > conf; NMS drops a box whose IoU with a better one of its class is > iou.

    source is a path, URL, Pillow image, uint8 array (h, w, 3) RGB or tensor (3, h, w): one Detections; a list of
    these or a folder: a list of Detections, in the same order; a video: an iterator with one Detections per frame.
    Boxes are in pixels of the original image and clipped to it (super-gradients does not clip). image_size is the side
    in px of the network's input, a multiple of 32 (default: the model's). Raises ValueError for bad settings, for what
    cannot be read as an image, and for a model that predicts NaN.
    """
    check_thresholds(conf, iou)
    options = (conf, iou, image_size, batch_size, class_names)
    _check_size(_network_size(model, image_size), batch_size)
    if is_video(source):
        return detect(model, video_frames(source), *options)
    items = list_items(source)
    images = (read_image(item, index) for index, item in enumerate(items))
    found = list(progress(detect(model, images, *options), "predicting", "image", total=len(items)))
    return found[0] if is_single(source) else found


def detect(
    model: nn.Module,
    images: Iterable[NamedImage],
    conf: float = 0.25,
    iou: float = 0.7,
    image_size: int | None = None,
    batch_size: int = 8,
    class_names: Sequence[str] | None = None,
    top_k: int = 1024,
    max_detections: int = 300,
) -> Iterator[Detections]:
    """Detections of each image, lazily, batch_size at a time; settings as in `predict` and `postprocess`.

    The model stays on its device and is in eval mode while it computes; afterwards its modules are as before.
    """
    check_thresholds(conf, iou)
    size = _network_size(model, image_size)
    _check_size(size, batch_size)
    images = iter(images)
    while batch := list(islice(images, batch_size)):
        inputs, boxes_of = prepare([named.image for named in batch], size)
        all_boxes, all_scores = _run(model, inputs)
        names = _names_of(model, class_names, all_scores.shape[2])
        for named, frame, boxes, scores in zip(batch, boxes_of, all_boxes, all_scores):
            try:
                kept = postprocess(boxes, scores, conf, iou, top_k, max_detections)
            except ValueError as error:
                raise ValueError(f"{named.name}: {error}") from error
            in_image = clip(frame.invert(kept.boxes), frame.height, frame.width)
            yield Detections(in_image, kept.scores, kept.labels, names, named.image)


def prepare(images: Sequence[np.ndarray], size: int) -> tuple[Tensor, list[Letterbox]]:
    """Images (h, w, 3) uint8 RGB to network input (b, 3, size, size) in [0, 1], and the place of each on it.

    The longest side becomes round(size * 636 / 640) px. Bilinear without smoothing beforehand, like the INTER_LINEAR of
    OpenCV with which the official weights were validated: large photographs alias a little, as they do there.
    """
    inputs = torch.full((len(images), 3, size, size), float(PAD_VALUE))
    frames = []
    for image, canvas in zip(images, inputs):
        height, width = image.shape[:2]
        frame = letterbox(height, width, size, resize_to=round(size * 636 / 640), pad="center")
        rows = slice(frame.pad_top, frame.pad_top + frame.resized_h)
        columns = slice(frame.pad_left, frame.pad_left + frame.resized_w)
        canvas[:, rows, columns] = _resize(image, frame.resized_h, frame.resized_w)
        frames.append(frame)
    return inputs.div_(255), frames


def _resize(image: np.ndarray, height: int, width: int) -> Tensor:
    """(h, w, 3) uint8 to (3, height, width) float32 with whole values 0 … 255, as an 8-bit image has."""
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)  # (3, h, w)
    if image.shape[:2] == (height, width):
        return pixels.float()
    resized = nn.functional.interpolate(pixels[None].float(), (height, width), mode="bilinear", align_corners=False)
    return resized[0].round_()


def _run(model: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes (b, a, 4) xyxy px of the input and scores (b, a, k), float32 on the CPU."""
    parameter = next(model.parameters(), None)
    if parameter is not None:
        inputs = inputs.to(parameter.device, parameter.dtype)
    with _evaluation_mode(model), torch.inference_mode():
        boxes, scores = decode(model(inputs))
    return boxes.float().cpu(), scores.float().cpu()


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards each module as it was (a model in training may keep some layers in eval mode)."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _network_size(model: nn.Module, image_size: int | None) -> int:
    return image_size if image_size is not None else getattr(model, "image_size", 640)


def _check_size(image_size: int, batch_size: int) -> None:
    if image_size < 1 or image_size % STRIDES[-1]:
        raise ValueError(f"image_size must be a multiple of {STRIDES[-1]} px, but is {image_size}.")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, but is {batch_size}.")


def _names_of(model: nn.Module, class_names: Sequence[str] | None, num_classes: int) -> list[str]:
    names = class_names if class_names is not None else getattr(model, "class_names", None)
    if names is None:
        return [f"class {label}" for label in range(num_classes)]
    if len(names) != num_classes:
        raise ValueError(f"there are {len(names)} class_names, but the model predicts {num_classes} classes.")
    return list(names)
