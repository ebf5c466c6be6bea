"""Pseudo-labels: a teacher labels images that nobody has labeled, and what it is sure of becomes a COCO file.

Notebook 07. Lee, "Pseudo-Label", ICML 2013 workshop; for detection: Sohn et al., "A Simple Semi-Supervised Learning
Framework for Object Detection", arXiv 2005.04757. Every box keeps its score, the file says who made it and how.
"""

import hashlib
import os
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import yolonas_lab
from yolonas_lab.boxes import xyxy_to_xywh
from yolonas_lab.data.coco import CocoDataset
from yolonas_lab.data.coco_json import read_json, write_coco
from yolonas_lab.detections import Detections
from yolonas_lab.progress import progress
from yolonas_lab.sources import NamedImage
from yolonas_lab.suggest import unknown_name
from yolonas_lab.training.digest import weights_digest
from yolonas_lab.training.label_log import LabelLog, different
from yolonas_lab.training.teacher_boxes import NMS_IOU, UselessTeacherError, check_teacher, teacher_boxes
from yolonas_lab.training.unlabeled import UnlabeledImages, unlabeled_images

DESCRIPTION = "Pseudo-labels: boxes that a teacher predicted, not ones that somebody drew"
_SMALLEST = 0.01  # px, of a side; less is nothing once rounded to hundredths, as COCO does
Thresholds = float | Mapping[str, float]
"""A score threshold in (0, 1) for all classes, or one for each class by name."""


@dataclass(frozen=True)
class PseudoLabelReport:
    """What `make_pseudo_labels` wrote (or found written), and what it left out; `print(report)` explains it."""

    path: Path
    images: int  # in the file, each with at least one box
    boxes: dict[str, int]  # by class name
    images_without_boxes: int
    unreadable_images: int

    def __str__(self) -> str:
        total = sum(self.boxes.values())
        per_image = total / max(self.images + self.images_without_boxes, 1)
        classes = ", ".join(f"{number} {name}" for name, number in self.boxes.items())
        lines = [
            f"{self.path}: {total} boxes in {self.images} images ({classes}); {per_image:.2f} boxes per image read"
        ]
        left_out = {"no box above the threshold": self.images_without_boxes, "cannot be read": self.unreadable_images}
        return "\n".join(lines + [f"{count} images left out: {why}" for why, count in left_out.items() if count])


def make_pseudo_labels(
    teacher: nn.Module,
    images: str | os.PathLike | CocoDataset,
    out_json: str | os.PathLike,
    threshold: Thresholds = 0.5,
    weighted: bool = True,
    nms_iou: float = NMS_IOU,
    image_size: int | None = None,
    batch_size: int = 8,
) -> PseudoLabelReport:
    """Write a COCO file with the teacher's boxes whose score is above the threshold, each with its "score".

    images: a folder of image files, or a CocoDataset without annotations. weighted: each box also gets a "weight", its
    score, by which the loss counts it. Images without a box are left out, for they would teach that all of them is
    background; they and unreadable files are counted in the report and in a warning. A call that was stopped goes on
    where it was; a finished file of the same call is only read. Raises ValueError for images that have labels, for a
    teacher with other classes, for a threshold outside (0, 1), and where no image can be read; UselessTeacherError,
    also a ValueError, where none has a box; FileExistsError for a file that was made otherwise.
    """
    source = unlabeled_images(images, teacher)
    check_teacher(teacher, source.class_names, "the data set")
    thresholds = _per_class(threshold, source.class_names)
    out = Path(out_json)
    if not out.parent.is_dir():
        raise FileNotFoundError(f"cannot write {out}: the folder {out.parent} does not exist; make it first.")
    made = _provenance(teacher, source, thresholds, weighted, nms_iou, image_size)
    if out.exists():
        return _report(out, _same_call(out, made))
    log = LabelLog(out.with_name(f"{out.name}.unfinished"), made)
    unreadable = _label(teacher, source, log, thresholds, nms_iou, image_size, batch_size)
    content = _coco_content(source, log.entries, weighted)
    counts = {"images_without_boxes": len(log.entries) - len(content["images"]), "unreadable_images": len(unreadable)}
    content["info"] = {"description": DESCRIPTION, "pseudo_labels": made, **counts}
    _complain(content, unreadable, source)
    write_coco(out, content["images"], content["annotations"], content["categories"], content["info"])
    log.delete()
    return _report(out, content)


def _label(
    teacher: nn.Module,
    source: UnlabeledImages,
    log: LabelLog,
    thresholds: Mapping[str, float],
    nms_iou: float,
    image_size: int | None,
    batch_size: int,
) -> list[str]:
    """Bring the log up to all images that can be read; returns what is wrong with each of the others."""
    waiting = [index for index, name in enumerate(source.file_names) if name not in log.entries]
    names, unreadable = deque[str](), list[str]()
    readable = _read(source, waiting, names, unreadable)
    lowest = min(thresholds.values())
    found = teacher_boxes(teacher, readable, lowest, source.class_names, nms_iou, image_size, batch_size)
    with log:
        for detections in progress(found, "labeling", "image", total=len(waiting)):
            log.add(names.popleft(), _entry(detections, thresholds))
    return unreadable


def _per_class(threshold: Thresholds, class_names: Sequence[str]) -> dict[str, float]:
    """A checked threshold for each class by name."""
    given = dict(threshold) if isinstance(threshold, Mapping) else dict.fromkeys(class_names, threshold)
    for name, value in given.items():
        if name not in class_names:
            raise ValueError(unknown_name("class in threshold", name, class_names))
        if not 0 < value < 1:
            of = f" of {name}" if isinstance(threshold, Mapping) else ""
            raise ValueError(f"threshold{of} is {value}: give a score between 0 and 1.")
    if missing := [name for name in class_names if name not in given]:
        raise ValueError(f"threshold has no value for {', '.join(missing)}: give one for each class.")
    return {name: float(given[name]) for name in class_names}


def _provenance(
    teacher: nn.Module,
    source: UnlabeledImages,
    thresholds: Mapping[str, float],
    weighted: bool,
    nms_iou: float,
    image_size: int | None,
) -> dict[str, Any]:
    """Everything that decides the labels, as JSON gives it back; a file with something else is of another call."""
    return {
        "teacher": getattr(getattr(teacher, "config", None), "name", type(teacher).__name__),
        "teacher_sha256": weights_digest(teacher),
        "threshold": dict(thresholds),
        "weighted": weighted,
        "nms_iou": nms_iou,
        "image_size": image_size if image_size is not None else getattr(teacher, "image_size", None),
        "images_dir": str(source.folder.resolve()),
        "images": len(source.file_names),
        "file_names_sha256": hashlib.sha256("\n".join(source.file_names).encode()).hexdigest(),
        "yolonas_lab": yolonas_lab.__version__,
        "torch": torch.__version__,
    }


def _same_call(path: Path, made: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a finished file, once it is known to be what this call would make."""
    content = read_json(path)
    found = content.get("info", {}).get("pseudo_labels")
    if found is None:
        raise FileExistsError(f"{path} exists and holds no pseudo-labels of ours: give another out_json.")
    if names := different(found, made):
        raise FileExistsError(f"{path} was made with another {', '.join(names)}: delete it, or give another out_json.")
    return content


def _read(
    source: UnlabeledImages, indices: Iterable[int], names: deque[str], unreadable: list[str]
) -> Iterator[NamedImage]:
    """The images one by one, each name put at the end of `names`; what cannot be read is noted and passed over."""
    for index in indices:
        name = source.file_names[index]
        try:
            image = source.load(index)
        except (ValueError, OSError) as error:
            unreadable.append(str(error))
            continue
        names.append(name)
        yield NamedImage(name, image)


def _entry(detections: Detections, thresholds: Mapping[str, float]) -> dict[str, Any]:
    """What is kept of an image's boxes, as plain values: xywh px, scores, labels."""
    least = torch.tensor([thresholds[name] for name in detections.class_names])  # (k,)
    seen = (xyxy_to_xywh(detections.boxes)[:, 2:] >= _SMALLEST).all(dim=1)
    keep = (detections.scores > least[detections.labels]) & seen
    assert detections.image is not None
    height, width = detections.image.shape[:2]
    boxes = xyxy_to_xywh(detections.boxes[keep]).double().numpy().round(2).tolist()
    scores = detections.scores[keep].double().numpy().round(6).tolist()
    return {"width": width, "height": height, "bbox": boxes, "score": scores, "label": detections.labels[keep].tolist()}


def _coco_content(source: UnlabeledImages, entries: Mapping[str, Mapping[str, Any]], weighted: bool) -> dict[str, Any]:
    """Images with boxes, in the source's order, and their annotations, both numbered from 1."""
    images, annotations = [], []
    for name in source.file_names:
        entry = entries.get(name)
        if entry is None or not entry["bbox"]:
            continue
        image_id = len(images) + 1
        images.append({"id": image_id, "file_name": name, "width": entry["width"], "height": entry["height"]})
        for bbox, score, label in zip(entry["bbox"], entry["score"], entry["label"], strict=True):
            row = {"id": len(annotations) + 1, "image_id": image_id, "category_id": source.category_ids[label]}
            row |= {"bbox": bbox, "area": round(bbox[2] * bbox[3], 2), "iscrowd": 0, "score": score}
            annotations.append(row | ({"weight": score} if weighted else {}))
    classes = zip(source.category_ids, source.class_names, strict=True)
    categories = [{"id": category_id, "name": name} for category_id, name in classes]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def _complain(content: Mapping[str, Any], unreadable: Sequence[str], source: UnlabeledImages) -> None:
    """Warn about what was left out; ValueError where nothing is left."""
    total = len(source.file_names)
    if len(unreadable) == total:
        raise ValueError(f"None of the {total} images in {source.folder} can be read, first: {unreadable[0]}")
    if not content["annotations"]:
        raise UselessTeacherError(
            f"The teacher has no box above the threshold in any of {total} images: lower the threshold, or train the "
            "teacher longer or on more labels."
        )
    if unreadable:
        warnings.warn(f"{len(unreadable)} of {total} images cannot be read, first: {unreadable[0]}", stacklevel=3)
    if empty := content["info"]["images_without_boxes"]:
        warnings.warn(f"{empty} of {total} images have no box above the threshold and are left out.", stacklevel=3)


def _report(path: Path, content: Mapping[str, Any]) -> PseudoLabelReport:
    names = {row["id"]: row["name"] for row in content["categories"]}
    counted = Counter(names[row["category_id"]] for row in content["annotations"])
    info = content["info"]
    return PseudoLabelReport(
        path=path,
        images=len(content["images"]),
        boxes={name: counted[name] for name in names.values()},
        images_without_boxes=info["images_without_boxes"],
        unreadable_images=info["unreadable_images"],
    )
