"""Affine maps of an image and, exactly, of its boxes: fit, scale, turn, shift, cut off at the border (notebook 06).

A map is a (3, 3) float64 matrix from pixels of the source to pixels of the result. Pixels are squares: the first one
covers 0 … 1, as in box coordinates.
"""

import math

import numpy as np

from yolonas_lab.boxes import letterbox


def fit(height: int, width: int, size: int) -> np.ndarray:
    """The map that fits an image of height x width px into a square of size px and centers it, as prediction does."""
    frame = letterbox(height, width, size, pad="center")
    return np.array([[frame.scale, 0, frame.pad_left], [0, frame.scale, frame.pad_top], [0, 0, 1]], dtype=np.float64)


def about_center(size: float, scale: float, rotation: float, shift_x: float, shift_y: float) -> np.ndarray:
    """Scale and turn (degrees, clockwise as seen) a square of size px about its center, then shift it (px)."""
    cosine = scale * math.cos(math.radians(rotation)) if rotation else scale
    sine = scale * math.sin(math.radians(rotation)) if rotation else 0.0
    c = size / 2
    return np.array(
        [
            [cosine, -sine, c - cosine * c + sine * c + shift_x],
            [sine, cosine, c - sine * c - cosine * c + shift_y],
            [0, 0, 1],
        ]
    )


def warp_image(image: np.ndarray, matrix: np.ndarray, size: int, pad_value: int) -> np.ndarray:
    """The image (h, w, 3) uint8 moved by matrix, cut to (size, size, 3); bilinear, pad_value where nothing lands."""
    from PIL import Image

    if image.shape[:2] == (size, size) and np.array_equal(matrix, np.eye(3)):
        return image
    back = np.linalg.inv(matrix)  # Pillow asks where each pixel of the result comes from
    moved = Image.fromarray(image).transform(
        (size, size),
        Image.Transform.AFFINE,
        tuple(back[:2].ravel()),
        resample=Image.Resampling.BILINEAR,
        fillcolor=(pad_value,) * 3,
    )
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
