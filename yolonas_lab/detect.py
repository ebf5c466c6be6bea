"""Prediction: image in, letterbox, network, decoding, NMS, detections in the image's own pixels out.

Notebook 00 uses it; notebooks 01 and 04 open it. Preparation as in super-gradients' COCO pipeline for YOLO-NAS (longest
side to 636 of 640 px, centered, padded with 114, divided by 255); order and numbers of the rest as in its
`PPYoloEPostPredictionCallback`, with which YOLO-NAS was published.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from yolonas_lab.boxes import Letterbox, batched_nms, clip, letterbox
from yolonas_lab.common import check_image_size, progress
from yolonas_lab.detections import Detections
from yolonas_lab.models.yolo_nas import RawPredictions, decode
from yolonas_lab.sources import NamedImage, is_single, is_video, list_items, read_image, video_frames

# What can detect: a YoloNAS, or anything else that takes images (b, 3, s, s) float32 RGB in [0, 1] and returns
# RawPredictions, or boxes (b, a, 4) xyxy px with scores (b, a, k). It may say its image_size (px) and class_names.
Detector = Callable[[Tensor], RawPredictions | tuple[Tensor, Tensor]]
PAD_VALUE = 114  # gray, of 255


def predict(
    model: Detector,
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

    >>> import yolonas_lab as yl
    >>> model = yl.models.get("yolo_nas_pico", pretrained_weights="scenes")
    >>> predict(model, yl.data.draw_scene(17).image)
    Detections(4: 2 umbrella, 1 phone, 1 airplane)
    """
    options = (conf, iou, image_size, batch_size, class_names)
    if is_video(source):
        return detect(model, video_frames(source), *options)
    items = list_items(source)
    images = (read_image(item, index) for index, item in enumerate(items))
    found = list(progress(detect(model, images, *options), "predicting", "image", total=len(items)))
    return found[0] if is_single(source) else found


def detect(
    model: Detector,
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
    size = check_image_size(getattr(model, "image_size", 640) if image_size is None else image_size)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, but is {batch_size}.")

    def found() -> Iterator[Detections]:  # a generator of its own, so that bad settings are refused at once
        rest = iter(images)
        while batch := list(islice(rest, batch_size)):
            inputs, frames = prepare([named.image for named in batch], size)
            all_boxes, all_scores = _run(model, inputs)
            names = _names_of(model, class_names, all_scores.shape[2])
            for named, frame, boxes, scores in zip(batch, frames, all_boxes, all_scores):
                try:
                    kept = postprocess(boxes, scores, conf, iou, top_k, max_detections)
                except ValueError as error:
                    raise ValueError(f"{named.name}: {error}") from error
                in_image = clip(frame.invert(kept.boxes), frame.height, frame.width)
                yield Detections(in_image, kept.scores, kept.labels, names, named.image)

    return found()


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
    return resized[0].round_()  # (3, height, width)


def _run(model: Detector, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes (b, a, 4) xyxy px of the input and scores (b, a, k), float32 on the CPU."""
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    if parameter is not None:
        inputs = inputs.to(parameter.device, parameter.dtype)
    with _evaluation_mode(model), torch.inference_mode():
        output = model(inputs)
        boxes, scores = decode(output) if isinstance(output, RawPredictions) else output
    return boxes.float().cpu(), scores.float().cpu()


@contextmanager
def _evaluation_mode(model: Detector) -> Iterator[None]:
    """Eval mode inside; afterwards each module as it was (a model in training may keep some layers in eval mode)."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    training = [module for module in modules if module.training]
    if isinstance(model, nn.Module):
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _names_of(model: Detector, class_names: Sequence[str] | None, num_classes: int) -> list[str]:
    names = class_names if class_names is not None else getattr(model, "class_names", None)
    if names is None:
        return [f"class {label}" for label in range(num_classes)]
    if len(names) != num_classes:
        raise ValueError(f"there are {len(names)} class_names, but the model predicts {num_classes} classes.")
    return list(names)


class Kept(NamedTuple):
    """What is left of one image's predictions, best score first."""

    boxes: Tensor  # (n, 4) xyxy px
    scores: Tensor  # (n,)
    labels: Tensor  # (n,) int64


def postprocess(
    boxes: Tensor,
    scores: Tensor,
    conf: float = 0.25,
    iou: float = 0.7,
    top_k: int = 1024,
    max_detections: int = 300,
) -> Kept:
    """Choose the detections of one image: from boxes (a, 4) xyxy px and scores (a, k) to n <= max_detections of them.

    Every (box, class) pair with score > conf is a candidate, so that one box may get several labels. The top_k best go
    through NMS with threshold iou, class by class; of the survivors the best max_detections stay. Raises ValueError for
    shapes that do not fit together, NaN or infinite numbers, and settings out of range.

    >>> postprocess(torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9]]), torch.tensor([[0.9, 0.1], [0.8, 0.7]])).labels
    tensor([0, 1])
    """
    check_thresholds(conf, iou)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must have shape (a, 4), but has {tuple(boxes.shape)}.")
    if scores.ndim != 2 or len(scores) != len(boxes):
        raise ValueError(f"scores must have shape ({len(boxes)}, k), one row per box, but has {tuple(scores.shape)}.")
    if top_k < 1 or max_detections < 1:
        raise ValueError(f"top_k ({top_k}) and max_detections ({max_detections}) must be at least 1.")
    for name, values in (("scores", scores), ("boxes", boxes)):
        if not torch.isfinite(values).all():
            raise ValueError(f"the predicted {name} contain NaN or infinite numbers; check the weights of the model.")
    num_classes = scores.shape[1]
    pairs = _best_pairs(scores.flatten(), conf, top_k)  # (at most top_k,), each box · k + class
    boxes = boxes[pairs // num_classes]  # (at most top_k, 4)
    scores = scores.flatten()[pairs]
    labels = pairs % num_classes
    keep = batched_nms(boxes, scores, labels, iou)[:max_detections]  # (n,)
    return Kept(boxes[keep], scores[keep], labels[keep])


def _best_pairs(scores: Tensor, conf: float, top_k: int) -> Tensor:
    """Indices of the top_k best of scores (a·k,) above conf, best first; of equal scores the earlier goes first.

    Plainly `torch.sort(scores, descending=True, stable=True)`, cut where conf or top_k ends it. Most scores are far too
    small to matter, so only those that can be among the best are sorted.
    """
    candidates = (scores > conf).nonzero().squeeze(1)
    if len(candidates) > top_k:
        worst = torch.topk(scores, top_k, sorted=False).values.min()  # all above conf, for more than top_k scores are
        candidates = (scores >= worst).nonzero().squeeze(1)  # with all that equal the worst: the sort picks among them
    order = torch.sort(scores[candidates], descending=True, stable=True).indices
    return candidates[order[:top_k]]


def check_thresholds(conf: float, iou: float) -> None:
    """Raise ValueError unless the score threshold conf and the IoU threshold iou lie in [0, 1]."""
    for name, value in (("conf", conf), ("iou", iou)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must lie in [0, 1], but is {value}.")
