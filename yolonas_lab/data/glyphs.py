"""Masks of characters and simple shapes, how they are laid on an image, and what stays visible of each (notebook 00).

Everything is equal on every machine: a shape is drawn once, large; each use takes a whole-number reduction of it and
one affine map whose coefficients are multiples of 1/4096, so that their products are exact in double precision.
Masks are laid on an image in whole numbers. A box is tight around the pixels that later stamps leave visible.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

SHAPES = ("disc", "ring", "bar", "triangle", "square")  # drawn by us; everything else is a character of the font
VISIBLE = 128  # a pixel belongs to an object when at least this much (of 255) of it shows the object
_MASTER_SIZE = 640  # px, font size of the large drawing
_GRID = 4096  # affine coefficients are multiples of 1 / _GRID


def _font_path() -> str:
    """The DejaVu Sans that ships with matplotlib."""
    import matplotlib

    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


def require_characters(characters: str) -> None:
    """Raise ValueError naming every character that the font cannot draw."""
    from matplotlib.ft2font import FT2Font

    font = FT2Font(_font_path())
    missing = [char for char in characters if font.get_char_index(ord(char)) == 0]
    if missing:
        listed = ", ".join(f"'{char}' (U+{ord(char):04X})" for char in missing)
        raise ValueError(f"DejaVu Sans has no drawing for {listed}: choose other characters for these classes.")


@lru_cache(maxsize=256)
def _master(shape: str) -> "Image.Image":
    """The large drawing of a shape or character, cropped to its ink."""
    from PIL import Image, ImageDraw, ImageFont

    side = _MASTER_SIZE
    image = Image.new("L", (2 * side, 2 * side), 0)
    draw = ImageDraw.Draw(image)
    if shape == "disc":
        draw.ellipse((0, 0, side - 1, side - 1), fill=255)
    elif shape == "ring":
        draw.ellipse((0, 0, side - 1, side - 1), outline=255, width=side // 7)
    elif shape == "bar":
        draw.rounded_rectangle((0, 0, side - 1, side // 14), radius=side // 28, fill=255)
    elif shape == "triangle":
        draw.polygon([(side // 2, 0), (side - 1, side * 7 // 8), (0, side * 7 // 8)], fill=255)
    elif shape == "square":
        draw.rounded_rectangle((0, 0, side - 1, side - 1), radius=side // 6, fill=255)
    else:
        font = ImageFont.truetype(_font_path(), side, layout_engine=ImageFont.Layout.BASIC)
        draw.text((side // 2, side // 4), shape, font=font, fill=255)
    return image.crop(image.getbbox())


@lru_cache(maxsize=4096)
def _reduced(shape: str, factor: int) -> "Image.Image":
    """The large drawing reduced `factor` times (box average), with two empty pixels around it."""
    from PIL import ImageOps

    return ImageOps.expand(ImageOps.expand(_master(shape), border=factor // 2).reduce(factor), border=2)


def shape_mask(shape: str, size: float, angle: float = 0.0, tilt: float = 0.0, softness: float = 0.0) -> np.ndarray:
    """Coverage of a shape or character as uint8 (h, w), 255 where it covers the pixel, with an empty rim.

    size: longest side of the unrotated ink in pixels; angle: degrees counter-clockwise; tilt: horizontal shear;
    softness: blur as a fraction of `size` (0 sharp).
    """
    from PIL import Image

    longest = max(_master(shape).size)
    factor = max(1, int(max(longest / size, softness * longest)))  # master pixels in one pixel of the reduced drawing
    level = _reduced(shape, factor)
    step = longest / factor / size  # reduced pixels in one output pixel
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    # output -> input: undo the shear, then the rotation
    exact = (step * (cos - sin * tilt), step * (-sin - cos * tilt), step * sin, step * cos)
    a, b, d, e = (round(coefficient * _GRID) / _GRID for coefficient in exact)
    determinant = a * e - b * d
    in_w, in_h = level.size
    width = 2 * math.ceil((abs(e) * in_w + abs(b) * in_h) / abs(determinant) / 2)
    height = 2 * math.ceil((abs(d) * in_w + abs(a) * in_h) / abs(determinant) / 2)
    c = in_w / 2 - a * (width / 2) - b * (height / 2)
    f = in_h / 2 - d * (width / 2) - e * (height / 2)
    out = level.transform((width, height), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR)
    return np.asarray(out)


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
        canvas[rows, columns] = under + ((ink - under) * alpha + 32640) // 65280  # rounded to nearest


def visible_box(stamps: Sequence[Stamp], index: int, side: int) -> tuple[tuple[int, int, int, int], int]:
    """Tight xyxy box around what shows of stamp `index` in an image of side px, and its number of visible pixels.

    A stamp that is fully hidden has the box (0, 0, 0, 0) and 0 pixels.
    """
    stamp = stamps[index]
    height, width = stamp.mask.shape
    coverage = np.zeros((height, width), dtype=np.int32)  # of 255: how much of every pixel of the mask shows the stamp
    inside = _span(height, stamp.y, side)[1], _span(width, stamp.x, side)[1]
    coverage[inside] = stamp.mask[inside]
    for later in stamps[index + 1 :]:
        if later.opacity < 256:
            continue
        rows, later_rows = _span(later.mask.shape[0], later.y - stamp.y, height)
        columns, later_columns = _span(later.mask.shape[1], later.x - stamp.x, width)
        left = 255 - later.mask[later_rows, later_columns].astype(np.int32)
        coverage[rows, columns] = (coverage[rows, columns] * left + 127) // 255
    visible = coverage >= VISIBLE
    if not visible.any():
        return (0, 0, 0, 0), 0
    rows, columns = np.flatnonzero(visible.any(axis=1)) + stamp.y, np.flatnonzero(visible.any(axis=0)) + stamp.x
    box = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    return box, int(np.count_nonzero(visible))
