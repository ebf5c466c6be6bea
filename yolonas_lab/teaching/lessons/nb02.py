"""Which boxes of an image are right, wrong or missing, drawn; and a simulated detector to judge (notebook 02).

The detector looks at the ground truth and spoils it by known amounts, so that a reader can turn dials to see what
average precision punishes. It is no detector: it never sees a pixel.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import torch

from yolonas_lab.detections import Detections
from yolonas_lab.teaching import figures
from yolonas_lab.teaching.figures import CORRECT, GROUND_TRUTH, HIGHLIGHT, MUTED, PREDICTION, WRONG

MISSED = {"fill": False, "edgecolor": HIGHLIGHT, "linestyle": "--"}


def draw_found(ax: Any, image: np.ndarray, objects: Any, boxes: Any, scores: Any = None) -> Any:
    """Draw an image with its ground truth objects (g, 4) in green and detections (d, 4) in orange, scored if given."""
    figures.draw_boxes(ax, image, objects, color=GROUND_TRUTH)
    return figures.draw_boxes(ax, None, boxes, scores=scores, color=PREDICTION, linewidth=1.3)


def number_objects(ax: Any, objects: Any) -> Any:
    """Write 1, 2, 3 … at the lower edge of each object's box (g, 4) xyxy px."""
    plate = {"boxstyle": "circle,pad=0.25", "facecolor": "white", "edgecolor": GROUND_TRUTH}
    for number, (x1, _, x2, y2) in enumerate(np.asarray(objects), start=1):
        ax.text((x1 + x2) / 2, y2 - 3, str(number), ha="center", fontsize=11, fontweight="bold", bbox=plate)
    return ax


def draw_verdicts(ax: Any, image: np.ndarray, boxes: Any, right: Any, missed: Any, texts: Sequence[str]) -> Any:
    """Draw an image with detections (d, 4), each right (d,) or wrong and with its text, and missed objects (m, 4)."""
    figures.show_image(ax, image)
    for box in np.asarray(missed, float).reshape(-1, 4).tolist():
        figures.add_rectangle(ax, box, linewidth=2.2, **MISSED)
    for verdict, color in ((False, WRONG), (True, CORRECT)):
        chosen = np.flatnonzero(np.asarray(right, bool) == verdict).tolist()
        own = np.asarray(boxes)[chosen]
        figures.draw_boxes(ax, None, own, chosen, class_names=texts, color=color, linewidth=1.8)  # texts as class names
    return ax


def verdict_legend(figure: Any, true_positives: int, false_positives: int, false_negatives: int) -> None:
    """Write the counts under a figure, each beside the frame that `draw_verdicts` draws for it."""
    from matplotlib.patches import Patch

    handles = [
        Patch(fill=False, edgecolor=CORRECT, linewidth=2, label=f"{true_positives} true positives"),
        Patch(fill=False, edgecolor=WRONG, linewidth=2, label=f"{false_positives} false positives"),
        Patch(linewidth=2, label=f"{false_negatives} false negatives", **MISSED),
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=3, fontsize=10)


def draw_precision_recall(ax: Any, precision: Any, recall: Any, heights: Any) -> Any:
    """Draw precision against recall along a ranked list, and the 101 interpolated precisions `heights`."""
    ax.plot(recall, precision, "o-", color=MUTED, markersize=5, label="along the list")
    ax.plot(np.linspace(0, 1, 101), heights, ".", color="black", markersize=4, label="101 interpolated precisions")
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.06), xlabel="recall", ylabel="precision")
    return ax


FALSE_ALARM_SIZE = (0.2, 0.6)  # smallest and largest side of an invented box, as a part of the image's side
SMALLEST_SIDE = 1.0  # px: no detection is thinner


@dataclass(frozen=True)
class Faults:
    """The dials of the simulated detector; all 0 with score_quality 1 is a perfect one.

    jitter: standard deviation of each side of a box, as a part of the box's width or height (at least 0).
    misses: probability that an object is not found. confusions: probability that a found one gets a wrong class.
    false_alarms: mean number of invented boxes per image (at least 0).
    score_quality: 1, a score says how good a box is (its IoU where the class is right, else 0); 0, it says nothing.
    """

    jitter: float = 0.08
    misses: float = 0.1
    confusions: float = 0.05
    false_alarms: float = 2.0
    score_quality: float = 0.5


def simulate(dataset: Any, faults: Faults = Faults(), seed: int = 0) -> list[Detections]:
    """Detections for each image of a `CocoDataset` from its ground truth and the faults alone, without crowds.

    Every fault has random numbers of its own, so turning one dial leaves what the others do as it was.
    """
    results = []
    for index in range(len(dataset)):
        boxes, labels, crowd = dataset.annotations(index)
        size, names = dataset.image_size(index), dataset.class_names
        results.append(simulate_image(boxes[~crowd], labels[~crowd], size, names, faults, f"{seed}/{index}"))
    return results


def simulate_image(
    boxes: np.ndarray, labels: np.ndarray, size: tuple[int, int], names: Sequence[str], faults: Faults, seed: Any
) -> Detections:
    """Detections for one image of `size` (height, width) px with ground truth boxes (n, 4) xyxy px and labels (n,)."""
    height, width = size
    found: list[tuple[float, list[float], int]] = []
    for number, (box, label) in enumerate(zip(np.asarray(boxes).tolist(), np.asarray(labels).tolist())):
        rng = Random(f"{seed}/object {number}")
        missed, confused, which, luck = (rng.random() for _ in range(4))
        seen = _jittered(rng, box, height, width, faults.jitter)
        is_wrong = confused < faults.confusions and len(names) > 1
        if missed >= faults.misses:
            guess = (label + 1 + int(which * (len(names) - 1))) % len(names) if is_wrong else label
            found.append((_score(0.0 if is_wrong else _iou(seen, box), luck, faults.score_quality), seen, guess))
    for number in range(_poisson(Random(f"{seed}/count").random(), faults.false_alarms)):
        rng = Random(f"{seed}/false alarm {number}")
        guess, luck = int(rng.random() * len(names)), rng.random()
        found.append((_score(0.0, luck, faults.score_quality), _invented(rng, height, width), guess))
    found.sort(key=lambda item: -item[0])  # best score first, as a detector returns them
    scores, seen_boxes, guesses = zip(*found) if found else ((), (), ())
    return Detections(
        boxes=torch.tensor(seen_boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor(scores, dtype=torch.float32),
        labels=torch.tensor(guesses, dtype=torch.int64),
        class_names=names,
    )


def _score(truth: float, luck: float, quality: float) -> float:
    """A score in [0, 1] that mixes what is true (an IoU, or 0) with luck; squared, so that many are low, as in life."""
    return (quality * truth + (1 - quality) * luck) ** 2


def _jittered(rng: Random, box: list[float], height: int, width: int, jitter: float) -> list[float]:
    """The box with each side moved by a normal number of its width or height, inside the image."""
    sides = (box[2] - box[0], box[3] - box[1]) * 2
    x1, y1, x2, y2 = (value + jitter * side * _normal(rng) for value, side in zip(box, sides))
    left, right = _within(x1, x2, width)
    top, bottom = _within(y1, y2, height)
    return [left, top, right, bottom]


def _within(a: float, b: float, limit: float) -> tuple[float, float]:
    """Two ends in order, inside [0, limit] and at least SMALLEST_SIDE apart."""
    low, high = max(0.0, min(a, b)), min(limit, max(a, b))
    low = min(low, limit - SMALLEST_SIDE)
    return low, max(high, low + SMALLEST_SIDE)


def _invented(rng: Random, height: int, width: int) -> list[float]:
    low, high = FALSE_ALARM_SIZE
    w, h = (low + (high - low) * rng.random()) * width, (low + (high - low) * rng.random()) * height
    x, y = rng.random() * (width - w), rng.random() * (height - h)
    return [x, y, x + w, y + h]


def _normal(rng: Random) -> float:
    """A standard normal number (Box and Muller) from random(), which every version of Python draws alike."""
    return math.sqrt(-2 * math.log(1 - rng.random())) * math.cos(2 * math.pi * rng.random())


def _poisson(uniform: float, mean: float) -> int:
    """The Poisson number at this quantile: how many of many rare events happen; it never falls when the mean grows."""
    count, probability = 0, math.exp(-mean)
    total = probability
    while uniform > total and probability > 0:
        count += 1
        probability *= mean / count
        total += probability
    return count


def _iou(a: list[float], b: list[float]) -> float:
    """IoU of two boxes as plain numbers: for single pairs much faster than `yl.boxes.iou`."""
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
    return w * h / union if union > 0 else 0.0
