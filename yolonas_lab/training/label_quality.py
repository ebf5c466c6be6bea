"""How right a teacher's labels are: precision and recall at every score threshold, and which threshold to choose.

Notebook 07. Boxes are matched with objects as for COCO AP at one IoU (Lin et al., arXiv 1405.0312; notebook 02). On why
classes need a threshold each: Zhang et al., "FlexMatch", arXiv 2110.08263, section 3.2.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from yolonas_lab.boxes import iou
from yolonas_lab.common import check_same_classes
from yolonas_lab.data.coco import CocoDataset
from yolonas_lab.training.pseudo_labels import NMS_IOU, UselessTeacherError, check_teacher, images_of, teacher_boxes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MATCH_IOU = 0.5  # a box is right from this IoU with an object of its class
THRESHOLDS = np.arange(5, 96) / 100  # every hundredth from 0.05 to 0.95
PRECISION, RECALL = "#0072B2", "#D55E00"  # colors of the plot


def match(
    boxes: np.ndarray,
    labels: np.ndarray,
    true_boxes: np.ndarray,
    true_labels: np.ndarray,
    crowd: np.ndarray,
    match_iou: float = MATCH_IOU,
) -> tuple[np.ndarray, np.ndarray]:
    """Which boxes (n, 4) xyxy px, best score first, are right, and which count at all: (n,) bool, (n,) bool.

    Each takes the object of its class with the largest IoU of those that no better box has taken, if that is at least
    match_iou. A box that finds none and has that share of its own area on a crowd does not count.
    """
    right, counts = np.zeros(len(boxes), dtype=bool), np.ones(len(boxes), dtype=bool)
    if not len(boxes) or not len(true_boxes):
        return right, counts
    overlaps = iou(torch.from_numpy(boxes), torch.from_numpy(true_boxes)).numpy()  # (n, m)
    low, high = np.maximum(boxes[:, None, :2], true_boxes[:, :2]), np.minimum(boxes[:, None, 2:], true_boxes[:, 2:])
    own_area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)  # (n,)
    inside = np.clip(high - low, 0, None).prod(-1) / np.maximum(own_area, 1e-9)[:, None]  # (n, m)
    same = labels[:, None] == true_labels  # (n, m)
    free = ~crowd
    for index in range(len(boxes)):
        possible = np.where(same[index] & free, overlaps[index], 0.0)
        best = int(possible.argmax())
        right[index] = possible[best] >= match_iou
        if right[index]:
            free[best] = False
        else:
            counts[index] = not (same[index] & crowd & (inside[index] >= match_iou)).any()
    return right, counts


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
        for name, color in (("precision", PRECISION), ("recall", RECALL)):
            ax.plot(self.thresholds, getattr(self, name).T, color=color, linewidth=0.7, alpha=0.4)
            ax.plot(self.thresholds, getattr(self.overall, name)[0], color=color, linewidth=2.2, label=name)
        ax.set(xlim=(self.thresholds[0], self.thresholds[-1]), ylim=(0, 1.02))
        ax.set(xlabel="score threshold", ylabel="share (thin: each class)")
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, borderaxespad=0.2)
        return ax


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=np.broadcast_to(whole > 0, part.shape))


def precision_recall(
    teacher: nn.Module,
    val_set: CocoDataset,
    nms_iou: float = NMS_IOU,
    image_size: int | None = None,
    batch_size: int = 8,
) -> LabelCurves:
    """Count a teacher's right and wrong boxes on labeled images at every threshold; use images it did not learn from.

    A box is right when its IoU with an object of its class that no better box has taken is at least 0.5. Raises
    ValueError for a teacher with other classes than val_set.
    """
    names = val_set.class_names
    check_teacher(teacher, names, "val_set")
    thresholds = THRESHOLDS.astype(np.float32)  # scores are float32: compared as float64, 0.3 is not above 0.3
    kept, right = np.zeros((2, len(names), len(thresholds)), dtype=np.int64)  # (k, t) each
    objects = np.zeros(len(names), dtype=np.int64)  # (k,)
    found = teacher_boxes(teacher, images_of(val_set), thresholds[0], names, nms_iou, image_size, batch_size)
    for index, detections in enumerate(found):
        boxes, labels, crowd = val_set.annotations(index)
        objects += np.bincount(labels[~crowd], minlength=len(names))
        own = detections.labels.numpy()  # (n,)
        is_right, counts = match(detections.boxes.numpy(), own, boxes, labels, crowd)
        above = detections.scores.numpy()[:, None] > thresholds  # (n, t)
        np.add.at(kept, own[counts], above[counts])
        np.add.at(right, own[is_right], above[is_right])
    return LabelCurves(tuple(names), THRESHOLDS, kept, right, objects, len(val_set))


def choose_thresholds(curves: LabelCurves) -> dict[str, float]:
    """For each class by name the highest threshold with the largest F-score, 2 · right / (objects + kept).

    A class without any right box gets the threshold of all classes together. Few objects of a class make it noisy.
    Raises UselessTeacherError, also a ValueError, where no box is right.
    """
    if not curves.right.any():
        raise UselessTeacherError(f"None of the teacher's boxes with a score above {curves.thresholds[0]} is right.")

    def best(c: LabelCurves) -> list[float]:
        f_score = 2 * c.right / np.maximum(c.objects[:, None] + c.kept, 1)  # (k, t)
        last = f_score.shape[1] - 1 - f_score[:, ::-1].argmax(1)  # (k,)
        return c.thresholds[last].tolist()

    (fallback,) = best(curves.overall)
    chosen = zip(curves.class_names, best(curves), curves.right.max(1) > 0)
    return {name: own if found else fallback for name, own, found in chosen}


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


def compare_labels(pseudo: CocoDataset, truth: CocoDataset) -> LabelQuality:
    """How right pseudo-labels are: matched with the true objects of truth's images, as `precision_recall` does.

    An image that `pseudo` has left out counts as one without boxes. Raises ValueError for other images or classes.
    """
    check_same_classes(pseudo.class_names, str(pseudo.annotations_path), truth.class_names, str(truth.annotations_path))
    index_of = {name: index for index, name in enumerate(pseudo.file_names)}
    if unknown := index_of.keys() - set(truth.file_names):
        raise ValueError(f"{truth.annotations_path} has no image {min(unknown)}: give the truth of the same images.")
    kept = right = objects = 0
    for index, name in enumerate(truth.file_names):
        boxes, labels, crowd = truth.annotations(index)
        objects += int((~crowd).sum())
        if name in index_of:
            own_boxes, own_labels, _ = pseudo.annotations(index_of[name])  # best score first, as they were written
            is_right, counts = match(own_boxes, own_labels, boxes, labels, crowd)
            kept, right = kept + int(counts.sum()), right + int(is_right.sum())
    return LabelQuality(
        boxes_per_image=kept / len(truth),
        objects_per_image=objects / len(truth),
        precision=right / kept if kept else float("nan"),
        recall=right / objects if objects else float("nan"),
    )
