"""Pseudo-labels: a teacher labels images that nobody has labeled, and what it is sure of becomes a COCO file.

Notebook 07. Lee, "Pseudo-Label", ICML 2013 workshop; for detection: Sohn et al., "A Simple Semi-Supervised Learning
Framework for Object Detection", arXiv 2005.04757. Every box keeps its score, the file says who made it and how.
"""

import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

import yolonas_lab
from yolonas_lab.boxes import nms, xyxy_to_xywh
from yolonas_lab.common import changes, check_same_classes, fingerprint, progress, weights_digest, write_bytes
from yolonas_lab.data.coco import CocoDataset, read_json, write_coco
from yolonas_lab.detect import detect
from yolonas_lab.detections import Detections
from yolonas_lab.sources import NamedImage, list_items, load_annotated_image, load_image

DESCRIPTION = "Pseudo-labels: boxes that a teacher predicted, not ones that somebody drew"
NMS_IOU = 0.6  # below AP's 0.7: there a second box of an object costs next to nothing, here it is a wrong label
SMALLEST = 0.01  # px, of a side; less is nothing once rounded to hundredths, as COCO does


class UselessTeacherError(ValueError):
    """A teacher that has nothing to say about the images it was asked about."""


@dataclass(frozen=True)
class PseudoLabelReport:
    """What `make_pseudo_labels` wrote (or found written), and what it left out."""

    path: Path
    images: int  # in the file, each with at least one box
    boxes: int
    images_without_boxes: int
    unreadable_images: int


def make_pseudo_labels(
    teacher: nn.Module,
    images: str | os.PathLike | CocoDataset,
    out_json: str | os.PathLike,
    threshold: float | Mapping[str, float] = 0.5,
    weighted: bool = True,
    nms_iou: float = NMS_IOU,
    image_size: int | None = None,
    batch_size: int = 8,
) -> PseudoLabelReport:
    """Write a COCO file with the teacher's boxes whose score is above the threshold, each with its "score".

    images: a folder of image files, or a CocoDataset without annotations. threshold: a score in (0, 1) for all classes,
    or one for each class by name. weighted: each box also gets a "weight", its score, by which the loss counts it.
    Images without a box are left out, for they would teach that all of them is background; they and unreadable files
    are counted in the report and in a warning. A call that was stopped goes on where it was; a finished file of the
    same call is only read. Raises ValueError for images that have labels, another teacher's classes and a threshold out
    of range, UselessTeacherError where no image has a box, FileExistsError for a file that was made otherwise.
    """
    source = _unlabeled(images, teacher)
    check_teacher(teacher, source.class_names, "the data set")
    out, total = Path(out_json), len(source.file_names)
    made = {  # everything that decides the labels, as JSON gives it back
        "teacher": getattr(getattr(teacher, "config", None), "name", type(teacher).__name__),
        "teacher_sha256": weights_digest(teacher),
        "threshold": _per_class(threshold, source.class_names),
        "weighted": weighted,
        "nms_iou": nms_iou,
        "image_size": image_size if image_size is not None else getattr(teacher, "image_size", None),
        "images_dir": str(source.folder.resolve()),
        "images": total,
        "file_names_sha256": fingerprint("\n".join(source.file_names)),
        "yolonas_lab": yolonas_lab.__version__,
        "torch": torch.__version__,
    }
    if not out.exists():
        log = out.with_name(f"{out.name}.unfinished")
        entries, unreadable = _label(teacher, source, log, made, image_size, batch_size)
        kept, annotations = [], []
        for entry in (entries[name] for name in source.file_names if name in entries and entries[name]["annotations"]):
            kept.append({"id": len(kept) + 1} | {key: entry[key] for key in ("file_name", "width", "height")})
            for row in entry["annotations"]:
                annotations.append({"id": len(annotations) + 1, "image_id": len(kept), **row})
        empty = len(entries) - len(kept)
        if unreadable:
            warnings.warn(f"{len(unreadable)} of {total} images cannot be read, first: {unreadable[0]}", stacklevel=2)
        if not annotations:
            raise UselessTeacherError(f"The teacher has no box above the threshold in any of {total} images: lower it.")
        if empty:
            warnings.warn(f"{empty} of {total} images have no box above the threshold and are left out.", stacklevel=2)
        info = {"description": DESCRIPTION, "pseudo_labels": made}
        info |= {"images_without_boxes": empty, "unreadable_images": len(unreadable)}
        categories = [{"id": i, "name": name} for i, name in zip(source.category_ids, source.class_names)]
        write_coco(out, kept, annotations, categories, info)
        log.unlink()
    content = read_json(out)
    info = content.get("info", {})
    _check_same_call(out, info.get("pseudo_labels", {}), made)
    without, unread = info["images_without_boxes"], info["unreadable_images"]
    return PseudoLabelReport(out, len(content["images"]), len(content["annotations"]), without, unread)


class _Unlabeled(NamedTuple):
    """Images that nobody has labeled yet, and the classes that a teacher is to find in them."""

    folder: Path
    file_names: Sequence[str]  # relative to the folder
    sizes: Sequence[tuple[int, int] | None]  # annotated (height, width) of each; None: as the file has it
    class_names: Sequence[str]
    category_ids: Sequence[int]  # of each class, in the same order


def _unlabeled(images: str | os.PathLike | CocoDataset, teacher: nn.Module) -> _Unlabeled:
    """The images of a folder, with the teacher's classes, or of a data set, with its own; ValueError for labels."""
    if isinstance(images, (str, os.PathLike)):
        folder, names = Path(images), getattr(teacher, "class_names", None)
        if names is None:
            raise ValueError("The teacher has no class_names, so its boxes cannot be named: set teacher.class_names.")
        if not folder.is_dir():
            raise FileNotFoundError(f"There is no folder {folder}: check the path.")
        files = [path.name for path in list_items(folder)]
        return _Unlabeled(folder, files, [None] * len(files), list(names), range(1, len(names) + 1))
    indices = range(len(images))
    if labeled := [index for index in indices if len(images.annotations(index)[0])]:
        raise ValueError(
            f"{len(labeled)} of {len(images)} images of {images.annotations_path} have labels already, first "
            f"{images.file_names[labeled[0]]}: give the images without labels only."
        )
    sizes = [images.image_size(index) for index in indices]
    return _Unlabeled(images.images_dir, images.file_names, sizes, images.class_names, images.category_ids)


def check_teacher(teacher: nn.Module, class_names: Sequence[str], what: str) -> None:
    """Raise ValueError unless a teacher that names its classes has these, which `what` has, in this order."""
    if getattr(teacher, "class_names", None) is not None:
        check_same_classes(teacher.class_names, "The teacher", class_names, what)  # type: ignore[arg-type]


def _per_class(threshold: float | Mapping[str, float], class_names: Sequence[str]) -> dict[str, float]:
    """A checked threshold for each class by name."""
    given = threshold if isinstance(threshold, Mapping) else dict.fromkeys(class_names, threshold)
    if given.keys() != set(class_names):
        raise ValueError(f"threshold has {', '.join(given)}: give a value for each of {', '.join(class_names)}.")
    for name, value in given.items():
        if not 0 < value < 1:
            raise ValueError(f"threshold of {name} is {value}: give a score between 0 and 1.")
    return {name: float(given[name]) for name in class_names}


def _check_same_call(path: Path, found: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    """Raise FileExistsError for a file that another call made, or something else than this function."""
    if others := changes(found, made):
        raise FileExistsError(f"{path} was made with another {others}: delete it, or give another out_json.")


def _label(
    teacher: nn.Module, source: _Unlabeled, log: Path, made: Mapping[str, Any], image_size: int | None, batch_size: int
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """What is found in each image, by file name, and what is wrong with those that cannot be read.

    The log, whose first line is `made`, grows by a line of JSON per image: hours of a teacher's work are never lost.
    """
    lines = log.read_bytes().split(b"\n")[:-1] if log.is_file() else []  # what follows the last newline was cut off
    rows = [json.loads(line) for line in lines] or [dict(made)]
    _check_same_call(log, rows[0], made)
    entries = {row["file_name"]: row for row in rows[1:]}
    names, unreadable = list[str](), list[str]()
    waiting = [index for index, name in enumerate(source.file_names) if name not in entries]
    thresholds = torch.tensor([made["threshold"][name] for name in source.class_names])  # (k,)
    readable, least = _read_images(source, waiting, names, unreadable), min(made["threshold"].values())
    found = teacher_boxes(teacher, readable, least, source.class_names, made["nms_iou"], image_size, batch_size)
    write_bytes(log, b"".join(line + b"\n" for line in lines or [json.dumps(made).encode()]))
    with open(log, "ab", buffering=0) as file:
        for index, detections in enumerate(progress(found, "labeling", "image", total=len(waiting))):
            assert detections.image is not None
            height, width = detections.image.shape[:2]
            boxes = xyxy_to_xywh(detections.boxes)  # (n, 4)
            keep = (detections.scores > thresholds[detections.labels]) & (boxes[:, 2:] >= SMALLEST).all(dim=1)
            bboxes = boxes[keep].double().numpy().round(2).tolist()
            scores = detections.scores[keep].double().numpy().round(6).tolist()
            entry = {"file_name": names[index], "width": width, "height": height, "annotations": []}
            for bbox, score, label in zip(bboxes, scores, detections.labels[keep].tolist()):
                row = {"category_id": source.category_ids[label], "bbox": bbox, "area": round(bbox[2] * bbox[3], 2)}
                row |= {"iscrowd": 0, "score": score} | ({"weight": score} if made["weighted"] else {})
                entry["annotations"].append(row)
            entries[names[index]] = entry
            file.write(json.dumps(entry).encode() + b"\n")
    return entries, unreadable


def _read_images(
    source: _Unlabeled, indices: Iterable[int], names: list[str], unreadable: list[str]
) -> Iterator[NamedImage]:
    """The images one by one, each name added to `names`; what cannot be read is noted and passed over."""
    for index in indices:
        path = source.folder / source.file_names[index]
        try:  # as training will see it, whatever its EXIF tag says
            height, width = source.sizes[index] or load_image(path).shape[:2]
            image = load_annotated_image(path, width, height)
        except (ValueError, OSError) as error:
            unreadable.append(str(error))
            continue
        names.append(source.file_names[index])
        yield NamedImage(names[-1], image)


def teacher_boxes(
    teacher: nn.Module,
    images: Iterable[NamedImage],
    threshold: float,
    class_names: Sequence[str],
    nms_iou: float = NMS_IOU,
    image_size: int | None = None,
    batch_size: int = 8,
) -> Iterator[Detections]:
    """The teacher's boxes with a score above threshold, image by image, best first; each object gets one class.

    NMS class by class, as for AP, would label a doubtful object once per class; so a box goes too when a better one
    of another class overlaps it with IoU > nms_iou. Settings and errors as in `detect`.
    """
    for found in detect(teacher, images, threshold, nms_iou, image_size, batch_size, class_names):
        keep = nms(found.boxes, found.scores, nms_iou)
        yield Detections(found.boxes[keep], found.scores[keep], found.labels[keep], found.class_names, found.image)


def images_of(dataset: Any) -> Iterator[NamedImage]:
    """The images of a data set, read one by one."""
    for index in range(len(dataset)):
        sample = dataset[index]
        yield NamedImage(sample.file_name, sample.image)


def hide_labels(dataset: CocoDataset, out_json: str | os.PathLike) -> CocoDataset:
    """The same images without their labels, as a file of its own: for experiments, in which the truth must be known."""
    write_coco(out_json, dataset.coco_dict["images"], [], dataset.coco_dict["categories"])
    return CocoDataset(dataset.images_dir, out_json)


def merge_labels(labeled: CocoDataset, pseudo: CocoDataset, out_json: str | os.PathLike) -> CocoDataset:
    """One data set of images with true and with pseudo-labels, whose file is written to out_json atomically.

    File names in it are relative to the folder that both images folders share. True images and annotations keep their
    ids; those of `pseudo` get ids behind them. Raises ValueError for other classes and for an image that is in both.
    """
    check_same_classes(
        labeled.class_names, str(labeled.annotations_path), pseudo.class_names, str(pseudo.annotations_path)
    )
    paths = [{str(data.image_path(index).resolve()) for index in range(len(data))} for data in (labeled, pseudo)]
    if both := paths[0] & paths[1]:
        raise ValueError(f"{len(both)} images have true labels and pseudo-labels, first {min(both)}: leave one out.")
    folders = [data.images_dir.resolve() for data in (labeled, pseudo)]
    folder = Path(os.path.commonpath(folders))

    def moved(row: dict[str, Any], old: Path) -> dict[str, Any]:
        return row | {"file_name": (old.relative_to(folder) / row["file_name"]).as_posix()}

    true, guessed = labeled.coco_dict, pseudo.coco_dict
    annotations = list(true.get("annotations", ()))
    first_image = 1 + max(row["id"] for row in true["images"])
    first_annotation = 1 + max((row["id"] for row in annotations), default=0)
    image_ids = {row["id"]: first_image + number for number, row in enumerate(guessed["images"])}
    category_ids = dict(zip(pseudo.category_ids, labeled.category_ids))
    images = [moved(row, folders[0]) for row in true["images"]]
    images += [moved(row, folders[1]) | {"id": image_ids[row["id"]]} for row in guessed["images"]]
    for number, row in enumerate(guessed["annotations"], start=first_annotation):
        ids = {"image_id": image_ids[row["image_id"]], "category_id": category_ids[row["category_id"]]}
        annotations.append(row | {"id": number} | ids)
    write_coco(out_json, images, annotations, true["categories"])
    return CocoDataset(folder, out_json)
