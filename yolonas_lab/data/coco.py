"""A COCO-format folder as a list of samples: images, boxes, contiguous labels (notebooks 00 and 14).

Labels follow the category ids, categories without annotations included, so every split of a data set maps alike.
Format: "Microsoft COCO: Common Objects in Context" (1405.0312), bbox is (x, y, width, height) in pixels; our only
addition is "weight", how much an annotation counts. Every fault ends in one sentence that names the file and the entry.
"""

import copy
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
import torch
from torch import Tensor

from yolonas_lab.common import write_bytes
from yolonas_lab.sources import load_annotated_image

_TOLERANCE = 0.01  # pixels that a box may stick out before it counts as clipped (COCO rounds to hundredths)


class Targets(NamedTuple("_Targets", [("boxes", Tensor), ("labels", Tensor), ("weights", Tensor)])):
    """The true objects of one image: boxes (n, 4) xyxy px of the network's input, labels (n,) int64 in 0 … k-1,
    weights (n,) in (0, 1], how much each object counts (all 1 where none are given).

    >>> Targets(boxes=torch.tensor([[4.0, 6, 24, 26]]), labels=torch.tensor([2])).weights
    tensor([1.])
    """

    def __new__(cls, boxes: Tensor, labels: Tensor, weights: Tensor | None = None) -> "Targets":
        ones = torch.ones(labels.shape, device=labels.device) if weights is None else weights
        return super().__new__(cls, boxes, labels, ones)


class Batch(NamedTuple):
    """Images ready for the network, and what is true about each."""

    images: Tensor  # (b, 3, s, s) float32 RGB in [0, 1]
    targets: list[Targets]  # one per image
    image_ids: list[int]  # one per image, to name it when something goes wrong


@dataclass(frozen=True, eq=False)
class Sample:
    """One image with its ground truth."""

    image: np.ndarray  # (h, w, 3) uint8 RGB
    boxes: np.ndarray  # (n, 4) float32 xyxy in pixels, within the image
    labels: np.ndarray  # (n,) int64, 0..k-1
    crowd: np.ndarray  # (n,) bool: the box marks a crowd, not one object
    image_id: int
    file_name: str
    weights: np.ndarray = None  # type: ignore[assignment]  # (n,) float32 in (0, 1], how much each counts; None: all 1

    def __post_init__(self) -> None:
        if self.weights is None:
            object.__setattr__(self, "weights", np.ones(len(self.labels), dtype=np.float32))


def read_json(path: Path) -> dict:
    """The content of an annotation file; raises FileNotFoundError or ValueError naming the file."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no annotation file {path}: check the path.")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}): give a COCO annotation file.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a JSON {type(content).__name__}: give the ground truth, not a file of results.")
    return content


def write_coco(
    path: str | os.PathLike,
    images: Sequence[dict],
    annotations: Sequence[dict],
    categories: Sequence[dict],
    info: dict | None = None,
) -> None:
    """Write a COCO annotation file in one step: a reader sees the old file or the new one, never a part.

    info is the format's own place for where the annotations come from. Raises ValueError for NaN or infinity and
    TypeError for what else JSON does not have.
    """
    content = {} if info is None else {"info": info}
    content |= {"images": list(images), "annotations": list(annotations), "categories": list(categories)}
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))  # compact: COCO's files are large
    write_bytes(Path(path), text.encode())


class _Table:
    """One list of entries of an annotation file, read column by column; every refusal names the file and the entry."""

    def __init__(self, content: dict, name: str, path: Path) -> None:
        self.name, self.path, self.rows = name, path, content.get(name, [])
        if not isinstance(self.rows, list) or not all(isinstance(row, dict) for row in self.rows):
            raise ValueError(f"'{name}' in {path} is not a list of objects: export the file again in COCO format.")

    def column(self, key: str, is_right: Callable[[Any], bool], must_be: str, default: Any = ...) -> list:
        """The value of every entry; ValueError for one that is not right, or that is missing and has no default."""
        values = [row.get(key, default) for row in self.rows]
        for row, value in zip(self.rows, values, strict=True):
            if value is ...:
                raise ValueError(f"{self._named(row)} has no '{key}': add it or remove the entry.")
            if not is_right(value):
                raise ValueError(f"{self._named(row)} has {key} {value!r}: it must be {must_be}.")
        return values

    def ids(self) -> list[int]:
        """The id of every entry; ValueError for one that occurs twice."""
        ids = self.column("id", _is_id, "a whole number")
        for value, count in Counter(ids).items():
            if count > 1:
                raise ValueError(f"{self._named(self.rows[ids.index(value)])} occurs more than once: make ids unique.")
        return ids

    def _named(self, row: dict) -> str:
        name = next((f" ({key} {row[key]})" for key in ("file_name", "image_id", "name") if key in row), "")
        entry = f"id {row['id']}" if "id" in row else f"entry {self.rows.index(row)}"
        return f"{entry}{name} of '{self.name}' in {self.path}"


def _is_id(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def _is_number(value: Any, low: float = -1e30, high: float = 1e30) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def _is_safe_name(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    parts = value.replace("\\", "/").split("/")
    return parts[0] != "" and not parts[0].endswith(":") and ".." not in parts


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
        remarks = {
            "boxes reached out of their image and were clipped": self.clipped_boxes,
            "boxes dropped: no width or no height": self.dropped_without_area,
            "boxes dropped: entirely outside their image": self.dropped_outside,
            "annotations dropped: their image is not in the file": self.dropped_unknown_image,
        }
        return (
            f"{self.images} images, {self.images_without_boxes} of them without boxes (kept)\n"
            f"{self.categories} categories, {self.categories_without_boxes} of them without boxes (kept)\n"
            f"{self.annotations} annotations, {self.boxes} boxes used, {self.crowd_boxes} of them crowds (marked)"
        ) + "".join(f"\n{count} {text}" for text, count in remarks.items() if count)


class CocoDataset:
    """Samples of a COCO-format data set: `len(ds)`, `ds[i] -> Sample`, and iteration.

    images_dir: the folder that file names are relative to; annotations_json: the annotation file; without
    'annotations' in it (as COCO gives for its test images) there are none. Crowd boxes and images without boxes are
    kept. Boxes are clipped to their image; those without area or entirely outside are left out and counted in `report`.
    Raises FileNotFoundError naming the first missing file, and ValueError naming the file and the entry for missing
    keys, ids that occur twice, categories that do not exist, boxes that are not four finite numbers, weights outside
    (0, 1], and file names that lead out of the images folder.
    """

    class_names: list[str]  # in order of category id, including categories without annotations
    category_ids: list[int]  # contiguous label -> category id
    image_ids: list[int]
    file_names: list[str]
    report: CocoReport

    def __init__(self, images_dir: str | os.PathLike, annotations_json: str | os.PathLike) -> None:
        self.images_dir, self.annotations_path = Path(images_dir), Path(annotations_json)
        if not self.images_dir.is_dir():
            raise FileNotFoundError(f"There is no images folder {self.images_dir}: check the path.")
        self._chosen: list[int] | None = None  # image ids of a subset
        self._fill(self.coco_dict)
        missing = [name for name in self.file_names if not (self.images_dir / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} of {len(self)} images of {self.annotations_path} are missing, first "
                f"{self.images_dir / missing[0]}: check the images folder or remove their entries."
            )

    def _fill(self, content: dict) -> None:
        """Check the content of an annotation file and take it over as columns, annotations grouped by image."""
        names = ("images", "categories", "annotations")
        images, categories, annotations = (_Table(content, name, self.annotations_path) for name in names)
        for table in (images, categories):
            if not table.rows:
                raise ValueError(f"'{table.name}' in {table.path} is empty or missing: there is nothing to learn.")
        names = categories.column("name", lambda v: v is not None, "a name")
        by_id = dict(sorted(zip(categories.ids(), names, strict=True)))
        self.category_ids, self.class_names = list(by_id), [str(name) for name in by_id.values()]
        self.image_ids = images.ids()
        self.file_names = images.column("file_name", _is_safe_name, "a path below the images folder")
        sides = [
            images.column(key, lambda v: _is_number(v, 1, 2**31) and v % 1 == 0, "its size in pixels")
            for key in ("width", "height")
        ]
        self._sizes = np.array(sides, dtype=np.int64).T  # (images, 2)

        annotations.ids()
        label_of = {category_id: label for label, category_id in enumerate(by_id)}
        index_of = {image_id: index for index, image_id in enumerate(self.image_ids)}
        category = annotations.column("category_id", lambda v: _is_id(v) and v in label_of, "an id of 'categories'")
        image = annotations.column("image_id", _is_id, "a whole number")
        boxes = annotations.column(
            "bbox",
            lambda v: isinstance(v, list) and len(v) == 4 and all(map(_is_number, v)),
            "four finite numbers x, y, width, height",
        )
        weight = annotations.column(
            "weight", lambda v: _is_number(v, 0, 1) and v > 0, "a number above 0 and at most 1, or left out", default=1
        )
        labels = np.array([label_of[value] for value in category], dtype=np.int64)  # (annotations,)
        image_of = np.array([index_of.get(value, -1) for value in image], dtype=np.int64)  # (annotations,)
        crowd = np.array([bool(row.get("iscrowd", 0)) for row in annotations.rows], dtype=bool)  # (annotations,)
        xywh = np.array(boxes, dtype=np.float64).reshape(-1, 4)  # (annotations, 4)
        self._take_boxes(xywh, image_of, labels, crowd, np.array(weight, dtype=np.float32))

    def _take_boxes(
        self, xywh: np.ndarray, image_of: np.ndarray, labels: np.ndarray, crowd: np.ndarray, weights: np.ndarray
    ) -> None:
        """Clip the boxes (annotations, 4) to their images, group them by image, and count what is left out."""
        known = image_of >= 0
        limits = self._sizes[np.maximum(image_of, 0)].astype(np.float64)  # (annotations, 2)
        low, high = xywh[:, :2], xywh[:, :2] + xywh[:, 2:]
        inner_low, inner_high = np.clip(low, 0, limits), np.clip(high, 0, limits)
        has_area, inside = (xywh[:, 2:] > 0).all(axis=1), (inner_high > inner_low).all(axis=1)
        reaches_out = ((low < -_TOLERANCE) | (high > limits + _TOLERANCE)).any(axis=1)
        usable = known & has_area & inside

        kept = np.flatnonzero(usable)
        order = kept[np.argsort(image_of[kept], kind="stable")]  # the file's order within an image
        self._boxes = np.concatenate([inner_low, inner_high], axis=1)[order].astype(np.float32)  # (n, 4)
        self._labels, self._crowd, self._weights = labels[order], crowd[order], weights[order]  # (n,) each
        self._starts = np.searchsorted(image_of[order], np.arange(len(self) + 1))  # (images + 1,)
        self.report = CocoReport(
            images=len(self),
            images_without_boxes=int(np.count_nonzero(np.diff(self._starts) == 0)),
            categories=len(self.category_ids),
            categories_without_boxes=len(self.category_ids) - len(np.unique(self._labels)),
            annotations=len(xywh),
            boxes=len(order),
            crowd_boxes=int(self._crowd.sum()),
            clipped_boxes=int(np.count_nonzero(usable & reaches_out)),
            dropped_without_area=int(np.count_nonzero(known & ~has_area)),
            dropped_outside=int(np.count_nonzero(known & has_area & ~inside)),
            dropped_unknown_image=int(np.count_nonzero(~known)),
        )

    def __len__(self) -> int:
        return len(self.file_names)

    def __getitem__(self, index: SupportsIndex) -> Sample:
        """Sample `index`; raises IndexError, or ValueError for a broken image or one of another size than annotated."""
        position = range(len(self))[index]
        height, width = self.image_size(position)
        image = load_annotated_image(self.image_path(position), width, height)
        names = self.image_ids[position], self.file_names[position]
        return Sample(image, *self.annotations(position), *names, self.weights(position))

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def _rows_of(self, index: SupportsIndex) -> slice:
        position = range(len(self))[index]
        return slice(self._starts[position], self._starts[position + 1])

    def weights(self, index: SupportsIndex) -> np.ndarray:
        """How much each box of an image counts, (n,) float32 in (0, 1]: its annotation's "weight", 1 without one."""
        return self._weights[self._rows_of(index)].copy()

    def annotations(self, index: SupportsIndex) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes (n, 4) float32 xyxy px, labels (n,) int64 and crowd (n,) bool of an image, without reading it."""
        part = self._rows_of(index)
        return self._boxes[part].copy(), self._labels[part].copy(), self._crowd[part].copy()

    def image_path(self, index: SupportsIndex) -> Path:
        """The file of an image."""
        return self.images_dir / self.file_names[index]

    def image_size(self, index: SupportsIndex) -> tuple[int, int]:
        """Annotated (height, width) of an image in pixels."""
        width, height = self._sizes[index]
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
        part = copy.copy(self)
        part._chosen = [self.image_ids[index] for index in indices]
        if not part._chosen or len(set(part._chosen)) < len(part._chosen):
            raise ValueError("The indices of a subset are empty or name an image twice: give each image once.")
        part._fill(part.coco_dict)
        return part
