"""Self-checks, hints and reference solutions of notebook 02 (COCO average precision).

The rules are those of pycocotools' COCOeval.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from yolonas_lab.teaching.exercises import Case, Mistake, check_cases, show_hint, show_solution

# Notebook 02's exercises as they should be, and plausible wrong answers, so that the checks can name a mistake.
#
# The rules are those of pycocotools' COCOeval.


def match(overlaps: np.ndarray, threshold: float) -> list[int]:
    """The object (column) that each detection (row, best score first) takes, or -1."""
    taken: set[int] = set()
    partners = []
    for row in overlaps:
        free = [g for g in range(len(row)) if g not in taken and row[g] >= threshold]
        partner = max(free, key=lambda g: row[g], default=-1)
        taken.add(partner)
        partners.append(partner)
    return partners


def precision_recall(is_true: np.ndarray, num_objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall after each detection of the ranked list, both (d,)."""
    true_positives = np.cumsum(is_true)
    return true_positives / np.arange(1, len(is_true) + 1), true_positives / num_objects


def average_precision(is_true: np.ndarray, num_objects: int) -> float:
    """Mean over the recalls 0, 0.01 … 1 of the best precision at that recall or a higher one."""
    precision, recall = precision_recall(is_true, num_objects)
    heights = [precision[recall >= r].max(initial=0.0) for r in np.linspace(0, 1, 101)]
    return float(np.mean(heights))


def match_reusing(overlaps: np.ndarray, threshold: float) -> list[int]:
    return [match(row[None], threshold)[0] for row in overlaps]


def match_strict(overlaps: np.ndarray, threshold: float) -> list[int]:
    return match(overlaps, float(np.nextafter(threshold, 1)))


def match_without_threshold(overlaps: np.ndarray, threshold: float) -> list[int]:
    return match(overlaps, -1.0)


def match_verdicts(overlaps: np.ndarray, threshold: float) -> list[bool]:
    return [partner >= 0 for partner in match(overlaps, threshold)]


def match_first(overlaps: np.ndarray, threshold: float) -> list[int]:
    return match(np.where(overlaps >= threshold, 1.0, 0.0), 0.5)


def match_favourite_only(overlaps: np.ndarray, threshold: float) -> list[int]:
    partners: list[int] = []
    for row in overlaps:
        best = int(row.argmax()) if len(row) else -1
        partners.append(best if best >= 0 and row[best] >= threshold and best not in partners else -1)
    return partners


def match_by_overlap(overlaps: np.ndarray, threshold: float) -> list[int]:
    best_first = np.argsort(-overlaps.max(axis=1, initial=0.0), kind="stable")
    partners = np.full(len(overlaps), -1)
    partners[best_first] = match(overlaps[best_first], threshold)
    return partners.tolist()


def ap_at(is_true: np.ndarray, num_objects: int, points: int = 101, envelope: bool = True) -> float:
    precision, recall = precision_recall(is_true, num_objects)
    recalls = np.linspace(0, 1, points)
    if envelope:
        return float(np.mean([precision[recall >= r].max(initial=0.0) for r in recalls]))
    return float(np.append(precision, 0)[np.searchsorted(recall, recalls)].mean())


def ap_strict(is_true: np.ndarray, num_objects: int) -> float:
    precision, recall = precision_recall(is_true, num_objects)
    return float(np.mean([precision[recall > r].max(initial=0.0) for r in np.linspace(0, 1, 101)]))


def ap_area(is_true: np.ndarray, num_objects: int) -> float:
    precision, recall = precision_recall(is_true, num_objects)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0) * envelope).sum())


def ap_extended(is_true: np.ndarray, num_objects: int) -> float:
    precision, recall = precision_recall(is_true, num_objects)
    last = precision[-1] if len(precision) else 0.0
    return float(np.mean([precision[recall >= r].max(initial=last) for r in np.linspace(0, 1, 101)]))


def ap_at_hits(is_true: np.ndarray, num_objects: int) -> float:
    return float((precision_recall(is_true, num_objects)[0] * is_true).sum() / num_objects)


def ap_reached(is_true: np.ndarray, num_objects: int) -> float:
    precision, recall = precision_recall(is_true, num_objects)
    heights = [precision[recall >= r].max() for r in np.linspace(0, 1, 101) if (recall >= r).any()]
    return float(np.mean(heights)) if heights else 0.0


KNIGHTS = np.array(
    [[0.704, 0, 0], [0.892, 0, 0], [0, 0.667, 0], [0, 0, 0], [0, 0, 0.869]]
)  # the notebook's first figure


def check_match(fn: Callable[..., Any]) -> None:
    """Check the reader's match(overlaps, threshold)."""
    rng = np.random.default_rng(2)
    tables = [
        (KNIGHTS, 0.5, "the three knights at IoU 0.5"),
        (KNIGHTS, 0.75, "the three knights at IoU 0.75"),
        (np.array([[0.9, 0.6], [0.8, 0.55]]), 0.5, "two detections that both prefer the first of two objects"),
        (np.array([[0.6, 0.8]]), 0.5, "one detection that reaches the threshold with two objects"),
        (np.array([[0.5]]), 0.5, "an IoU of exactly the threshold"),
        (np.zeros((2, 0)), 0.5, "an image without objects"),
        (np.zeros((0, 2)), 0.5, "an image without detections"),
        (rng.random((6, 4)).round(3), 0.4, "6 random detections and 4 objects"),
        (rng.random((9, 7)).round(3), 0.7, "9 random detections and 7 objects"),
    ]
    cases = [Case((table, t), match(table, t), about) for table, t, about in tables]
    mistakes = [
        Mistake(match_reusing, "an object may be taken only once: remember which ones are taken."),
        Mistake(
            match_by_overlap,
            "the detection with the better score goes first, even if a later one fits better: "
            "go through the rows in order.",
        ),
        Mistake(
            match_favourite_only,
            "a detection whose favorite is taken may still take another object that reaches the threshold "
            "(giving up at once is PASCAL VOC's rule, not COCO's).",
        ),
        Mistake(match_first, "among the free objects it is the one with the largest IoU, not the first that will do."),
        Mistake(match_strict, "an IoU equal to the threshold is enough: compare with >=."),
        Mistake(match_without_threshold, "an overlap below the threshold is no match: the answer is -1 there."),
        Mistake(match_verdicts, "return the number of the object that is taken (or -1), not True and False."),
    ]
    check_cases("match", _returning(_as_int_list, fn), cases, mistakes)


def check_precision_recall(fn: Callable[..., Any]) -> None:
    """Check the reader's precision_recall(is_true, num_objects)."""
    cases = [
        Case((ranked, n), precision_recall(ranked, n), about)
        for ranked, n, about in [
            (np.array([True, False, True, False, True]), 3, "the three knights at IoU 0.5"),
            (np.array([False, True, False, False, True]), 3, "the three knights at IoU 0.75"),
            (np.array([True]), 7, "one detection for seven objects"),
            (_ranked_list(40), 31, "40 random detections, 31 objects"),
        ]
    ]
    mistakes = [
        Mistake(lambda t, n: precision_recall(t, n)[::-1], "return precision first, then recall."),
        Mistake(
            lambda t, n: (t / np.arange(1, len(t) + 1), t / n),
            "count the true positives among all detections so far, not only this one: a running sum (np.cumsum).",
        ),
        Mistake(
            lambda t, n: (np.cumsum(t) / n, np.cumsum(t) / np.arange(1, len(t) + 1)),
            "precision divides by the detections so far, recall by the objects there are; yours do it the other way.",
        ),
        Mistake(
            lambda t, n: (np.cumsum(t) / np.arange(1, len(t) + 1), np.cumsum(t) / max(t.sum(), 1)),
            "recall divides by all objects, found or not (num_objects), not by those that were found.",
        ),
        Mistake(
            lambda t, n: (np.cumsum(t) / len(t), np.cumsum(t) / n),
            "precision divides by the number of detections so far (1, 2, 3 …), not by the length of the whole list.",
        ),
    ]
    check_cases("precision_recall", _returning(_as_float_arrays, fn), cases, mistakes)


def check_average_precision(fn: Callable[..., Any]) -> None:
    """Check the reader's average_precision(is_true, num_objects)."""
    cases = [
        Case((ranked, n), average_precision(ranked, n), about)
        for ranked, n, about in [
            (np.array([True, True, True]), 3, "a perfect list"),
            (np.array([False, True, True]), 2, "a list whose precision rises"),
            (np.array([True, False, True, False, True]), 3, "the three knights at IoU 0.5"),
            (np.array([False, True, False, False, True]), 3, "the three knights at IoU 0.75"),
            (np.array([True]), 7, "one detection for seven objects"),
            (np.array([False, False]), 3, "nothing but false alarms"),
            (np.array([], bool), 3, "no detection at all"),
            (_ranked_list(40), 31, "40 random detections, 31 objects"),
        ]
    ]
    mistakes = [
        Mistake(ap_strict, "recall 1 itself counts: use the precision where recall >= r, not > r."),
        Mistake(
            lambda t, n: ap_at(t, n, envelope=False),
            "at each recall take the best precision at that recall or any higher one, not the one right there.",
        ),
        Mistake(
            lambda t, n: ap_at(t, max(int(t.sum()), 1)), "recall divides by all objects (num_objects), found or not."
        ),
        Mistake(ap_area, "this is the exact area under the curve; COCO takes the mean of 101 points instead."),
        Mistake(
            lambda t, n: ap_at(t, n, points=11), "COCO reads 101 recalls, 0, 0.01 … 1; 11 was PASCAL VOC's number."
        ),
        Mistake(lambda t, n: ap_at(t, n, points=100), "there are 101 recalls from 0 to 1, both ends included."),
        Mistake(ap_extended, "beyond the largest recall that was reached the precision is 0, not the last value."),
        Mistake(ap_at_hits, "this averages the precision at the true positives only; COCO reads it at 101 recalls."),
        Mistake(ap_reached, "average over all 101 recalls: those never reached count with precision 0."),
    ]
    check_cases("average_precision", _returning(_as_float, fn), cases, mistakes)


HINTS = {
    "match": [
        "Go through the rows in order. For each one you need two facts about every object: is its IoU at least the "
        "threshold, and is it still free?",
        "Keep a set `taken`, empty at first. For a row, collect the columns g with g not in taken and "
        "row[g] >= threshold.",
        "If that list is empty the answer for this row is -1. Otherwise it is max(candidates, key=lambda g: row[g]); "
        "add it to `taken` before you go to the next row.",
    ],
    "precision_recall": [
        "After d detections you have seen d of them: how many of these were true?",
        "np.cumsum(is_true) counts the true positives so far, for all positions at once.",
        "Divide that running count by np.arange(1, len(is_true) + 1) for precision, and by num_objects for recall.",
    ],
    "average_precision": [
        "Start from precision and recall after each detection. Then think of one recall r: which positions of the list "
        "reach at least that recall?",
        "The height at r is the largest precision where recall >= r, and 0 if there is no such position. The recalls "
        "are np.linspace(0, 1, 101).",
        "heights = [precision[recall >= r].max(initial=0.0) for r in np.linspace(0, 1, 101)], and the answer is their "
        "mean.",
    ],
}
SOLUTIONS = {"match": match, "precision_recall": precision_recall, "average_precision": average_precision}


def hint(name: str, level: int = 1) -> None:
    """Print hint `level` (1: the gentlest) of exercise `name`."""
    show_hint(HINTS, name, level)


def solution(name: str) -> None:
    """Print the reference solution of exercise `name`."""
    show_solution(SOLUTIONS, name)


# Readers may return lists, arrays or tensors: each result is brought into one form before it is compared.
def _returning(convert: Callable[[Any], Any], fn: Callable[..., Any]) -> Callable[..., Any]:
    if not callable(fn):
        return fn

    @functools.wraps(fn)
    def converted(*arguments: Any) -> Any:
        return convert(fn(*arguments))

    return converted


def _as_int_list(value: Any) -> Any:
    array = _as_array(value)
    if array is None or array.ndim != 1 or array.dtype.kind not in "iuf":
        return value
    return [int(v) for v in array] if np.array_equal(array, np.round(array)) else value


def _as_float_arrays(value: Any) -> Any:
    if not isinstance(value, tuple | list):
        return value
    arrays = [_as_array(part) for part in value]
    return tuple(v if a is None else a.astype(float) for a, v in zip(arrays, value))


def _as_float(value: Any) -> Any:
    array = _as_array(value)
    return value if array is None or array.size != 1 else float(array.reshape(()))


def _as_array(value: Any) -> np.ndarray | None:
    """A NumPy array of numbers, or None for what is none (None, ..., words, ragged lists)."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if isinstance(value, tuple | list):
        value = [v.item() if hasattr(v, "item") and getattr(v, "ndim", 1) == 0 else v for v in value]
        if not all(isinstance(v, bool | int | float) for v in value):
            return None
    array = np.asarray(value)
    return array if array.dtype.kind in "biuf" else None


def _ranked_list(count: int) -> np.ndarray:
    """True and False, true ones more often at the top."""
    return np.random.default_rng(5).random(count) > np.linspace(0.1, 0.8, count)
