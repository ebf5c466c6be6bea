"""Pseudo-labels: a teacher labels images that nobody has labeled, and what it is sure of becomes a COCO file.

Notebook 07. Lee, "Pseudo-Label", ICML 2013 workshop; for detection: Sohn et al., "A Simple Semi-Supervised Learning
Framework for Object Detection", arXiv 2005.04757. Every box keeps its score, the file says who made it and how.
"""

import hashlib
import json
import os
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

import yolonas_lab
from yolonas_lab.boxes import iou, nms, xyxy_to_xywh
from yolonas_lab.common import progress, unknown_name, weights_digest
from yolonas_lab.data.coco import CocoDataset, read_json, write_coco
from yolonas_lab.detect import detect
from yolonas_lab.detections import Detections
from yolonas_lab.sources import NamedImage, list_items, load_annotated_image, load_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# What a labeling that was stopped had done: one line per image, so that hours of a teacher's work are never lost.


class LabelLog:
    """A file that grows by a line per image; its first line says what it is made with.

    Opened as a context manager. `entries` are the images that are done, by name, those of an earlier call included.
    Raises ValueError for a file that was made with something else.
    """

    def __init__(self, path: Path, made: Mapping[str, Any]) -> None:
        self.path, self.made = path, made
        self.entries: dict[str, dict[str, Any]] = {}
        self._file: IO[str] | None = None
        self._whole = 0  # bytes of complete lines
        if path.is_file():
            self._read()

    def _read(self) -> None:
        lines = self.path.read_bytes().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()  # stopped in the middle of a line
        for number, line in enumerate(lines):
            try:
                content = json.loads(line)
            except ValueError:
                raise ValueError(
                    f"Line {number + 1} of {self.path} is damaged: delete the file to start anew."
                ) from None
            if number:
                self.entries[content.pop("file_name")] = content
            elif found := different(content, self.made):
                raise ValueError(
                    f"{self.path} was begun with another {', '.join(found)}: delete it, or give another out_json."
                )
            self._whole += len(line)

    def __enter__(self) -> "LabelLog":
        self._file = open(self.path, "a", encoding="utf-8", newline="\n")
        self._file.truncate(self._whole)
        if not self._whole:
            self._write(dict(self.made))
        return self

    def __exit__(self, *_: object) -> None:
        assert self._file is not None
        self._file.close()

    def add(self, file_name: str, entry: Mapping[str, Any]) -> None:
        """Note what was found in an image."""
        self.entries[file_name] = dict(entry)
        self._write({"file_name": file_name, **entry})

    def delete(self) -> None:
        """The work is done and written elsewhere."""
        self.path.unlink(missing_ok=True)

    def _write(self, content: dict[str, Any]) -> None:
        assert self._file is not None
        self._file.write(json.dumps(content) + "\n")
        self._file.flush()


def different(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """The names of the settings in which two descriptions differ."""
    return sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))


# What a teacher says about images, and which of it is right: the two questions behind every pseudo-label. Notebook 07.
#
# Matching is that of COCO AP at one IoU (Lin et al., arXiv 1405.0312; notebook 02).

NMS_IOU = 0.6  # below AP's 0.7: there a second box of an object costs next to nothing, here it is a wrong label


class UselessTeacherError(ValueError):
    """A teacher that has nothing to say about the images it was asked about."""


def check_teacher(teacher: nn.Module, class_names: Sequence[str], what: str) -> list[str]:
    """The class names, once they are known to be the teacher's too; `what` has them. Raises ValueError naming both."""
    names = list(class_names)
    own = getattr(teacher, "class_names", None)
    number = getattr(teacher, "num_classes", len(names))
    if own is not None and list(own) != names:
        raise ValueError(
            f"The teacher knows the classes {', '.join(own)}, but {what} has {', '.join(names)}: they must be the same "
            "in the same order; train the teacher on these classes first."
        )
    if number != len(names):
        raise ValueError(f"The teacher predicts {number} classes, but {what} has {len(names)} ({', '.join(names)}).")
    return names


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


def match(
    boxes: np.ndarray,
    labels: np.ndarray,
    true_boxes: np.ndarray,
    true_labels: np.ndarray,
    crowd: np.ndarray,
    match_iou: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Which boxes (n, 4) xyxy px, best score first, are right, and which count at all: (n,) bool, (n,) bool.

    Each takes the object of its class with the largest IoU of those that no better box has taken, if that is at least
    match_iou. A box that finds none and has that share of its own area on a crowd does not count.
    """
    right, counts = np.zeros(len(boxes), dtype=bool), np.ones(len(boxes), dtype=bool)
    if not len(boxes) or not len(true_boxes):
        return right, counts
    overlaps = iou(torch.from_numpy(boxes), torch.from_numpy(true_boxes)).numpy()  # (n, m)
    same = labels[:, None] == true_labels  # (n, m)
    free = ~crowd
    on_crowd = _share_inside(boxes, true_boxes) >= match_iou  # (n, m)
    for index in range(len(boxes)):
        possible = np.where(same[index] & free, overlaps[index], 0.0)
        best = int(possible.argmax())
        right[index] = possible[best] >= match_iou
        if right[index]:
            free[best] = False
        else:
            counts[index] = not (same[index] & crowd & on_crowd[index]).any()
    return right, counts


def _share_inside(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The share of each box's own area that lies in each other box: (n, 4), (m, 4) -> (n, m)."""
    low = np.maximum(boxes[:, None, :2], others[:, :2])
    high = np.minimum(boxes[:, None, 2:], others[:, 2:])
    shared = np.clip(high - low, 0, None).prod(-1)  # (n, m)
    own = (boxes[:, 2:] - boxes[:, :2]).prod(-1)[:, None]
    return shared / np.maximum(own, 1e-9)


# Images that nobody has labeled yet, from a folder or a COCO file without annotations. Notebook 07.


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


# How far can a teacher be trusted? Precision and recall of its labels against the score threshold. Notebook 07.
#
# One threshold for all classes or one for each, chosen on a few images whose objects are known: Zhang et al.,
# "FlexMatch", arXiv 2110.08263, section 3.2, on why classes need their own.

THRESHOLDS = np.arange(5, 96) / 100  # every hundredth from 0.05 to 0.95
PRECISION, RECALL = "#0072B2", "#D55E00"  # colors of the plot


@dataclass(frozen=True, eq=False)
class LabelCurves:
    """What a teacher's labels would be at each score threshold, counted on images whose objects are known."""

    class_names: tuple[str, ...]
    thresholds: np.ndarray  # (t,) ascending
    kept: np.ndarray  # (k, t) boxes with a score above the threshold
    right: np.ndarray  # (k, t) those of them that match an object of their class
    objects: np.ndarray  # (k,) objects to find
    images: int

    @property
    def precision(self) -> np.ndarray:
        """Share of the kept boxes that are right, per class, NaN where none is kept: (k, t)."""
        return _ratio(self.right, self.kept)

    @property
    def recall(self) -> np.ndarray:
        """Share of the objects that are found, per class, NaN where there are none: (k, t)."""
        return _ratio(self.right, self.objects[:, None])

    @property
    def overall(self) -> "LabelCurves":
        """The same with all classes counted as one (k = 1)."""
        kept, right, objects = (values.sum(0, keepdims=True) for values in (self.kept, self.right, self.objects))
        return LabelCurves(("all classes",), self.thresholds, kept, right, objects, self.images)

    @property
    def boxes_per_image(self) -> np.ndarray:
        """Kept boxes of all classes per image: (t,)."""
        return self.kept.sum(0) / self.images

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw precision and recall of all classes together against the threshold, single classes thin; returns ax."""
        import matplotlib.pyplot as plt

        ax = ax if ax is not None else plt.subplots(figsize=(6.5, 3.6))[1]
        overall = self.overall
        curves = (
            ("precision", PRECISION, overall.precision, self.precision),
            ("recall", RECALL, overall.recall, self.recall),
        )
        for name, color, together, classes in curves:
            ax.plot(self.thresholds, classes.T, color=color, linewidth=0.7, alpha=0.4)
            ax.plot(self.thresholds, together[0], color=color, linewidth=2.2, label=name)
        ax.set(xlim=(self.thresholds[0], self.thresholds[-1]), ylim=(0, 1.02))
        ax.set(xlabel="score threshold", ylabel="share (thin: each class)")
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, borderaxespad=0.2)
        return ax


def precision_recall(
    teacher: nn.Module,
    val_set: CocoDataset,
    match_iou: float = 0.5,
    nms_iou: float = NMS_IOU,
    image_size: int | None = None,
    batch_size: int = 8,
) -> LabelCurves:
    """Count a teacher's right and wrong boxes on labeled images at every threshold; use images it did not learn from.

    A box is right when its IoU with an object of its class that no better box has taken is at least match_iou. Raises
    ValueError for a teacher with other classes than val_set, images without any object, and settings out of range.
    """
    if not 0 < match_iou <= 1:
        raise ValueError(f"match_iou is {match_iou}: give a number above 0 and at most 1.")
    names = check_teacher(teacher, val_set.class_names, "val_set")
    thresholds = THRESHOLDS.astype(np.float32)  # the type of the scores: both compare alike to a hair
    kept, right = np.zeros((2, len(names), len(thresholds)), dtype=np.int64)
    objects = np.zeros(len(names), dtype=np.int64)
    found = teacher_boxes(teacher, images_of(val_set), thresholds[0], names, nms_iou, image_size, batch_size)
    for index, detections in enumerate(found):
        boxes, labels, crowd = val_set.annotations(index)
        objects += np.bincount(labels[~crowd], minlength=len(names))
        own = detections.labels.numpy()
        is_right, counts = match(detections.boxes.numpy(), own, boxes, labels, crowd, match_iou)
        above = detections.scores.numpy()[:, None] > thresholds  # (n, t)
        np.add.at(kept, own[counts], above[counts])
        np.add.at(right, own[is_right], above[is_right])
    if not objects.any():
        raise ValueError("val_set has no object to find: give labeled images.")
    return LabelCurves(tuple(names), THRESHOLDS, kept, right, objects, len(val_set))


def choose_threshold(curves: LabelCurves, beta: float = 1.0) -> float:
    """The threshold with the largest F-score of all classes together; of equal ones the highest.

    F = (1 + beta²) · precision · recall / (beta² · precision + recall): beta 1 weighs both alike, one below 1 prefers
    few wrong boxes to few missed objects. Raises ValueError for a beta that is not above 0, and
    UselessTeacherError, also a ValueError, where no box is right.
    """
    overall = curves.overall
    if not overall.right.any():
        raise UselessTeacherError(
            f"None of the teacher's boxes with a score above {curves.thresholds[0]} is right: a teacher this weak "
            "cannot label images; train it longer or on more labels."
        )
    return _best(overall, beta)[0]


def choose_thresholds(curves: LabelCurves, beta: float = 1.0) -> dict[str, float]:
    """A threshold for each class by name, chosen as `choose_threshold` does.

    A class without any right box gets the threshold of all classes together. Few objects of a class make the choice
    noisy: see the thin lines of the plot. Raises ValueError as `choose_threshold`.
    """
    fallback = choose_threshold(curves, beta)
    chosen = zip(curves.class_names, _best(curves, beta), curves.right.max(1) > 0, strict=True)
    return {name: best if found else fallback for name, best, found in chosen}


def _best(curves: LabelCurves, beta: float) -> list[float]:
    """For each class the highest of the thresholds with the largest F-score."""
    if not beta > 0:
        raise ValueError(f"beta is {beta}: give a number above 0.")
    # in counts: (1 + beta²) · right / (beta² · objects + kept), which is 0 and never NaN where nothing is right
    f_score = (1 + beta**2) * curves.right / np.maximum(beta**2 * curves.objects[:, None] + curves.kept, 1e-9)
    last = f_score.shape[1] - 1 - f_score[:, ::-1].argmax(1)  # (k,)
    return curves.thresholds[last].tolist()


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=np.broadcast_to(whole > 0, part.shape))


# True labels and pseudo-labels side by side: both in one COCO file, and how right the one is. Notebook 07.


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
