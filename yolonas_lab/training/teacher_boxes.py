"""What a teacher says about images, and which of it is right: the two questions behind every pseudo-label. Notebook 07.

Matching is that of COCO AP at one IoU (Lin et al., arXiv 1405.0312; notebook 02).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from yolonas_lab.boxes import iou, nms
from yolonas_lab.detect import detect
from yolonas_lab.detections import Detections
from yolonas_lab.sources import NamedImage

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
