"""Laying masks on an image, and finding what stays visible of each: the boxes of the generated scenes.

A box is tight around the pixels of its object that later stamps leave visible, as an annotator would draw it.
Whole-number arithmetic only, so that every machine paints the same bytes. Background for notebook 00.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

VISIBLE = 128  # a pixel belongs to an object when at least this much (of 255) of it shows the object


@dataclass(frozen=True, eq=False)
class Stamp:
    """A mask (uint8, h x w) laid at column x, row y in two colors, top to bottom; label is -1 for decoration.

    opacity is of 256; only a stamp of opacity 256 hides what lies under it, others tint it.
    """

    mask: np.ndarray
    x: int
    y: int
    top: tuple[int, int, int]
    bottom: tuple[int, int, int]
    opacity: int
    label: int


def _span(length: int, start: int, limit: int) -> tuple[slice, slice]:
    """Part of [start, start + length) within [0, limit): as a slice of the limit, and as a slice of the length."""
    low = min(limit, max(0, start))
    high = max(low, min(limit, start + length))
    return slice(low, high), slice(low - start, high - start)


def paint(canvas: np.ndarray, stamps: Sequence[Stamp]) -> None:
    """Lay the stamps on the canvas (h, w, 3) uint8, in order, in place; what reaches outside is cut off."""
    for stamp in stamps:
        height, width = stamp.mask.shape
        rows, mask_rows = _span(height, stamp.y, canvas.shape[0])
        columns, mask_columns = _span(width, stamp.x, canvas.shape[1])
        alpha = stamp.mask[mask_rows, mask_columns].astype(np.int32)[:, :, None] * stamp.opacity  # of 255 * 256
        shade = (np.arange(height, dtype=np.int32) * 256 // max(1, height - 1))[mask_rows, None]  # (h, 1) downwards
        top, bottom = np.array(stamp.top, dtype=np.int32), np.array(stamp.bottom, dtype=np.int32)
        ink = (top + ((bottom - top) * shade >> 8))[:, None]  # (h, 1, 3)
        under = canvas[rows, columns].astype(np.int32)  # (h, w, 3)
        canvas[rows, columns] = under + ((ink - under) * alpha + 32640) // 65280


def visible_coverage(stamps: Sequence[Stamp], index: int, side: int) -> np.ndarray:
    """How much of every pixel of stamp `index` still shows it under the later stamps: uint8, the shape of its mask.

    side: height and width of the image in pixels; what lies outside is not visible.
    """
    stamp = stamps[index]
    coverage = np.zeros(stamp.mask.shape, dtype=np.int32)
    inside = _span(stamp.mask.shape[0], stamp.y, side)[1], _span(stamp.mask.shape[1], stamp.x, side)[1]
    coverage[inside] = stamp.mask[inside]
    for later in stamps[index + 1 :]:
        if later.opacity < 256:
            continue
        rows, later_rows = _span(later.mask.shape[0], later.y - stamp.y, stamp.mask.shape[0])
        columns, later_columns = _span(later.mask.shape[1], later.x - stamp.x, stamp.mask.shape[1])
        left = 255 - later.mask[later_rows, later_columns].astype(np.int32)
        coverage[rows, columns] = (coverage[rows, columns] * left + 127) // 255
    return coverage.astype(np.uint8)


def visible_box(stamps: Sequence[Stamp], index: int, side: int) -> tuple[tuple[int, int, int, int], int]:
    """Tight xyxy box in image pixels around what shows of stamp `index`, and its number of visible pixels.

    A stamp that is fully hidden has the box (0, 0, 0, 0) and 0 pixels.
    """
    visible = visible_coverage(stamps, index, side) >= VISIBLE
    count = int(np.count_nonzero(visible))
    if count == 0:
        return (0, 0, 0, 0), 0
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    x, y = stamps[index].x, stamps[index].y
    return (x + int(columns[0]), y + int(rows[0]), x + int(columns[-1]) + 1, y + int(rows[-1]) + 1), count
