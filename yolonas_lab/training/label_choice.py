"""How far can a teacher be trusted? Precision and recall of its labels against the score threshold. Notebook 07.

One threshold for all classes or one for each, chosen on a few images whose objects are known: Zhang et al.,
"FlexMatch", arXiv 2110.08263, section 3.2, on why classes need their own.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from yolonas_lab.data.coco import CocoDataset
from yolonas_lab.training.teacher_boxes import (
    NMS_IOU,
    UselessTeacherError,
    check_teacher,
    images_of,
    match,
    teacher_boxes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
