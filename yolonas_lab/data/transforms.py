"""Augmentation: random changes of a training image that its boxes follow exactly. Notebook 06 shows each one.

Every transform takes an image (h, w, 3) uint8 RGB, boxes (n, 4) xyxy px, labels (n,), a random generator and, where
objects have them, weights (n,), and returns an image with its objects (pixels that did not change may be shared with
the input). Mosaic: Bochkovskiy et al., 2004.10934; mixup: Zhang et al., 1710.09412.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from yolonas_lab.data.augmentation import Augmentation
from yolonas_lab.data.coco import Sample
from yolonas_lab.data.warp import about_center, fit, warp_boxes, warp_image


class Samples(Protocol):
    """A data set: its length, and samples by number (CocoDataset, or a list of Sample)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


class LabeledImage(NamedTuple):
    """An image and the objects in it."""

    image: np.ndarray  # (h, w, 3) uint8 RGB
    boxes: np.ndarray  # (n, 4) float32 xyxy px
    labels: np.ndarray  # (n,) int64
    weights: np.ndarray | None = None  # (n,) float32 in (0, 1]: how far to trust each object; None: fully


def augment(
    sample: Sample, augmentation: Augmentation, image_size: int, rng: np.random.Generator, dataset: Samples = ()
) -> LabeledImage:
    """A training example of image_size x image_size px from a sample, in the published order.

    Mosaic, affine, channel swap, color, flip, mixup; dataset is where mosaic and mixup find other images. Boxes that
    mark crowds are left out. Raises ValueError where other images are needed and dataset is empty.
    """
    a = augmentation
    if (a.mosaic or a.mixup) and not len(dataset):
        raise ValueError("mosaic and mixup need other images: pass the data set they are to come from.")
    if a.mosaic and rng.random() < a.mosaic:
        tiles = [objects_of(sample), *(_another(dataset, rng) for _ in range(3))]
        canvas = mosaic(tiles, rng, image_size, a)
        item = random_affine(*canvas[:3], rng, a, image_size, middle(image_size), canvas.weights)
    else:
        item = _placed(objects_of(sample), rng, a, image_size)
    item = random_channel_swap(*item[:3], rng, a.channel_swap, item.weights)
    item = random_hsv(*item[:3], rng, a, item.weights)
    item = random_flip(*item[:3], rng, a.flip, item.weights)
    if a.mixup and rng.random() < a.mixup:
        other = _placed(_another(dataset, rng), rng, a, image_size)
        item = mixup(item, random_flip(*other[:3], rng, a.flip, other.weights))
    return item


def objects_of(sample: Sample) -> LabeledImage:
    """The image of a sample with its single objects, without crowds."""
    if not sample.crowd.any():
        return LabeledImage(sample.image, sample.boxes, sample.labels, sample.weights)
    single = ~sample.crowd
    return LabeledImage(sample.image, sample.boxes[single], sample.labels[single], _rows(sample.weights, single))


def _rows(weights: np.ndarray | None, keep: np.ndarray) -> np.ndarray | None:
    return None if weights is None else weights[keep]


def _another(dataset: Samples, rng: np.random.Generator) -> LabeledImage:
    return objects_of(dataset[int(rng.integers(len(dataset)))])


def _placed(item: LabeledImage, rng: np.random.Generator, augmentation: Augmentation, size: int) -> LabeledImage:
    height, width = item.image.shape[:2]
    return random_affine(*item[:3], rng, augmentation, size, fit(height, width, size), item.weights)


def random_affine(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    augmentation: Augmentation,
    size: int,
    place: np.ndarray,
    weights: np.ndarray | None = None,
) -> LabeledImage:
    """The image placed in a square of size px by the map `place` (3, 3), then scaled, turned and shifted in it.

    Both in one step, so that pixels are interpolated once. Drops boxes as `min_visible` and `min_side` say; without
    any scale, rotation and shift nothing is dropped but what lies outside entirely.
    """
    a = augmentation
    moves = a.scale != (1.0, 1.0) or a.rotation > 0 or a.translate > 0
    matrix = place
    if moves:
        scale, rotation = rng.uniform(*a.scale), rng.uniform(-a.rotation, a.rotation)
        shift = rng.uniform(-a.translate, a.translate, 2) * size
        matrix = about_center(size, scale, rotation, *shift) @ place
    moved, visible = warp_boxes(boxes, matrix, size)
    keep = large_enough(moved, visible, a) if moves else visible > 0
    return LabeledImage(warp_image(image, matrix, size, a.pad_value), moved[keep], labels[keep], _rows(weights, keep))


def large_enough(boxes: np.ndarray, visible: np.ndarray, augmentation: Augmentation) -> np.ndarray:
    """Which boxes (n, 4) px with these visible shares (n,) stay: (n,) bool."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return (visible >= augmentation.min_visible) & (visible > 0) & (sides >= augmentation.min_side).all(axis=1)


def random_channel_swap(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    probability: float,
    weights: np.ndarray | None = None,
) -> LabeledImage:
    """Red and blue change places with this probability."""
    return LabeledImage(image[:, :, ::-1] if rng.random() < probability else image, boxes, labels, weights)


def random_hsv(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    augmentation: Augmentation,
    weights: np.ndarray | None = None,
) -> LabeledImage:
    """With probability `augmentation.hsv`, shift hue, saturation and value, each with probability 1/2."""
    a = augmentation
    if rng.random() < a.hsv:
        shifts = rng.uniform(-1, 1, 3) * [a.hue, a.saturation, a.value] * rng.integers(0, 2, 3)
        if shifts.any():
            image = shift_hsv(image, *shifts)
    return LabeledImage(image, boxes, labels, weights)


def shift_hsv(image: np.ndarray, hue: float, saturation: float, value: float) -> np.ndarray:
    """Turn the hue of (h, w, 3) uint8 RGB by degrees; add to saturation and value, levels of 255, cut at 0 and 255."""
    from PIL import Image

    levels = np.arange(256)
    table = [
        (levels + round(hue * 256 / 360)) % 256,  # Pillow's hue goes around in 256 steps
        (levels + round(saturation)).clip(0, 255),
        (levels + round(value)).clip(0, 255),
    ]
    pixels = Image.fromarray(np.ascontiguousarray(image)).convert("HSV")
    return np.asarray(pixels.point(np.concatenate(table).tolist()).convert("RGB"))


def random_flip(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    probability: float,
    weights: np.ndarray | None = None,
) -> LabeledImage:
    """Left and right change places with this probability."""
    if rng.random() < probability:
        image, boxes = image[:, ::-1], flip_boxes(boxes, image.shape[1])
    return LabeledImage(image, boxes, labels, weights)


def flip_boxes(boxes: np.ndarray, width: float) -> np.ndarray:
    """Boxes (n, 4) xyxy px of an image of this width after left and right changed places."""
    x1, y1, x2, y2 = boxes.T
    return np.stack([width - x2, y1, width - x1, y2], axis=1)


def mosaic(
    tiles: Sequence[LabeledImage], rng: np.random.Generator, size: int, augmentation: Augmentation
) -> LabeledImage:
    """Four images, each fitted into size px, around a random point of a canvas of 2 size px: left top, right top,
    left bottom, right bottom. What reaches over the canvas is cut off; boxes are dropped as `random_affine` does.
    """
    if len(tiles) != 4:
        raise ValueError(f"a mosaic takes 4 images, but {len(tiles)} were given.")
    center = rng.integers(size // 2, size + size // 2 + 1, 2)  # x, y px on the canvas
    canvas = np.full((2 * size, 2 * size, 3), augmentation.pad_value, dtype=np.uint8)
    moved_tiles = []
    for tile, side in zip(tiles, np.array([(0, 0), (1, 0), (0, 1), (1, 1)])):
        height, width = tile.image.shape[:2]
        scale = size / max(height, width)
        extent = np.maximum(1, np.round(np.array([width, height]) * scale)).astype(int)  # px on the canvas
        corner = np.where(side == 1, center, center - extent)  # of the whole tile
        matrix = np.array([[scale, 0, 0], [0, scale, 0], [0, 0, 1]])
        pixels = warp_image(tile.image, matrix, size, augmentation.pad_value)
        low, high = np.maximum(corner, 0), np.minimum(corner + extent, 2 * size)
        (x1, y1), (x2, y2) = low, high
        (u1, v1), (u2, v2) = low - corner, high - corner
        canvas[y1:y2, x1:x2] = pixels[v1:v2, u1:u2]
        matrix[:2, 2] = corner
        moved, visible = warp_boxes(tile.boxes, matrix, 2 * size)
        keep = large_enough(moved, visible, augmentation)
        moved_tiles.append(LabeledImage(canvas, moved[keep], tile.labels[keep], _rows(tile.weights, keep)))
    return LabeledImage(canvas, *_objects_together(*moved_tiles))


def middle(size: int) -> np.ndarray:
    """The map (3, 3) that takes the middle size x size px out of a canvas of 2 size px."""
    return np.array([[1.0, 0, -size / 2], [0, 1, -size / 2], [0, 0, 1]])


def mixup(first: LabeledImage, second: LabeledImage) -> LabeledImage:
    """Two images of one size averaged pixel by pixel, with the objects of both."""
    blend = (first.image.astype(np.uint16) + second.image + 1) >> 1
    return LabeledImage(blend.astype(np.uint8), *_objects_together(first, second))


def _objects_together(*items: LabeledImage) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Boxes, labels and weights of several images, one image after the other; None where none has weights."""
    boxes, labels = np.concatenate([i.boxes for i in items]), np.concatenate([i.labels for i in items])
    if all(item.weights is None for item in items):
        return boxes, labels, None
    weights = [np.ones(len(i.labels), np.float32) if i.weights is None else i.weights for i in items]
    return boxes, labels, np.concatenate(weights)
