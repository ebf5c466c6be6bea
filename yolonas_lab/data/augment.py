"""Augmentation: random changes of a training image that its boxes follow exactly. Notebook 06 shows each one.

Every transform takes an image with its objects (`LabeledImage`) and a random generator, and returns another one
(pixels that did not change may be shared with the input). A map is a (3, 3) float64 matrix from pixels of the source to
pixels of the result; pixels are squares, the first one covers 0 … 1, as in box coordinates. Mosaic: Bochkovskiy et al.,
2004.10934; mixup: Zhang et al., 1710.09412.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np

from yolonas_lab.boxes import letterbox
from yolonas_lab.data.coco import Sample


@dataclass(frozen=True)
class Augmentation:
    """How training images are changed at random; the presets are `none()`, `lab()` and `coco()`.

    Probabilities are named after what they switch on: hsv, channel_swap, flip, mosaic, mixup.
    """

    translate: float = 0.0  # up to this fraction of the side, left or right, up or down
    scale: tuple[float, float] = (1.0, 1.0)  # smallest and largest factor
    rotation: float = 0.0  # up to this many degrees, either way
    channel_swap: float = 0.0  # probability that red and blue change places
    hsv: float = 0.0  # probability of a change of color: each of the next three then takes part with probability 1/2
    hue: float = 0.0  # up to this many degrees, either way
    saturation: float = 0.0  # up to this many of 255 levels, either way
    value: float = 0.0  # up to this many of 255 levels, either way
    flip: float = 0.0  # probability of left-right
    mosaic: float = 0.0  # probability that three other images are put around this one
    mixup: float = 0.0  # probability that another image is blended in, half and half
    pad_value: int = 114  # 0 … 255, where no image is
    min_visible: float = 0.1  # a box of which less is left in the picture is dropped
    min_side: float = 2.0  # px; a moved box that is narrower or lower is dropped

    @staticmethod
    def none() -> "Augmentation":
        """Images are fitted into the network's square, nothing else."""
        return Augmentation()

    @staticmethod
    def lab() -> "Augmentation":
        """For small generated scenes: gentle, upright (a turned box is no longer tight), colors nearly kept."""
        return Augmentation(translate=0.1, scale=(0.8, 1.25), hsv=0.5, hue=10, saturation=30, value=30, flip=0.5)

    @staticmethod
    def coco() -> "Augmentation":
        """The published COCO recipe (super-gradients 3.7.1), but for images scaled about their center, not a corner."""
        return Augmentation(
            translate=0.25, scale=(0.5, 1.5), channel_swap=0.5, hsv=0.5, hue=36, saturation=30, value=30, flip=0.5,
            mixup=0.5,
        )  # fmt: skip

    def __post_init__(self) -> None:
        for name in ("channel_swap", "hsv", "flip", "mosaic", "mixup"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give a number from 0 to 1.")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] < math.inf:
            raise ValueError(f"scale is {self.scale}: give the smallest and the largest factor, such as (0.5, 1.5).")


def fit(height: int, width: int, size: int) -> np.ndarray:
    """The map that fits an image of height x width px into a square of size px and centers it, as prediction does."""
    frame = letterbox(height, width, size, pad="center")
    return np.array([[frame.scale, 0, frame.pad_left], [0, frame.scale, frame.pad_top], [0, 0, 1]], dtype=np.float64)


def about_center(size: float, scale: float, rotation: float, shift_x: float, shift_y: float) -> np.ndarray:
    """Scale and turn (degrees, clockwise as seen) a square of size px about its center, then shift it (px)."""
    cosine, sine = scale * math.cos(math.radians(rotation)), scale * math.sin(math.radians(rotation))
    c = size / 2
    to_x, to_y = c - cosine * c + sine * c + shift_x, c - sine * c - cosine * c + shift_y
    return np.array([[cosine, -sine, to_x], [sine, cosine, to_y], [0, 0, 1]])


def warp_image(image: np.ndarray, matrix: np.ndarray, size: int, pad_value: int) -> np.ndarray:
    """The image (h, w, 3) uint8 moved by matrix, cut to (size, size, 3); bilinear, pad_value where nothing lands."""
    from PIL import Image

    if image.shape[:2] == (size, size) and np.array_equal(matrix, np.eye(3)):
        return image
    back = np.linalg.inv(matrix)  # Pillow asks where each pixel of the result comes from
    rows, bilinear, pad = tuple(back[:2].ravel()), Image.Resampling.BILINEAR, (pad_value,) * 3
    moved = Image.fromarray(image).transform((size, size), Image.Transform.AFFINE, rows, bilinear, fillcolor=pad)
    return np.asarray(moved)


def warp_boxes(boxes: np.ndarray, matrix: np.ndarray, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (n, 4) xyxy px moved by matrix and cut to a square of size px, and the share (n,) of each that is left.

    The result is the smallest upright box around the part of the moved rectangle that is inside the square; the share
    compares its area with that of the uncut one. A box that left the square entirely becomes (0, 0, 0, 0), share 0.
    """
    x1, y1, x2, y2 = boxes.astype(np.float64).T  # (n,) each
    corners = np.stack([x1, y1, x2, y1, x2, y2, x1, y2], axis=1).reshape(-1, 4, 2)  # (n, 4, 2) around the box
    corners = corners @ matrix[:2, :2].T + matrix[:2, 2]
    low, high = corners.min(axis=1), corners.max(axis=1)  # (n, 2) each
    whole = (high - low).prod(axis=1)
    if matrix[0, 1] or matrix[1, 0]:  # turned: cut the slanted rectangle, not the upright box around it
        low, high = _cut(corners, boxes, matrix, size)
    else:
        low, high = low.clip(0, size), high.clip(0, size)
    left = (high - low).prod(axis=1)
    share = np.divide(left, whole, out=np.zeros_like(left), where=whole > 0)
    return np.concatenate([low, high], axis=1).astype(np.float32), share


def _cut(corners: np.ndarray, boxes: np.ndarray, matrix: np.ndarray, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest point (n, 2) px of each slanted rectangle (corners (n, 4, 2)) within the square of size px.

    Extreme points of the cut shape lie where an edge starts, ends or crosses the border (Liang-Barsky), or are corners
    of the square that the rectangle covers.
    """
    direction = np.roll(corners, -1, axis=1) - corners  # (n, 4, 2) along each edge
    direction = np.where(np.abs(direction) < 1e-9, 1e-9, direction)
    first, second = -corners / direction, (size - corners) / direction
    enter = np.minimum(first, second).max(axis=2).clip(min=0)[..., None]  # (n, 4, 1) where on the edge, 0 … 1
    leave = np.maximum(first, second).min(axis=2).clip(max=1)[..., None]
    on_edges = np.concatenate([corners + enter * direction, corners + leave * direction], axis=1)  # (n, 8, 2)
    crosses = np.tile(enter <= leave, (1, 2, 1))  # (n, 8, 1)
    square = np.array([[0, 0], [size, 0], [size, size], [0, size]], dtype=np.float64)  # (4, 2)
    source = (square - matrix[:2, 2]) @ np.linalg.inv(matrix[:2, :2]).T
    inside = (source >= boxes[:, None, :2]) & (source <= boxes[:, None, 2:])  # (n, 4, 2)
    covered = np.all(inside, axis=2, keepdims=True)  # (n, 4, 1)
    points = np.concatenate([on_edges, np.broadcast_to(square, (len(boxes), 4, 2))], axis=1)  # (n, 12, 2)
    counts = np.concatenate([crosses, covered], axis=1)
    low = np.where(counts, points, np.inf).min(axis=1)
    high = np.where(counts, points, -np.inf).max(axis=1)
    outside = (low > high).any(axis=1, keepdims=True)
    return np.where(outside, 0, low).clip(0, size), np.where(outside, 0, high).clip(0, size)


class Samples(Protocol):
    """A data set: its length, and samples by number (CocoDataset, or a list of Sample)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


class LabeledImage(NamedTuple):
    """An image and the objects in it."""

    image: np.ndarray  # (h, w, 3) uint8 RGB
    boxes: np.ndarray  # (n, 4) float32 xyxy px
    labels: np.ndarray  # (n,) int64
    weights: np.ndarray  # (n,) float32 in (0, 1]: how much each object counts


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

    def another() -> LabeledImage:
        return objects_of(dataset[int(rng.integers(len(dataset)))])

    def placed(item: LabeledImage) -> LabeledImage:
        return random_affine(item, rng, a, image_size, fit(item.image.shape[0], item.image.shape[1], image_size))

    if a.mosaic and rng.random() < a.mosaic:
        canvas = mosaic([objects_of(sample), another(), another(), another()], rng, image_size, a)
        middle = np.array([[1.0, 0, -image_size / 2], [0, 1, -image_size / 2], [0, 0, 1]])  # of the canvas
        item = random_affine(canvas, rng, a, image_size, middle)
    else:
        item = placed(objects_of(sample))
    if rng.random() < a.channel_swap:
        item = item._replace(image=item.image[:, :, ::-1])
    if rng.random() < a.hsv:
        shifts = rng.uniform(-1, 1, 3) * [a.hue, a.saturation, a.value] * rng.integers(0, 2, 3)
        if shifts.any():
            item = item._replace(image=shift_hsv(item.image, *shifts))
    item = random_flip(item, rng, a.flip)
    if a.mixup and rng.random() < a.mixup:
        item = mixup(item, random_flip(placed(another()), rng, a.flip))
    return item


def objects_of(sample: Sample) -> LabeledImage:
    """The image of a sample with its single objects, without crowds."""
    single = ~sample.crowd
    return LabeledImage(sample.image, sample.boxes[single], sample.labels[single], sample.weights[single])


def random_affine(
    item: LabeledImage, rng: np.random.Generator, augmentation: Augmentation, size: int, place: np.ndarray
) -> LabeledImage:
    """The image placed in a square of size px by the map `place` (3, 3), then scaled, turned and shifted in it.

    Both in one step, so that pixels are interpolated once. Drops boxes as `min_visible` and `min_side` say; without
    any scale, rotation and shift nothing is dropped but what lies outside entirely.
    """
    a, matrix = augmentation, place
    moves = a.scale != (1.0, 1.0) or a.rotation > 0 or a.translate > 0
    if moves:
        scale, rotation = rng.uniform(*a.scale), rng.uniform(-a.rotation, a.rotation)
        shift = rng.uniform(-a.translate, a.translate, 2) * size
        matrix = about_center(size, scale, rotation, *shift) @ place
    image = warp_image(item.image, matrix, size, a.pad_value)
    return _moved(item, image, matrix, size, a if moves else replace(a, min_visible=0, min_side=0))


def _moved(item: LabeledImage, image: np.ndarray, matrix: np.ndarray, size: int, a: Augmentation) -> LabeledImage:
    """The objects of `item` moved by matrix within `image` of size px, those of which enough is left."""
    boxes, visible = warp_boxes(item.boxes, matrix, size)
    large = (boxes[:, 2:] - boxes[:, :2] >= a.min_side).all(axis=1)
    keep = (visible >= a.min_visible) & (visible > 0) & large
    return LabeledImage(image, boxes[keep], item.labels[keep], item.weights[keep])


def shift_hsv(image: np.ndarray, hue: float, saturation: float, value: float) -> np.ndarray:
    """Turn the hue of (h, w, 3) uint8 RGB by degrees; add to saturation and value, levels of 255, cut at 0 and 255."""
    from PIL import Image

    shifts = np.round([hue * 256 / 360, saturation, value]).astype(int)
    table = np.arange(256) + shifts[:, None]  # (3, 256)
    table[0] %= 256  # Pillow's hue goes around in 256 steps
    pixels = Image.fromarray(np.ascontiguousarray(image)).convert("HSV")
    return np.asarray(pixels.point(table.clip(0, 255).ravel().tolist()).convert("RGB"))


def random_flip(item: LabeledImage, rng: np.random.Generator, probability: float) -> LabeledImage:
    """Left and right change places with this probability."""
    if rng.random() < probability:
        return item._replace(image=item.image[:, ::-1], boxes=flip_boxes(item.boxes, item.image.shape[1]))
    return item


def flip_boxes(boxes: np.ndarray, width: float) -> np.ndarray:
    """Boxes (n, 4) xyxy px of an image of this width after left and right changed places.

    >>> flip_boxes(np.array([[10.0, 20, 30, 50]]), width=64).tolist()
    [[34.0, 20.0, 54.0, 50.0]]
    """
    x1, y1, x2, y2 = boxes.T
    return np.stack([width - x2, y1, width - x1, y2], axis=1)


def mosaic(
    tiles: Sequence[LabeledImage], rng: np.random.Generator, size: int, augmentation: Augmentation
) -> LabeledImage:
    """Four images, each fitted into size px, around a random point of a canvas of 2 size px: left top, right top,
    left bottom, right bottom. What reaches over the canvas is cut off; boxes are dropped as `random_affine` does.
    """
    from PIL import Image

    center = rng.integers(size // 2, size + size // 2 + 1, 2)  # x, y px on the canvas
    canvas = Image.new("RGB", (2 * size, 2 * size), (augmentation.pad_value,) * 3)
    moved = []
    for tile, side in zip(tiles, np.array([(0, 0), (1, 0), (0, 1), (1, 1)]), strict=True):
        height, width = tile.image.shape[:2]
        scale = size / max(height, width)
        extent = np.maximum(1, np.round(np.array([width, height]) * scale)).astype(int)  # px on the canvas
        x, y = np.where(side == 1, center, center - extent).tolist()  # left top corner of the whole tile
        pixels = warp_image(tile.image, np.diag([scale, scale, 1]), size, augmentation.pad_value)
        canvas.paste(Image.fromarray(pixels[: extent[1], : extent[0]]), (x, y))
        matrix = np.array([[scale, 0, x], [0, scale, y], [0, 0, 1]])
        moved.append(_moved(tile, tile.image, matrix, 2 * size, augmentation))
    return _together(np.asarray(canvas), *moved)


def mixup(first: LabeledImage, second: LabeledImage) -> LabeledImage:
    """Two images of one size averaged pixel by pixel, with the objects of both."""
    blend = (first.image.astype(np.uint16) + second.image + 1) >> 1
    return _together(blend.astype(np.uint8), first, second)


def _together(image: np.ndarray, *items: LabeledImage) -> LabeledImage:
    """An image with the objects of several, one after the other."""
    boxes, labels, weights = (np.concatenate(parts) for parts in list(zip(*items))[1:])
    return LabeledImage(image, boxes, labels, weights)
