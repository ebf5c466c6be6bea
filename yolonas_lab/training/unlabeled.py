"""Images that nobody has labeled yet, from a folder or a COCO file without annotations. Notebook 07."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from yolonas_lab.data.coco import CocoDataset
from yolonas_lab.data.coco_json import read_json
from yolonas_lab.data.images import load_annotated_image, load_image
from yolonas_lab.sources import list_items


@dataclass(frozen=True, eq=False)
class UnlabeledImages:
    """Where the images lie, and the classes that a teacher is to find in them."""

    folder: Path
    file_names: Sequence[str]  # relative to the folder
    class_names: Sequence[str]
    category_ids: Sequence[int]  # of each class, in the same order
    load: Callable[[int], np.ndarray]  # (h, w, 3) uint8 RGB; ValueError or OSError for a file that is no image


def unlabeled_images(images: str | os.PathLike | CocoDataset, teacher: nn.Module) -> UnlabeledImages:
    """The images of a folder, with the teacher's classes, or of a data set, with its own.

    Raises ValueError where images have labels already, for a folder without images, and for a folder when the teacher
    has no class names.
    """
    if isinstance(images, (str, os.PathLike)):
        return _from_folder(Path(images), teacher)
    labeled = [index for index in range(len(images)) if len(images.annotations(index)[0])]
    if labeled:
        raise ValueError(
            f"{len(labeled)} of {len(images)} images of {images.annotations_path} have labels already, first "
            f"{images.file_names[labeled[0]]}: give the images without labels only, they would lose their true boxes."
        )
    return UnlabeledImages(
        images.images_dir, images.file_names, images.class_names, images.category_ids, lambda i: images[i].image
    )


def _from_folder(folder: Path, teacher: nn.Module) -> UnlabeledImages:
    names = getattr(teacher, "class_names", None)
    if names is None:
        raise ValueError("The teacher has no class_names, so its boxes cannot be named: set teacher.class_names.")
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}: check the path.")
    files = [path.name for path in list_items(folder)]
    _refuse_labels(folder, set(files))

    def load(index: int) -> np.ndarray:
        path = folder / files[index]
        height, width = load_image(path).shape[:2]
        return load_annotated_image(path, width, height)  # as training will see it, whatever its EXIF tag says

    return UnlabeledImages(folder, files, list(names), list(range(1, len(names) + 1)), load)


def _refuse_labels(folder: Path, files: set[str]) -> None:
    """Raise ValueError if a COCO file in the folder has boxes for images of it, as some exports put it there."""
    for path in sorted(folder.glob("*.json")):
        try:
            content = read_json(path)
            labeled = {row["image_id"] for row in content.get("annotations", ())}
            named = [row["file_name"] for row in content.get("images", ()) if row["id"] in labeled]
        except (ValueError, KeyError, TypeError):  # some other kind of file
            continue
        if found := sorted(files.intersection(named)):
            raise ValueError(
                f"{path} holds labels of {len(found)} images in {folder}, first {found[0]}: keep labeled images in "
                "another folder, or they would lose their true boxes."
            )
