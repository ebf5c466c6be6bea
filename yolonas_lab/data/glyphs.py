"""Masks of characters and simple shapes, at any size and angle, fast and equal on every machine.

A shape is drawn once, large; each use picks a whole-number reduction of it (integer arithmetic) and one affine
transform whose coefficients are multiples of 1/4096, so that all its products are exact in double precision.
Background for the generated scenes of notebook 00.
"""

import math
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
