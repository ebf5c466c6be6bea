"""Detections: what was found in one image, as a value that shows, saves, filters, iterates, and becomes COCO results.

Used from notebook 00 on.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from yolonas_lab.boxes import xyxy_to_xywh
from yolonas_lab.drawing import draw_on_axis, draw_on_pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
        longest = max(self.image.shape[:2])
        picture = self._drawn(scale=max(1, round(INLINE_SIZE / longest)))
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
        shown = self.filter(min_score)
        image = self._require_image()
        return draw_on_axis(image, shown.boxes.numpy(), shown.labels.tolist(), shown._texts(), ax)

    def save(self, path: str | Path, scale: int = 1) -> Path:
        """Write the image with its detections in full resolution, in the format that path's suffix names; returns path.

        scale enlarges a small image so that the texts can be read. The file appears whole or not at all. Raises
        ValueError for a missing image or an unknown suffix, FileNotFoundError for a missing folder.
        """
        from PIL import Image

        path = Path(path)
        writable = {suffix for suffix, name in Image.registered_extensions().items() if name in Image.SAVE}
        if path.suffix.lower() not in writable:
            raise ValueError(f"cannot save to {path}: its suffix names no image format; use .png or .jpg.")
        if not path.parent.is_dir():
            raise FileNotFoundError(f"cannot save to {path}: the folder {path.parent} does not exist; make it first.")
        if scale < 1:
            raise ValueError(f"scale must be a whole number of at least 1, but is {scale}.")
        picture = self._drawn(scale)
        handle, temporary = tempfile.mkstemp(suffix=path.suffix, prefix=f".{path.stem}-", dir=path.parent)
        os.close(handle)
        try:
            picture.save(temporary)
            os.chmod(temporary, 0o644)  # mkstemp's files are for their owner alone
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
        return path

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

    def _texts(self) -> list[str]:
        return [f"{found.class_name} {found.score:.2f}" for found in self]

    def _require_image(self) -> np.ndarray:
        if self.image is None:
            raise ValueError("these detections hold no image to draw on; make them with image=… or use predict.")
        return self.image

    def _drawn(self, scale: int):
        return draw_on_pixels(self._require_image(), self.boxes.numpy(), self.labels.tolist(), self._texts(), scale)
