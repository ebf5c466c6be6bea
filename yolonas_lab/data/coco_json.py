"""The COCO annotation format: one JSON file into flat arrays, and back to a file (notebook 14 checks a reader's own).

Format: "Microsoft COCO: Common Objects in Context" (1405.0312), data format of its detection task: bbox is
(x, y, width, height) in pixels. Every fault ends in one sentence that names the file and the entry.
"""

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


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
    weight: np.ndarray | None  # (annotations,) float64 in (0, 1], 1 where it is left out; None: by all of them


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


def _weights(rows: list[dict], path: Path) -> np.ndarray | None:
    for row in rows:
        weight = row.get("weight", 1)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= 1:
            raise ValueError(
                f"Annotation id {row['id']} (image id {row['image_id']}) in {path} has weight {weight!r}: it must be a "
                "number above 0 and at most 1, or be left out."
            )
    if not any("weight" in row for row in rows):
        return None
    return np.array([row.get("weight", 1) for row in rows], dtype=np.float64)


def tabulate(content: dict, path: Path) -> CocoTables:
    """Check the content of an annotation file and turn it into columns.

    Raises ValueError naming `path` and the entry for missing keys, ids that occur twice, categories that do not
    exist, boxes that are not four finite numbers, weights outside (0, 1], and file names that lead out of the images
    folder. "weight", how much to trust an annotation, is our only addition to the format.
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
