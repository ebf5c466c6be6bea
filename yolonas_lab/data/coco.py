"""A COCO-format folder as a list of samples: images, boxes, contiguous labels (notebooks 00 and 14).

Labels follow the category ids, categories without annotations included, so every split of a data set maps alike.
What the file has and the samples lack is counted in `report`; evaluation reads the file itself.
"""

import copy
import operator
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import SupportsIndex

import numpy as np

from yolonas_lab.data.coco_json import CocoTables, read_json, tabulate
from yolonas_lab.data.images import load_annotated_image
from yolonas_lab.progress import progress

_TOLERANCE = 0.01  # pixels that a box may stick out before it counts as clipped (COCO rounds to hundredths)


@dataclass(frozen=True, eq=False)
class Sample:
    """One image with its ground truth."""

    image: np.ndarray  # (h, w, 3) uint8 RGB
    boxes: np.ndarray  # (n, 4) float32 xyxy in pixels, within the image
    labels: np.ndarray  # (n,) int64, 0..k-1
    crowd: np.ndarray  # (n,) bool: the box marks a crowd, not one object
    image_id: int
    file_name: str
    weights: np.ndarray | None = None  # (n,) float32 in (0, 1]: how far to trust each object; None: fully


@dataclass(frozen=True)
class CocoReport:
    """What a COCO file holds and what was done with it; `print(report)` explains it."""

    images: int
    images_without_boxes: int
    categories: int
    categories_without_boxes: int
    annotations: int
    boxes: int
    crowd_boxes: int
    clipped_boxes: int
    dropped_without_area: int
    dropped_outside: int
    dropped_unknown_image: int

    def __str__(self) -> str:
        lines = [
            f"{self.images} images, {self.images_without_boxes} of them without boxes (kept)",
            f"{self.categories} categories, {self.categories_without_boxes} of them without boxes (kept)",
            f"{self.annotations} annotations, {self.boxes} boxes used, {self.crowd_boxes} of them crowds (marked)",
        ]
        remarks = {
            "boxes reached out of their image and were clipped": self.clipped_boxes,
            "boxes dropped: no width or no height": self.dropped_without_area,
            "boxes dropped: entirely outside their image": self.dropped_outside,
            "annotations dropped: their image is not in the file": self.dropped_unknown_image,
        }
        return "\n".join(lines + [f"{count} {text}" for text, count in remarks.items() if count])


class CocoDataset:
    """Samples of a COCO-format data set: `len(ds)`, `ds[i] -> Sample`, and iteration.

    images_dir: the folder that file names are relative to; annotations_json: the annotation file.
    Crowd boxes and images without boxes are kept. Boxes are clipped to their image; those without area or entirely
    outside are left out and counted in `report`. Raises FileNotFoundError naming the first missing file and
    ValueError, in one sentence, for a file that COCO's own tools could not use either.
    """

    class_names: list[str]  # in order of category id, including categories without annotations
    category_ids: list[int]  # contiguous label -> category id
    image_ids: list[int]
    report: CocoReport

    def __init__(self, images_dir: str | os.PathLike, annotations_json: str | os.PathLike) -> None:
        self.images_dir, self.annotations_path = Path(images_dir), Path(annotations_json)
        if not self.images_dir.is_dir():
            raise FileNotFoundError(f"There is no images folder {self.images_dir}: check the path.")
        self._chosen: list[int] | None = None  # image ids of a subset
        self._fill(self.coco_dict)
        self._require_files()

    def _fill(self, content: dict) -> None:
        """Take over everything from the content of an annotation file."""
        tables = tabulate(content, self.annotations_path)
        self.class_names, self.category_ids = tables.class_names, tables.category_ids
        self.image_ids, self.file_names = tables.image_ids.tolist(), tables.file_names
        self._sizes = tables.sizes
        clipped = _clip_boxes(tables)
        kept = np.flatnonzero(clipped.usable)
        # group by image: a stable sort keeps the file's order within an image
        order = kept[np.argsort(tables.image_of[kept], kind="stable")]
        self._boxes = clipped.xyxy[order].astype(np.float32)  # (n, 4)
        self._labels, self._crowd = tables.label_of[order], tables.crowd[order]  # (n,), (n,)
        self._weights = None if tables.weight is None else tables.weight[order].astype(np.float32)  # (n,)
        self._starts = np.searchsorted(tables.image_of[order], np.arange(len(self) + 1))  # (images + 1,)
        self.report = CocoReport(
            images=len(self),
            images_without_boxes=int(np.count_nonzero(np.diff(self._starts) == 0)),
            categories=len(self.category_ids),
            categories_without_boxes=len(self.category_ids) - len(np.unique(self._labels)),
            annotations=len(tables.bbox),
            boxes=len(order),
            crowd_boxes=int(self._crowd.sum()),
            clipped_boxes=int(np.count_nonzero(clipped.usable & clipped.reaches_out)),
            dropped_without_area=int(np.count_nonzero(clipped.without_area)),
            dropped_outside=int(np.count_nonzero(clipped.outside)),
            dropped_unknown_image=int(np.count_nonzero(tables.image_of < 0)),
        )

    def _require_files(self) -> None:
        missing = [name for name in self.file_names if not (self.images_dir / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} of {len(self)} images of {self.annotations_path} are missing, first "
                f"{self.images_dir / missing[0]}: check the images folder or remove their entries."
            )

    def __len__(self) -> int:
        return len(self.file_names)

    def __getitem__(self, index: SupportsIndex) -> Sample:
        """Sample `index`; raises IndexError, or ValueError for a broken image or one of another size than annotated."""
        position = self._position(index)
        boxes, labels, crowd = self.annotations(position)
        height, width = self.image_size(position)
        image = load_annotated_image(self.image_path(position), width, height)
        image_id, file_name = self.image_ids[position], self.file_names[position]
        return Sample(image, boxes, labels, crowd, image_id, file_name, self.weights(position))

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def _position(self, index: SupportsIndex) -> int:
        position = operator.index(index)
        if not -len(self) <= position < len(self):
            raise IndexError(f"sample {position} of a data set of {len(self)} images")
        return position % len(self)

    def weights(self, index: SupportsIndex) -> np.ndarray | None:
        """How far to trust each box of an image, (n,) float32 in (0, 1], as its annotation's "weight" says.

        None where no annotation of the data set has a weight; an annotation without one counts fully, as 1.
        """
        position = self._position(index)
        part = slice(self._starts[position], self._starts[position + 1])
        return None if self._weights is None else self._weights[part].copy()

    def annotations(self, index: SupportsIndex) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes (n, 4) float32 xyxy px, labels (n,) int64 and crowd (n,) bool of an image, without reading it."""
        position = self._position(index)
        part = slice(self._starts[position], self._starts[position + 1])
        return self._boxes[part].copy(), self._labels[part].copy(), self._crowd[part].copy()

    def image_path(self, index: SupportsIndex) -> Path:
        """The file of an image."""
        return self.images_dir / self.file_names[self._position(index)]

    def image_size(self, index: SupportsIndex) -> tuple[int, int]:
        """Annotated (height, width) of an image in pixels."""
        width, height = self._sizes[self._position(index)]
        return int(height), int(width)

    @property
    def coco_dict(self) -> dict:
        """The original ground truth of its images, read anew from the annotation file each time (it may be large)."""
        content = read_json(self.annotations_path)
        if self._chosen is None:
            return content
        by_id = {row["id"]: row for row in content["images"]}
        chosen = {image_id: by_id[image_id] for image_id in self._chosen}
        annotations = [row for row in content.get("annotations", []) if row["image_id"] in chosen]
        return content | {"images": list(chosen.values()), "annotations": annotations}

    def subset(self, indices: Iterable[SupportsIndex]) -> "CocoDataset":
        """The data set of these images alone, in this order, with all the classes: `train_set.subset(range(100))`.

        Raises IndexError for an image that is not there and ValueError for none or the same one twice.
        """
        positions = [self._position(index) for index in indices]
        if not positions or len(set(positions)) < len(positions):
            problem = "name an image twice" if positions else "are empty"
            raise ValueError(f"The indices of a subset {problem}: give at least one image, and each once.")
        part = copy.copy(self)
        part._chosen = [self.image_ids[position] for position in positions]
        part._fill(part.coco_dict)
        return part

    def find_broken_images(self) -> list[str]:
        """Read every image once (with a progress bar) and return one sentence for each that cannot be used."""
        problems = []
        for index in progress(range(len(self)), "reading images", "image"):
            height, width = self.image_size(index)
            try:
                load_annotated_image(self.image_path(index), width, height)
            except (FileNotFoundError, ValueError) as error:
                problems.append(str(error))
        return problems


@dataclass(frozen=True, eq=False)
class _ClippedBoxes:
    """Boxes (annotations, 4) float64 xyxy px clipped to their images, and (annotations,) bool facts about each.

    Exactly one of usable, without_area and outside is true for an annotation whose image is in the file.
    """

    xyxy: np.ndarray
    usable: np.ndarray
    without_area: np.ndarray
    outside: np.ndarray
    reaches_out: np.ndarray


def _clip_boxes(tables: CocoTables) -> _ClippedBoxes:
    known = tables.image_of >= 0
    limits = tables.sizes[np.maximum(tables.image_of, 0)].astype(np.float64)  # (annotations, 2) width, height
    extent = tables.bbox[:, 2:]
    low, high = tables.bbox[:, :2], tables.bbox[:, :2] + extent
    inner_low, inner_high = np.clip(low, 0, limits), np.clip(high, 0, limits)
    has_area = (extent > 0).all(axis=1)
    inside = (inner_high > inner_low).all(axis=1)
    return _ClippedBoxes(
        xyxy=np.concatenate([inner_low, inner_high], axis=1),
        usable=known & has_area & inside,
        without_area=known & ~has_area,
        outside=known & has_area & ~inside,
        reaches_out=np.any((low < -_TOLERANCE) | (high > limits + _TOLERANCE), axis=1),
    )
