"""Masks of characters and simple shapes, at any size and angle, fast and equal on every machine.

A shape is drawn once, large; each use picks a whole-number reduction of it (integer arithmetic) and one affine
transform whose coefficients are multiples of 1/4096, so that all its products are exact in double precision.
Background for the generated scenes of notebook 00.
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


MASTER_SIZE = 640  # font size in pixels of the large drawing
SHAPES = ("disc", "ring", "bar", "triangle", "square")  # drawn by us; everything else is a character of the font
_GRID = 4096  # affine coefficients are multiples of 1 / _GRID


@lru_cache(maxsize=1)
def font_path() -> Path:
    """The DejaVu Sans that ships with matplotlib; raises FileNotFoundError if this installation lacks it."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    if not path.is_file():
        raise FileNotFoundError(
            f"The font {path} is missing: reinstall it with 'pip install --force-reinstall matplotlib'."
        )
    return path


def require_characters(characters: str) -> None:
    """Raise ValueError naming every character that the font cannot draw."""
    from matplotlib.ft2font import FT2Font

    font = FT2Font(str(font_path()))
    missing = [char for char in characters if font.get_char_index(ord(char)) == 0]
    if missing:
        listed = ", ".join(f"'{char}' (U+{ord(char):04X})" for char in missing)
        raise ValueError(f"DejaVu Sans has no drawing for {listed}: choose other characters for these classes.")


def _draw_shape(name: str) -> "Image.Image":
    from PIL import Image, ImageDraw

    side = MASTER_SIZE
    image = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(image)
    if name == "disc":
        draw.ellipse((0, 0, side - 1, side - 1), fill=255)
    elif name == "ring":
        draw.ellipse((0, 0, side - 1, side - 1), outline=255, width=side // 7)
    elif name == "bar":
        draw.rounded_rectangle((0, 0, side - 1, side // 14), radius=side // 28, fill=255)
    elif name == "triangle":
        draw.polygon([(side // 2, 0), (side - 1, side * 7 // 8), (0, side * 7 // 8)], fill=255)
    else:
        draw.rounded_rectangle((0, 0, side - 1, side - 1), radius=side // 6, fill=255)
    return image


def _draw_character(character: str) -> "Image.Image":
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.truetype(str(font_path()), MASTER_SIZE, layout_engine=ImageFont.Layout.BASIC)
    image = Image.new("L", (2 * MASTER_SIZE, 2 * MASTER_SIZE), 0)
    ImageDraw.Draw(image).text((MASTER_SIZE // 2, MASTER_SIZE // 4), character, font=font, fill=255)
    return image


@lru_cache(maxsize=256)
def _master(shape: str) -> "Image.Image":
    """The large drawing, cropped to its ink."""
    image = _draw_shape(shape) if shape in SHAPES else _draw_character(shape)
    ink = image.getbbox()
    if ink is None:
        raise ValueError(f"The character '{shape}' draws nothing: choose a visible one.")
    return image.crop(ink)


@lru_cache(maxsize=4096)
def _reduced(shape: str, factor: int) -> "Image.Image":
    """The large drawing reduced `factor` times (box average), with two empty pixels around it."""
    from PIL import ImageOps

    return ImageOps.expand(ImageOps.expand(_master(shape), border=factor // 2).reduce(factor), border=2)


def _on_grid(value: float) -> float:
    return round(value * _GRID) / _GRID


def shape_mask(shape: str, size: float, angle: float = 0.0, tilt: float = 0.0, softness: float = 0.0) -> np.ndarray:
    """Coverage of a shape or character as uint8 (h, w), 255 where it covers the pixel, with an empty rim.

    size: longest side of the unrotated ink in pixels; angle: degrees counter-clockwise; tilt: horizontal shear;
    softness: blur as a fraction of `size` (0 sharp).
    """
    from PIL import Image

    master = _master(shape)
    longest = max(master.size)
    cell = max(longest / size, softness * longest)  # master pixels in one pixel of the reduced drawing
    level = _reduced(shape, max(1, int(cell)))
    step = longest / max(1, int(cell)) / size  # reduced pixels in one output pixel
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    # output -> input: undo the shear, then the rotation
    a, b = _on_grid(step * (cos - sin * tilt)), _on_grid(step * (-sin - cos * tilt))
    d, e = _on_grid(step * sin), _on_grid(step * cos)
    determinant = a * e - b * d
    in_w, in_h = level.size
    width = 2 * math.ceil((abs(e) * in_w + abs(b) * in_h) / abs(determinant) / 2)
    height = 2 * math.ceil((abs(d) * in_w + abs(a) * in_h) / abs(determinant) / 2)
    c = in_w / 2 - a * (width / 2) - b * (height / 2)
    f = in_h / 2 - d * (width / 2) - e * (height / 2)
    out = level.transform((width, height), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR)
    return np.asarray(out)


# Laying masks on an image, and finding what stays visible of each: the boxes of the generated scenes.
#
# A box is tight around the pixels of its object that later stamps leave visible, as an annotator would draw it.
# Whole-number arithmetic only, so that every machine paints the same bytes. Background for notebook 00.

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
