"""A COCO-format folder as a list of samples: images, boxes, contiguous labels (notebooks 00 and 14).

Labels follow the category ids, categories without annotations included, so every split of a data set maps alike.
What the file has and the samples lack is counted in `report`; evaluation reads the file itself.
"""

import copy
import json
import operator
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, SupportsIndex

import numpy as np
import torch
from torch import Tensor

from yolonas_lab.common import progress
from yolonas_lab.sources import load_annotated_image

# The COCO annotation format: one JSON file into flat arrays, and back to a file (notebook 14 checks a reader's own).
#
# Format: "Microsoft COCO: Common Objects in Context" (1405.0312), data format of its detection task: bbox is
# (x, y, width, height) in pixels. Every fault ends in one sentence that names the file and the entry.


@dataclass(frozen=True, eq=False)
class CocoTables:
    """One annotation file as columns: images in file order, categories by id, annotations in file order."""

    image_ids: np.ndarray  # (images,) int64
    file_names: list[str]
    sizes: np.ndarray  # (images, 2) int64: width, height in pixels
    category_ids: list[int]  # ascending
    class_names: list[str]  # same order, unused categories included
    annotation_ids: np.ndarray  # (annotations,) int64
    image_of: np.ndarray  # (annotations,) int64 index into image_ids, -1 for an image that is not listed
    label_of: np.ndarray  # (annotations,) int64 index into category_ids
    bbox: np.ndarray  # (annotations, 4) float64 x, y, width, height in pixels, as written in the file
    crowd: np.ndarray  # (annotations,) bool
    weight: np.ndarray  # (annotations,) float64 in (0, 1], 1 where it is left out


def read_json(path: Path) -> dict:
    """The content of an annotation file; raises FileNotFoundError or ValueError naming the file."""
    if not path.exists():
        raise FileNotFoundError(f"There is no annotation file {path}: check the path.")
    if not path.is_file():
        raise ValueError(f"{path} is not a file: give the path of a COCO annotation file (.json).")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON (line {error.lineno}: {error.msg}): export it again.") from None
    except (UnicodeDecodeError, RecursionError):
        raise ValueError(f"{path} is not a JSON text file: give a COCO annotation file.") from None
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} holds a JSON {type(content).__name__}, not an object with images, annotations and categories: "
            "give the ground-truth file, not a file of results."
        )
    return content


def _rows(content: dict, key: str, path: Path) -> list[dict]:
    if key not in content:
        raise ValueError(f"{path} has no '{key}': give a COCO annotation file with images and categories.")
    rows = content[key]
    if not isinstance(rows, list):
        raise ValueError(f"'{key}' in {path} is not a list: export the file again in COCO format.")
    for position, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f"Entry {position} of '{key}' in {path} is not an object but {row!r}: correct it.")
    return rows


def _field(row: dict, key: str, position: int, table: str, path: Path) -> object:
    if key not in row:
        name = f"id {row['id']}" if "id" in row else f"entry {position}"
        raise ValueError(f"{name} of '{table}' in {path} has no '{key}': add it or remove the entry.")
    return row[key]


def _ids(rows: list[dict], key: str, table: str, path: Path) -> list[int]:
    ids = [_field(row, key, position, table, path) for position, row in enumerate(rows)]
    for position, value in enumerate(ids):
        if type(value) is not int or not -(2**63) <= value < 2**63:
            raise ValueError(f"Entry {position} of '{table}' in {path} has {key} {value!r}: it must be a whole number.")
    return ids  # type: ignore[return-value]


def _unique_ids(rows: list[dict], table: str, path: Path) -> list[int]:
    ids = _ids(rows, "id", table, path)
    if len(set(ids)) < len(ids):
        seen: set[int] = set()
        twice = next(value for value in ids if value in seen or seen.add(value))
        names = [str(row.get("file_name", row.get("name", ""))) for row in rows if row["id"] == twice]
        detail = f" ({', '.join(names)})" if any(names) else ""
        raise ValueError(f"'{table}' in {path} has id {twice} more than once{detail}: give every entry its own id.")
    return ids


def _safe_name(name: object, image_id: int, path: Path) -> str:
    if not isinstance(name, str) or not name or "\0" in name:
        raise ValueError(f"Image id {image_id} in {path} has file_name {name!r}: it must be a file's name.")
    parts = name.replace("\\", "/").split("/")
    if parts[0] == "" or parts[0].endswith(":") or ".." in parts:
        raise ValueError(
            f"Image id {image_id} in {path} has file_name '{name}', which leads out of the images folder: "
            "use a path relative to that folder."
        )
    return name


def _size(row: dict, position: int, path: Path) -> tuple[int, int]:
    size = []
    for key in ("width", "height"):
        value = _field(row, key, position, "images", path)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value < 2**31 or value % 1:
            raise ValueError(f"Image '{row.get('file_name')}' in {path} has {key} {value!r}: give its size in pixels.")
        size.append(int(value))
    return size[0], size[1]


def _boxes(rows: list[dict], path: Path) -> np.ndarray:
    boxes = [_field(row, "bbox", position, "annotations", path) for position, row in enumerate(rows)]
    for row, box in zip(rows, boxes, strict=True):
        if not isinstance(box, list) or len(box) != 4 or not all(isinstance(v, int | float) for v in box):
            raise ValueError(
                f"Annotation id {row['id']} (image id {row['image_id']}) in {path} has bbox {box!r}: "
                "it must be four numbers x, y, width, height."
            )
    try:
        table = np.array(boxes, dtype=np.float64).reshape(-1, 4)  # (annotations, 4)
    except OverflowError:
        raise ValueError(f"An annotation in {path} has a bbox number that is too large: correct it.") from None
    bad = np.flatnonzero(~np.isfinite(table).all(axis=1))
    if len(bad):
        row = rows[bad[0]]
        raise ValueError(
            f"Annotation id {row['id']} (image id {row['image_id']}) in {path} has bbox {row['bbox']}: "
            "it must be four finite numbers."
        )
    return table


def _weights(rows: list[dict], path: Path) -> np.ndarray:
    for row in rows:
        weight = row.get("weight", 1)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= 1:
            raise ValueError(
                f"Annotation id {row['id']} (image id {row['image_id']}) in {path} has weight {weight!r}: it must be a "
                "number above 0 and at most 1, or be left out."
            )
    return np.array([row.get("weight", 1) for row in rows], dtype=np.float64)


def tabulate(content: dict, path: Path) -> CocoTables:
    """Check the content of an annotation file and turn it into columns.

    Raises ValueError naming `path` and the entry for missing keys, ids that occur twice, categories that do not
    exist, boxes that are not four finite numbers, weights outside (0, 1], and file names that lead out of the images
    folder. "weight", how much an annotation counts, is our only addition to the format.
    A file without 'annotations' (as COCO gives for its test images) has none.
    """
    images, categories = _rows(content, "images", path), _rows(content, "categories", path)
    annotations = _rows(content, "annotations", path) if "annotations" in content else []
    if not images or not categories:
        raise ValueError(f"'{'categories' if images else 'images'}' in {path} is empty: there is nothing to learn.")
    image_ids = _unique_ids(images, "images", path)
    names = [_field(row, "file_name", position, "images", path) for position, row in enumerate(images)]
    by_id = dict(sorted(zip(_unique_ids(categories, "categories", path), categories, strict=True)))
    class_names = [str(_field(row, "name", 0, "categories", path)) for row in by_id.values()]
    annotation_ids = _unique_ids(annotations, "annotations", path)
    image_index = {image_id: index for index, image_id in enumerate(image_ids)}
    label_index = {category_id: label for label, category_id in enumerate(by_id)}
    label_of = []
    for annotation_id, category in zip(
        annotation_ids, _ids(annotations, "category_id", "annotations", path), strict=True
    ):
        if category not in label_index:
            raise ValueError(
                f"Annotation id {annotation_id} in {path} has category_id {category}, which is not in 'categories': "
                "add the category or remove the annotation."
            )
        label_of.append(label_index[category])
    image_of = [image_index.get(image, -1) for image in _ids(annotations, "image_id", "annotations", path)]
    return CocoTables(
        image_ids=np.array(image_ids, dtype=np.int64),
        file_names=[_safe_name(name, image, path) for name, image in zip(names, image_ids, strict=True)],
        sizes=np.array([_size(row, position, path) for position, row in enumerate(images)], dtype=np.int64),
        category_ids=list(by_id),
        class_names=class_names,
        annotation_ids=np.array(annotation_ids, dtype=np.int64),
        image_of=np.array(image_of, dtype=np.int64),
        label_of=np.array(label_of, dtype=np.int64),
        bbox=_boxes(annotations, path),
        crowd=np.array([bool(row.get("iscrowd", 0)) for row in annotations], dtype=bool),
        weight=_weights(annotations, path),
    )


def _plain(value: object) -> object:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{value!r} ({type(value).__name__}) cannot be written as JSON: use numbers, texts and lists.")


def write_coco(
    path: str | os.PathLike,
    images: Sequence[dict],
    annotations: Sequence[dict],
    categories: Sequence[dict],
    info: dict | None = None,
) -> None:
    """Write a COCO annotation file in one step: a reader sees the old file or the new one, never a part.

    The dictionaries are written as they are (numpy numbers become plain ones); info is the format's own place for
    where the annotations come from, left out where there is none. Raises ValueError for NaN or infinity
    and TypeError for values that JSON does not have.
    """
    path = Path(path)
    content = {} if info is None else {"info": info}
    content |= {"images": list(images), "annotations": list(annotations), "categories": list(categories)}
    try:
        text = json.dumps(content, default=_plain, allow_nan=False, separators=(",", ":"))
    except ValueError:
        raise ValueError(f"A number for {path} is NaN or infinite, which JSON does not have: correct it.") from None
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


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
    weights: np.ndarray = None  # type: ignore[assignment]  # (n,) float32 in (0, 1], how much each counts; None: all 1

    def __post_init__(self) -> None:
        if self.weights is None:
            object.__setattr__(self, "weights", np.ones(len(self.labels), dtype=np.float32))


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
        self._weights = tables.weight[order].astype(np.float32)  # (n,)
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

    def weights(self, index: SupportsIndex) -> np.ndarray:
        """How much each box of an image counts, (n,) float32 in (0, 1]: its annotation's "weight", 1 without one."""
        position = self._position(index)
        part = slice(self._starts[position], self._starts[position + 1])
        return self._weights[part].copy()

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


# What a detector is to learn from: the true objects of each image of a batch. Notebook 05.


class _TargetTensors(NamedTuple):
    boxes: Tensor
    labels: Tensor
    weights: Tensor


class Targets(_TargetTensors):
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
