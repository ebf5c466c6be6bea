"""True labels and pseudo-labels side by side: both in one COCO file, and how right the one is. Notebook 07."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolonas_lab.data.coco import CocoDataset
from yolonas_lab.data.coco_json import write_coco
from yolonas_lab.training.teacher_boxes import match


@dataclass(frozen=True)
class LabelQuality:
    """Pseudo-labels against the truth, on all images of the truth."""

    boxes_per_image: float
    objects_per_image: float
    precision: float  # share of the boxes that are right; NaN without boxes
    recall: float  # share of the objects that have a box

    def __str__(self) -> str:
        return (
            f"{self.boxes_per_image:.2f} boxes per image where {self.objects_per_image:.2f} are true; "
            f"precision {self.precision:.2f}, recall {self.recall:.2f}"
        )


def merge_labels(labeled: CocoDataset, pseudo: CocoDataset, out_json: str | os.PathLike) -> CocoDataset:
    """One data set of images with true and with pseudo-labels, whose file is written to out_json atomically.

    File names in it are relative to the folder that both images folders share. True images and annotations keep their
    ids and count in full (weight 1, unless they say otherwise); those of `pseudo` get ids behind them. Raises
    ValueError for other classes and for an image that is in both.
    """
    _require_same_classes(labeled, pseudo)
    if both := _paths(labeled) & _paths(pseudo):
        raise ValueError(f"{len(both)} images have true labels and pseudo-labels, first {min(both)}: leave one out.")
    folder = _common_folder(labeled, pseudo)
    true, guessed = labeled.coco_dict, pseudo.coco_dict
    first_image = 1 + max(row["id"] for row in true["images"])
    first_annotation = 1 + max((row["id"] for row in true.get("annotations", ())), default=0)
    image_ids = {row["id"]: first_image + number for number, row in enumerate(guessed["images"])}
    category_ids = dict(zip(pseudo.category_ids, labeled.category_ids, strict=True))
    images = [_moved(row, labeled, folder) for row in true["images"]]
    images += [_moved(row, pseudo, folder) | {"id": image_ids[row["id"]]} for row in guessed["images"]]
    annotations = list(true.get("annotations", ()))
    known = [row for row in guessed["annotations"] if row["image_id"] in image_ids]
    for number, row in enumerate(known):
        ids = {"id": first_annotation + number, "image_id": image_ids[row["image_id"]]}
        annotations.append(row | ids | {"category_id": category_ids[row["category_id"]]})
    write_coco(out_json, images, annotations, true["categories"])
    return CocoDataset(folder, out_json)


def hide_labels(dataset: CocoDataset, out_json: str | os.PathLike) -> CocoDataset:
    """The same images without their labels, as a file of its own: for experiments, in which the truth must be known."""
    write_coco(out_json, dataset.coco_dict["images"], [], dataset.coco_dict["categories"])
    return CocoDataset(dataset.images_dir, out_json)


def compare_labels(pseudo: CocoDataset, truth: CocoDataset, match_iou: float = 0.5) -> LabelQuality:
    """How right pseudo-labels are: matched with the true objects of truth's images, as `precision_recall` does.

    An image of truth that `pseudo` has left out counts as one without boxes. Raises ValueError for pseudo-labels of an
    image that truth does not have, and for other classes.
    """
    _require_same_classes(pseudo, truth)
    index_of = {name: index for index, name in enumerate(pseudo.file_names)}
    if unknown := index_of.keys() - set(truth.file_names):
        raise ValueError(f"{truth.annotations_path} has no image {min(unknown)}: give the truth of the same images.")
    kept = right = objects = 0
    for index, name in enumerate(truth.file_names):
        boxes, labels, crowd = truth.annotations(index)
        objects += int((~crowd).sum())
        if name in index_of:
            own_boxes, own_labels, _ = pseudo.annotations(index_of[name])  # best score first, as they were written
            is_right, counts = match(own_boxes, own_labels, boxes, labels, crowd, match_iou)
            kept, right = kept + int(counts.sum()), right + int(is_right.sum())
    return LabelQuality(
        boxes_per_image=kept / len(truth),
        objects_per_image=objects / len(truth),
        precision=right / kept if kept else float("nan"),
        recall=right / objects if objects else float("nan"),
    )


def _require_same_classes(first: CocoDataset, second: CocoDataset) -> None:
    if first.class_names != second.class_names:
        raise ValueError(
            f"{first.annotations_path} has the classes {', '.join(first.class_names)} and "
            f"{second.annotations_path} {', '.join(second.class_names)}: they must be the same."
        )


def _paths(dataset: CocoDataset) -> set[str]:
    return {str(dataset.image_path(index).resolve()) for index in range(len(dataset))}


def _common_folder(*datasets: CocoDataset) -> Path:
    folders = [dataset.images_dir.resolve() for dataset in datasets]
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:  # two drives
        raise ValueError(f"{folders[0]} and {folders[1]} share no folder: put the images on one drive.") from None


def _moved(row: dict[str, Any], dataset: CocoDataset, folder: Path) -> dict[str, Any]:
    """An image's entry with its file name relative to another folder."""
    prefix = dataset.images_dir.resolve().relative_to(folder)
    return row | {"file_name": (prefix / row["file_name"]).as_posix()}
