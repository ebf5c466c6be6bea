"""Exercises of notebook 02 (COCO average precision); the rules are those of pycocotools' COCOeval."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from yolonas_lab.teaching.exercises import Case, Exercise, Exercises, faults


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


def _favorite_only(overlaps: np.ndarray, threshold: float) -> list[int]:
    partners: list[int] = []
    for row in overlaps:
        best = int(row.argmax()) if len(row) else -1
        partners.append(best if best >= 0 and row[best] >= threshold and best not in partners else -1)
    return partners


def _match_by_overlap(overlaps: np.ndarray, threshold: float) -> np.ndarray:
    best_first = np.argsort(-overlaps.max(axis=1, initial=0.0), kind="stable")
    partners = np.full(len(overlaps), -1)
    partners[best_first] = match(overlaps[best_first], threshold)
    return partners


def _ap(is_true: np.ndarray, num_objects: int, wrong: str = "") -> float:
    """Average precision with one fault."""
    found = max(int(is_true.sum()), 1) if wrong == "of_the_found" else num_objects
    precision, recall = precision_recall(is_true, found)
    if wrong == "at_hits":
        return float((precision * is_true).sum() / num_objects)
    if wrong == "area":
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        return float((np.diff(recall, prepend=0) * envelope).sum())
    recalls = np.linspace(0, 1, {"eleven_points": 11, "hundred_points": 100}.get(wrong, 101))
    if wrong == "no_envelope":
        return float(np.append(precision, 0)[np.searchsorted(recall, recalls)].mean())
    beyond = precision[-1] if wrong == "extended" and len(precision) else 0.0
    reach = [recall > r if wrong == "strict" else recall >= r for r in recalls]
    reach = [there for there in reach if there.any()] if wrong == "reached" else reach
    return float(np.mean([precision[there].max(initial=beyond) for there in reach])) if reach else 0.0


# Readers may return lists, arrays or tensors: each result is brought into one form before it is compared.
def _returning(convert: Callable[[Any], Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def probe(fn: Callable[..., Any]) -> Callable[..., Any]:
        return functools.wraps(fn)(lambda *arguments: convert(fn(*arguments)))

    return probe


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


def _match_cases() -> list[Case]:
    rng = np.random.default_rng(2)
    knights = np.array([[0.704, 0, 0], [0.892, 0, 0], [0, 0.667, 0], [0, 0, 0], [0, 0, 0.869]])  # the first figure
    return [
        Case((knights, 0.5), "the three knights at IoU 0.5"),
        Case((knights, 0.75), "the three knights at IoU 0.75"),
        Case((np.array([[0.9, 0.6], [0.8, 0.55]]), 0.5), "two detections that both prefer the first of two objects"),
        Case((np.array([[0.6, 0.8]]), 0.5), "one detection that reaches the threshold with two objects"),
        Case((np.array([[0.5]]), 0.5), "an IoU of exactly the threshold"),
        Case((np.zeros((2, 0)), 0.5), "an image without objects"),
        Case((np.zeros((0, 2)), 0.5), "an image without detections"),
        Case((rng.random((6, 4)).round(3), 0.4), "6 random detections and 4 objects"),
        Case((rng.random((9, 7)).round(3), 0.7), "9 random detections and 7 objects"),
    ]


KNIGHTS = [
    Case((np.array([True, False, True, False, True]), 3), "the three knights at IoU 0.5"),
    Case((np.array([False, True, False, False, True]), 3), "the three knights at IoU 0.75"),
    Case((np.array([True]), 7), "one detection for seven objects"),
]
_ranked_list = np.random.default_rng(5).random(40) > np.linspace(0.1, 0.8, 40)  # true ones more often at the top
RANDOM = Case((_ranked_list, 31), "40 random detections, 31 objects")

EXERCISES = Exercises(
    Exercise(
        match,
        hints=(
            "Go through the rows in order. For each one you need two facts about every object: is its IoU at least "
            "the threshold, and is it still free?",
            "Keep a set `taken`, empty at first. For a row, collect the columns g with g not in taken and "
            "row[g] >= threshold.",
            "If that list is empty the answer for this row is -1. Otherwise it is max(candidates, key=lambda g: "
            "row[g]); add it to `taken` before you go to the next row.",
        ),
        cases=_match_cases,
        probe=_returning(_as_int_list),
        mistakes={
            "an object may be taken only once: remember which ones are taken.": (
                lambda overlaps, t: [match(row[None], t)[0] for row in overlaps]
            ),
            "the detection with the better score goes first, even if a later one fits better: go through the rows in "
            "order.": _match_by_overlap,
            "a detection whose favorite is taken may still take another object that reaches the threshold (giving up "
            "at once is PASCAL VOC's rule, not COCO's).": _favorite_only,
            "among the free objects it is the one with the largest IoU, not the first that will do.": (
                lambda overlaps, t: match((overlaps >= t).astype(float), 0.5)
            ),
            "an IoU equal to the threshold is enough: compare with >=.": (
                lambda overlaps, t: match(overlaps, float(np.nextafter(t, 1)))
            ),
            "an overlap below the threshold is no match: the answer is -1 there.": (
                lambda overlaps, t: match(overlaps, -1.0)
            ),
            "return the number of the object that is taken (or -1), not True and False.": (
                lambda overlaps, t: [partner >= 0 for partner in match(overlaps, t)]
            ),
        },
    ),
    Exercise(
        precision_recall,
        hints=(
            "After d detections you have seen d of them: how many of these were true?",
            "np.cumsum(is_true) counts the true positives so far, for all positions at once.",
            "Divide that running count by np.arange(1, len(is_true) + 1) for precision, and by num_objects for recall.",
        ),
        cases=[*KNIGHTS, RANDOM],
        probe=_returning(_as_float_arrays),
        mistakes={
            "return precision first, then recall.": lambda t, n: precision_recall(t, n)[::-1],
            "count the true positives among all detections so far, not only this one: a running sum (np.cumsum).": (
                lambda t, n: (t / np.arange(1, len(t) + 1), t / n)
            ),
            "recall divides by all objects, found or not (num_objects), not by those that were found.": (
                lambda t, n: precision_recall(t, max(t.sum(), 1))
            ),
            "precision divides by the number of detections so far (1, 2, 3 …), not by the length of the whole list.": (
                lambda t, n: (np.cumsum(t) / len(t), np.cumsum(t) / n)
            ),
        },
    ),
    Exercise(
        average_precision,
        hints=(
            "Start from precision and recall after each detection. Then think of one recall r: which positions of the "
            "list reach at least that recall?",
            "The height at r is the largest precision where recall >= r, and 0 if there is no such position. The "
            "recalls are np.linspace(0, 1, 101).",
            "heights = [precision[recall >= r].max(initial=0.0) for r in np.linspace(0, 1, 101)], and the answer is "
            "their mean.",
        ),
        cases=[
            Case((np.array([True, True, True]), 3), "a perfect list"),
            Case((np.array([False, True, True]), 2), "a list whose precision rises"),
            *KNIGHTS,
            Case((np.array([False, False]), 3), "nothing but false alarms"),
            Case((np.array([], bool), 3), "no detection at all"),
            RANDOM,
        ],
        probe=_returning(_as_float),
        mistakes=faults(
            _ap,
            strict="recall 1 itself counts: use the precision where recall >= r, not > r.",
            no_envelope="at each recall take the best precision at that recall or any higher one, not the one right "
            "there.",
            of_the_found="recall divides by all objects (num_objects), found or not.",
            area="this is the exact area under the curve; COCO takes the mean of 101 points instead.",
            eleven_points="COCO reads 101 recalls, 0, 0.01 … 1; 11 was PASCAL VOC's number.",
            hundred_points="there are 101 recalls from 0 to 1, both ends included.",
            extended="beyond the largest recall that was reached the precision is 0, not the last value.",
            at_hits="this averages the precision at the true positives only; COCO reads it at 101 recalls.",
            reached="average over all 101 recalls: those never reached count with precision 0.",
        ),
    ),
)
hint, solution = EXERCISES.hint, EXERCISES.solution
check_match, check_precision_recall = EXERCISES["match"].check, EXERCISES["precision_recall"].check
check_average_precision = EXERCISES["average_precision"].check
