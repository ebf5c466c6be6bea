"""Detections: what was found in one image, as a value that shows, saves, filters, iterates, and becomes COCO results.

Used from notebook 00 on. Boxes are drawn with their names straight into the pixels with Pillow, or as artists on a
matplotlib axis; each class keeps one color, whatever else is in the picture.
"""

from __future__ import annotations

import colorsys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from yolonas_lab.boxes import xyxy_to_xywh
from yolonas_lab.common import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

# The first classes get colors that stay apart under color blindness (after Okabe and Ito, "Color Universal Design").
CLASS_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#7D5BBE", "#A3A500")
GOLDEN_RATIO = 0.618034  # further classes: steps of this share of the color wheel never come back to a color used
INLINE_SIZE = 480  # px: small images are enlarged about to this side in a notebook, large ones reduced to its double


@dataclass(frozen=True)
class Detection:
    """One object: box (left, top, right, bottom) in px of the image, score in [0, 1], label and its class name."""

    box: tuple[float, float, float, float]
    score: float
    label: int
    class_name: str


@dataclass(frozen=True, repr=False, eq=False)
class Detections:
    """The objects found in one image; a notebook shows it as a picture.

    boxes (n, 4) float32 xyxy in px of the original image, scores (n,) float32, labels (n,) int64 indices into
    class_names, image (h, w, 3) uint8 RGB or None. Arrays and lists become CPU tensors. Raises ValueError where lengths
    or labels do not fit.

    >>> found = Detections(torch.tensor([[0.0, 0, 4, 4], [1, 1, 9, 9]]), [0.9, 0.3], [1, 0], ["cat", "dog"])
    >>> found.filter(min_score=0.5), next(iter(found)).class_name
    (Detections(1: 1 dog), 'dog')
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    class_names: Sequence[str]
    image: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, dtype in (("boxes", torch.float32), ("scores", torch.float32), ("labels", torch.int64)):
            object.__setattr__(self, name, torch.as_tensor(getattr(self, name)).detach().to("cpu", dtype))
        n = len(self.boxes)
        if self.boxes.shape != (n, 4):
            raise ValueError(f"boxes must have shape (n, 4), but has {tuple(self.boxes.shape)}.")
        for name in ("scores", "labels"):
            if getattr(self, name).shape != (n,):
                raise ValueError(f"{name} must have shape ({n},), but has {tuple(getattr(self, name).shape)}.")
        if not (self.boxes.isfinite().all() and self.scores.isfinite().all()):
            raise ValueError("boxes and scores must be finite numbers, but some are NaN or infinite.")
        if n and not (self.labels.min() >= 0 and self.labels.max() < len(self.class_names)):
            raise ValueError(
                f"labels must lie in 0 … {len(self.class_names) - 1}, one per class name, "
                f"but reach from {int(self.labels.min())} to {int(self.labels.max())}."
            )

    def __len__(self) -> int:
        return len(self.boxes)

    def __iter__(self) -> Iterator[Detection]:
        for box, score, label in zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist()):
            x1, y1, x2, y2 = box
            yield Detection((x1, y1, x2, y2), score, label, self.class_names[int(label)])

    def __repr__(self) -> str:
        counts = Counter(found.class_name for found in self)
        parts = ", ".join(f"{count} {name}" for name, count in counts.most_common())
        return f"Detections({len(self)}: {parts})" if parts else "Detections(0)"

    def _repr_jpeg_(self) -> bytes | None:
        """What a notebook displays: JPEG, for a photograph as PNG would soon be a megabyte."""
        if self.image is None:
            return None
        picture = draw_on_pixels(*self._to_draw(), scale=max(1, round(INLINE_SIZE / max(self.image.shape[:2]))))
        picture.thumbnail((2 * INLINE_SIZE, 2 * INLINE_SIZE))
        buffer = BytesIO()
        picture.save(buffer, format="JPEG", quality=88)
        return buffer.getvalue()

    def filter(self, min_score: float) -> Detections:
        """Only the detections with score >= min_score, in the same order."""
        keep = self.scores >= min_score
        return replace(self, boxes=self.boxes[keep], scores=self.scores[keep], labels=self.labels[keep])

    def show(self, ax: Axes | None = None, min_score: float = 0.0) -> Axes:
        """Draw the image and the detections with score >= min_score on a matplotlib axis (default: a new one).

        Returns ax. Raises ValueError if there is no image.
        """
        return draw_on_axis(*self.filter(min_score)._to_draw(), ax)

    def save(self, path: str | Path, scale: int = 1) -> Path:
        """Write the image with its detections in full resolution, in the format that path's suffix names; returns path.

        scale enlarges a small image so that the texts can be read. The file appears whole or not at all. Raises
        ValueError for a missing image or an unknown suffix, FileNotFoundError for a missing folder.
        """
        from PIL import Image

        path = Path(path)
        formats = {suffix: name for suffix, name in Image.registered_extensions().items() if name in Image.SAVE}
        if path.suffix.lower() not in formats:
            raise ValueError(f"cannot save to {path}: its suffix names no image format; use .png or .jpg.")
        if not path.parent.is_dir():
            raise FileNotFoundError(f"cannot save to {path}: the folder {path.parent} does not exist; make it first.")
        if scale < 1:
            raise ValueError(f"scale must be a whole number of at least 1, but is {scale}.")
        picture = draw_on_pixels(*self._to_draw(), scale)
        return write_atomically(path, lambda file: picture.save(file, format=formats[path.suffix.lower()]))

    def to_coco(self, image_id: int, category_ids: Sequence[int]) -> list[dict]:
        """Entries of a COCO results file: bbox xywh px, and category_ids[label] as the category id."""
        if len(category_ids) != len(self.class_names):
            raise ValueError(
                f"there are {len(category_ids)} category_ids for {len(self.class_names)} classes; give one per class."
            )
        rows = zip(xyxy_to_xywh(self.boxes).tolist(), self.scores.tolist(), self.labels.tolist())
        return [
            {"image_id": int(image_id), "category_id": int(category_ids[label]), "bbox": box, "score": score}
            for box, score, label in rows
        ]

    def _to_draw(self) -> tuple[np.ndarray, np.ndarray, list[int], list[str]]:
        """Image, boxes, labels and texts."""
        if self.image is None:
            raise ValueError("these detections hold no image to draw on; make them with image=… or use predict.")
        texts = [f"{found.class_name} {found.score:.2f}" for found in self]
        return self.image, self.boxes.numpy(), self.labels.tolist(), texts


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
        x1, y1, x2, y2 = box.tolist()  # the last pixel lies one before the border; at least one in each direction
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=class_color(label), width=line)
    for box, label, text in zip(boxes * scale, labels, texts):  # after all boxes: no line crosses a text
        _draw_text(draw, box.tolist(), text, class_color(label), font, picture.size)
    return picture


def _draw_text(
    draw: Any, box: list[float], text: str, color: tuple[int, int, int], font: Any, size: tuple[int, int]
) -> None:
    """Text on a colored plate above the box, or inside where the picture ends."""
    _, _, w, h = draw.textbbox((0, 0), text, font=font)
    w, h = w + 4, h + 2
    x = max(0.0, min(box[0], size[0] - w))
    y = box[1] - h if box[1] >= h else max(0.0, min(box[1], size[1] - h))
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

    height, width = image.shape[:2]
    if ax is None:
        import matplotlib.pyplot as plt

        longest = max(height, width)
        _, ax = plt.subplots(figsize=(6 * max(width / longest, 0.3), 6 * max(height / longest, 0.3)), layout="tight")
    # Pixel i covers [i, i + 1], so that a box over the whole image is drawn around it.
    ax.imshow(image, extent=(0, width, height, 0), interpolation="nearest")
    for (x1, y1, x2, y2), label, text in zip(boxes.tolist(), labels, texts):
        color = class_color(label)
        rgb, text_rgb = (tuple(channel / 255 for channel in values) for values in (color, _text_color(color)))
        ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=rgb, linewidth=1.8))
        plate = {"facecolor": rgb, "edgecolor": "none", "pad": 1.2}
        # parse_math=False: a "$" in a class name is a dollar sign, not the start of a formula
        ax.text(x1, y1, text, color=text_rgb, fontsize=8, va="bottom", bbox=plate, clip_on=False, parse_math=False)
    ax.set_axis_off()
    return ax
