"""Pseudo-labels: a teacher labels images that nobody has labeled, and what it is sure of becomes a COCO file.

Notebook 07. Lee, "Pseudo-Label", ICML 2013 workshop; for detection: Sohn et al., "A Simple Semi-Supervised Learning
Framework for Object Detection", arXiv 2005.04757. Every box keeps its score, the file says who made it and how.
"""

import json
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

import yolonas_lab
from yolonas_lab.boxes import nms, xyxy_to_xywh
from yolonas_lab.common import changes, check_same_classes, fingerprint, progress, unknown_name, weights_digest
from yolonas_lab.data.coco import CocoDataset, read_json, write_coco
from yolonas_lab.detect import detect
from yolonas_lab.detections import Detections
from yolonas_lab.sources import NamedImage, list_items, load_annotated_image, load_image

DESCRIPTION = "Pseudo-labels: boxes that a teacher predicted, not ones that somebody drew"
NMS_IOU = 0.6  # below AP's 0.7: there a second box of an object costs next to nothing, here it is a wrong label
SMALLEST = 0.01  # px, of a side; less is nothing once rounded to hundredths, as COCO does
Thresholds = float | Mapping[str, float]
"""A score threshold in (0, 1) for all classes, or one for each class by name."""


class UselessTeacherError(ValueError):
    """A teacher that has nothing to say about the images it was asked about."""


@dataclass(frozen=True)
class PseudoLabelReport:
    """What `make_pseudo_labels` wrote (or found written), and what it left out."""

    path: Path
    images: int  # in the file, each with at least one box
    boxes: dict[str, int]  # by class name
    images_without_boxes: int
    unreadable_images: int


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
    source = _unlabeled(images, teacher)
    check_teacher(teacher, source.class_names, "the data set")
    thresholds = _per_class(threshold, source.class_names)
    out, total = Path(out_json), len(source.file_names)
    if not out.parent.is_dir():
        raise FileNotFoundError(f"cannot write {out}: the folder {out.parent} does not exist; make it first.")
    made = {  # everything that decides the labels, as JSON gives it back
        "teacher": getattr(getattr(teacher, "config", None), "name", type(teacher).__name__),
        "teacher_sha256": weights_digest(teacher),
        "threshold": thresholds,
        "weighted": weighted,
        "nms_iou": nms_iou,
        "image_size": image_size if image_size is not None else getattr(teacher, "image_size", None),
        "images_dir": str(source.folder.resolve()),
        "images": total,
        "file_names_sha256": fingerprint("\n".join(source.file_names)),
        "yolonas_lab": yolonas_lab.__version__,
        "torch": torch.__version__,
    }
    if out.exists():
        content = read_json(out)
        _check_same_call(out, content.get("info", {}).get("pseudo_labels"), made)
        return _report(out, content)
    log = out.with_name(f"{out.name}.unfinished")
    entries, unreadable = _label(teacher, source, log, made, image_size, batch_size)
    if len(unreadable) == total:
        raise ValueError(f"None of the {total} images in {source.folder} can be read, first: {unreadable[0]}")
    kept, annotations, categories = _coco_rows(source, entries, weighted)
    if not annotations:
        raise UselessTeacherError(
            f"The teacher has no box above the threshold in any of {total} images: lower the threshold, or train the "
            "teacher longer or on more labels."
        )
    empty = len(entries) - len(kept)
    if unreadable:
        warnings.warn(f"{len(unreadable)} of {total} images cannot be read, first: {unreadable[0]}", stacklevel=2)
    if empty:
        warnings.warn(f"{empty} of {total} images have no box above the threshold and are left out.", stacklevel=2)
    counts = {"images_without_boxes": empty, "unreadable_images": len(unreadable)}
    write_coco(out, kept, annotations, categories, {"description": DESCRIPTION, "pseudo_labels": made, **counts})
    log.unlink()
    return _report(out, read_json(out))


class _Unlabeled(NamedTuple):
    """Images that nobody has labeled yet, and the classes that a teacher is to find in them."""

    folder: Path
    file_names: Sequence[str]  # relative to the folder
    sizes: Sequence[tuple[int, int] | None]  # annotated (height, width) of each; None: as the file has it
    class_names: Sequence[str]
    category_ids: Sequence[int]  # of each class, in the same order


def _unlabeled(images: str | os.PathLike | CocoDataset, teacher: nn.Module) -> _Unlabeled:
    """The images of a folder, with the teacher's classes, or of a data set, with its own; ValueError for labels."""
    if not isinstance(images, (str, os.PathLike)):
        indices = range(len(images))
        if labeled := [index for index in indices if len(images.annotations(index)[0])]:
            raise ValueError(
                f"{len(labeled)} of {len(images)} images of {images.annotations_path} have labels already, first "
                f"{images.file_names[labeled[0]]}: give the images without labels only, they would lose their true "
                "boxes."
            )
        sizes = [images.image_size(index) for index in indices]
        return _Unlabeled(images.images_dir, images.file_names, sizes, images.class_names, images.category_ids)
    folder, names = Path(images), getattr(teacher, "class_names", None)
    if names is None:
        raise ValueError("The teacher has no class_names, so its boxes cannot be named: set teacher.class_names.")
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}: check the path.")
    files = [path.name for path in list_items(folder)]
    for path in sorted(folder.glob("*.json")):  # some exports put the labels beside the images
        try:
            content = read_json(path)
            labeled = {row["image_id"] for row in content.get("annotations", ())}
            named = {row["file_name"] for row in content.get("images", ()) if row["id"] in labeled}
        except (ValueError, KeyError, TypeError):  # some other kind of file
            continue
        if found := sorted(named.intersection(files)):
            raise ValueError(
                f"{path} holds labels of {len(found)} images in {folder}, first {found[0]}: keep labeled images in "
                "another folder, or they would lose their true boxes."
            )
    return _Unlabeled(folder, files, [None] * len(files), list(names), range(1, len(names) + 1))


def check_teacher(teacher: nn.Module, class_names: Sequence[str], what: str) -> None:
    """Raise ValueError, naming both, unless the teacher has these classes in this order; `what` has them."""
    own, k = getattr(teacher, "class_names", None), len(class_names)
    if own is not None:
        check_same_classes(own, "The teacher", class_names, what)
    if getattr(teacher, "num_classes", k) != k:
        raise ValueError(f"The teacher predicts {teacher.num_classes} classes, but {what} has {k}: take another one.")


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


def _check_same_call(path: Path, found: Mapping[str, Any] | None, made: Mapping[str, Any]) -> None:
    """Raise FileExistsError for a file that another call made, or something else than this function."""
    if found is None:
        raise FileExistsError(f"{path} exists and holds no pseudo-labels of ours: give another out_json.")
    if others := changes(found, made):
        raise FileExistsError(f"{path} was made with another {others}: delete it, or give another out_json.")


def _label(
    teacher: nn.Module, source: _Unlabeled, log: Path, made: Mapping[str, Any], image_size: int | None, batch_size: int
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """What is found in each image, by file name, and what is wrong with those that cannot be read.

    The log grows by a line per image, so that hours of a teacher's work are never lost; its first line says what it is
    made with.
    """
    entries, whole = _read_log(log, made)
    waiting = [index for index, name in enumerate(source.file_names) if name not in entries]
    names, unreadable = list[str](), list[str]()
    thresholds = torch.tensor([made["threshold"][name] for name in source.class_names])  # (k,)
    readable, least = _read_images(source, waiting, names, unreadable), min(made["threshold"].values())
    found = teacher_boxes(teacher, readable, least, source.class_names, made["nms_iou"], image_size, batch_size)
    with open(log, "ab", buffering=0) as file:
        file.truncate(whole)
        if not whole:
            file.write(json.dumps(made).encode() + b"\n")
        for index, detections in enumerate(progress(found, "labeling", "image", total=len(waiting))):
            entries[names[index]] = entry = _entry(detections, thresholds)
            file.write(json.dumps({"file_name": names[index], **entry}).encode() + b"\n")
    return entries, unreadable


def _read_log(path: Path, made: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], int]:
    """What a stopped call had found in each image, by file name, and how many bytes of whole lines there are."""
    entries, whole = dict[str, dict[str, Any]](), 0
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True) if path.is_file() else ()):
        if not line.endswith(b"\n"):
            break  # stopped in the middle of a line
        try:
            content = json.loads(line)
        except ValueError:
            raise ValueError(f"Line {number + 1} of {path} is damaged: delete the file to start anew.") from None
        if number:
            entries[content.pop("file_name")] = content
        else:
            _check_same_call(path, content, made)
        whole += len(line)
    return entries, whole


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


def _entry(detections: Detections, thresholds: torch.Tensor) -> dict[str, Any]:
    """What is kept of an image's boxes, as plain values: xywh px, scores, labels."""
    assert detections.image is not None
    height, width = detections.image.shape[:2]
    boxes = xyxy_to_xywh(detections.boxes)  # (n, 4)
    keep = (detections.scores > thresholds[detections.labels]) & (boxes[:, 2:] >= SMALLEST).all(dim=1)
    bbox = boxes[keep].double().numpy().round(2).tolist()
    scores = detections.scores[keep].double().numpy().round(6).tolist()
    return {"width": width, "height": height, "bbox": bbox, "score": scores, "label": detections.labels[keep].tolist()}


def _coco_rows(
    source: _Unlabeled, entries: Mapping[str, Mapping[str, Any]], weighted: bool
) -> tuple[list[dict], list[dict], list[dict]]:
    """Images with boxes, in the source's order, and their annotations, both numbered from 1; the categories."""
    images, annotations = [], []
    for name in source.file_names:
        entry = entries.get(name)
        if entry is None or not entry["bbox"]:
            continue
        image = {"id": len(images) + 1, "file_name": name, "width": entry["width"], "height": entry["height"]}
        images.append(image)
        for bbox, score, label in zip(entry["bbox"], entry["score"], entry["label"]):
            row = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": source.category_ids[label]}
            row |= {"bbox": bbox, "area": round(bbox[2] * bbox[3], 2), "iscrowd": 0, "score": score}
            annotations.append(row | ({"weight": score} if weighted else {}))
    return images, annotations, [{"id": i, "name": name} for i, name in zip(source.category_ids, source.class_names)]


def _report(path: Path, content: Mapping[str, Any]) -> PseudoLabelReport:
    counted = Counter(row["category_id"] for row in content["annotations"])
    boxes = {row["name"]: counted[row["id"]] for row in content["categories"]}
    info = content["info"]
    return PseudoLabelReport(
        path, len(content["images"]), boxes, info["images_without_boxes"], info["unreadable_images"]
    )


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
    ids and count in full (weight 1, unless they say otherwise); those of `pseudo` get ids behind them. Raises
    ValueError for other classes and for an image that is in both.
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
    known = [row for row in guessed["annotations"] if row["image_id"] in image_ids]
    for number, row in enumerate(known, start=first_annotation):
        ids = {"image_id": image_ids[row["image_id"]], "category_id": category_ids[row["category_id"]]}
        annotations.append(row | {"id": number} | ids)
    write_coco(out_json, images, annotations, true["categories"])
    return CocoDataset(folder, out_json)
