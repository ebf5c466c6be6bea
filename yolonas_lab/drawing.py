"""Boxes with names on a picture: straight into the pixels with Pillow, or as artists on a matplotlib axis.

Used by `Detections` from notebook 00 on. Each class keeps one color, whatever else is in the picture.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

# The first classes get colors that stay apart under color blindness (after Okabe and Ito, "Color Universal Design").
CLASS_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#7D5BBE", "#A3A500")
GOLDEN_RATIO = 0.618034  # further classes: steps of this share of the color wheel never come back to a color used


def class_color(label: int) -> tuple[int, int, int]:
    """The color (red, green, blue), each 0 … 255, in which boxes of class `label` are drawn."""
    if label < len(CLASS_COLORS):
        red, green, blue = bytes.fromhex(CLASS_COLORS[label][1:])
        return red, green, blue
    hue = (0.02 + label * GOLDEN_RATIO) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, (1.0, 0.75)[label // 8 % 2])
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_on_pixels(
    image: np.ndarray, boxes: np.ndarray, labels: Sequence[int], texts: Sequence[str], scale: int = 1
) -> Image.Image:
    """A Pillow copy of image (h, w, 3) uint8 RGB, enlarged scale times, with boxes (n, 4) xyxy px and their texts."""
    from PIL import Image, ImageDraw

    picture = Image.fromarray(image)
    if scale != 1:
        picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(picture)
    longest = max(picture.size)
    line, font = max(1, round(longest / 300)), _font(max(9, round(longest / 40)))
    for box, label in zip(boxes * scale, labels):
        draw.rectangle(_pixels_of(box), outline=class_color(label), width=line)
    for box, label, text in zip(boxes * scale, labels, texts):  # after all boxes: no line crosses a text
        _draw_text(draw, box.tolist(), text, class_color(label), font, picture.size)
    return picture


def _pixels_of(box: np.ndarray) -> tuple[float, float, float, float]:
    """First and last pixel in each direction of a box (left, top, right, bottom), at least one."""
    x1, y1, x2, y2 = box.tolist()
    return x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)


def _draw_text(
    draw: Any, box: list[float], text: str, color: tuple[int, int, int], font: Any, size: tuple[int, int]
) -> None:
    """Text on a colored plate above the box, or inside where the picture ends."""
    _, _, w, h = draw.textbbox((0, 0), text, font=font)
    w, h = w + 4, h + 2
    x = max(0.0, min(box[0], size[0] - w))
    y = box[1] - h if box[1] >= h else min(box[1], size[1] - h)
    draw.rectangle((x, y, x + w, y + h), fill=color)
    draw.text((x + 2, y), text, fill=_text_color(color), font=font)


def _text_color(background: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = background
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else (255, 255, 255)


@lru_cache(maxsize=16)
def _font(size: int) -> Any:
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size)


def draw_on_axis(
    image: np.ndarray, boxes: np.ndarray, labels: Sequence[int], texts: Sequence[str], ax: Axes | None = None
) -> Axes:
    """Show image (h, w, 3) uint8 RGB with boxes (n, 4) xyxy px and texts on ax (a new one if None); returns ax."""
    from matplotlib.patches import Rectangle

    if ax is None:
        import matplotlib.pyplot as plt

        height, width = image.shape[:2]
        longest = max(height, width)
        _, ax = plt.subplots(figsize=(6 * max(width / longest, 0.3), 6 * max(height / longest, 0.3)), layout="tight")
    height, width = image.shape[:2]
    # Pixel i covers [i, i + 1], so that a box over the whole image is drawn around it.
    ax.imshow(image, extent=(0, width, height, 0), interpolation="nearest")
    for (x1, y1, x2, y2), label, text in zip(boxes.tolist(), labels, texts):
        color = class_color(label)
        rgb = tuple(channel / 255 for channel in color)
        ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=rgb, linewidth=1.8))
        plate = {"facecolor": rgb, "edgecolor": "none", "pad": 1.2}
        text_rgb = tuple(channel / 255 for channel in _text_color(color))
        # parse_math=False: a "$" in a class name is a dollar sign, not the start of a formula
        ax.text(x1, y1, text, color=text_rgb, fontsize=8, va="bottom", bbox=plate, clip_on=False, parse_math=False)
    ax.set_axis_off()
    return ax
