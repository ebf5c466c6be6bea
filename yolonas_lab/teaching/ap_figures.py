"""Drawings for average precision: which boxes of an image are right, wrong or missing (notebook 02)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from yolonas_lab.teaching.figures import (
    CORRECT,
    GROUND_TRUTH,
    HIGHLIGHT,
    MUTED,
    PREDICTION,
    WRONG,
    draw_boxes,
    show_image,
)


def draw_found(ax: Any, image: np.ndarray, objects: Any, boxes: Any, scores: Any = None) -> Any:
    """Draw an image with its ground truth objects (g, 4) in green and detections (d, 4) in orange, scored if given."""
    draw_boxes(ax, image, objects, color=GROUND_TRUTH)
    return draw_boxes(ax, None, boxes, scores=scores, color=PREDICTION, linewidth=1.3)


def number_objects(ax: Any, objects: Any) -> Any:
    """Write 1, 2, 3 … at the lower edge of each object's box (g, 4) xyxy px."""
    plate = {"boxstyle": "circle,pad=0.25", "facecolor": "white", "edgecolor": GROUND_TRUTH}
    for number, (x1, _, x2, y2) in enumerate(np.asarray(objects), start=1):
        ax.text((x1 + x2) / 2, y2 - 3, str(number), ha="center", fontsize=11, fontweight="bold", bbox=plate)
    return ax


def draw_verdicts(ax: Any, image: np.ndarray, boxes: Any, right: Any, missed: Any, texts: Sequence[str] = ()) -> Any:
    """Draw an image with its detections, right ones and wrong ones, and the missed objects as dashed frames.

    boxes (d, 4) and missed (m, 4) xyxy px, right (d,) bool; texts: one for each detection, or none.
    Raises ValueError where right or texts are not as many as boxes.
    """
    from matplotlib.patches import Rectangle

    right = np.asarray(right, bool)
    if len(right) != len(boxes) or (texts and len(texts) != len(boxes)):
        raise ValueError(
            f"there are {len(boxes)} boxes, {len(right)} verdicts and {len(texts)} texts; one for each box."
        )
    show_image(ax, image)
    for x1, y1, x2, y2 in np.asarray(missed, float).reshape(-1, 4):
        ax.add_patch(
            Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=HIGHLIGHT, linestyle="--", linewidth=2.2)
        )
    for verdict, color in ((False, WRONG), (True, CORRECT)):
        chosen = np.flatnonzero(right == verdict).tolist()
        names = [texts[i] for i in chosen] if texts else None
        labels = range(len(chosen)) if texts else None
        draw_boxes(ax, None, np.asarray(boxes)[chosen], labels, class_names=names, color=color, linewidth=1.8)
    return ax


def verdict_legend(figure: Any, true_positives: int, false_positives: int, false_negatives: int) -> None:
    """Write the counts under a figure, each beside the frame that `draw_verdicts` draws for it."""
    from matplotlib.patches import Patch

    handles = [
        Patch(fill=False, edgecolor=CORRECT, linewidth=2, label=f"{true_positives} true positives"),
        Patch(fill=False, edgecolor=WRONG, linewidth=2, label=f"{false_positives} false positives"),
        Patch(fill=False, edgecolor=HIGHLIGHT, linewidth=2, linestyle="--", label=f"{false_negatives} false negatives"),
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=3, fontsize=10)


def draw_precision_recall(ax: Any, precision: Any, recall: Any, heights: Any | None = None) -> Any:
    """Draw precision against recall along a ranked list, and the 101 interpolated precisions `heights` if given."""
    ax.plot(recall, precision, "o-", color=MUTED, markersize=5, label="along the list")
    if heights is not None:
        ax.plot(np.linspace(0, 1, 101), heights, ".", color="black", markersize=4, label="101 interpolated precisions")
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.06), xlabel="recall", ylabel="precision")
    return ax
