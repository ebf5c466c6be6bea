"""Exercises of notebook 02 (COCO average precision); the rules are those of pycocotools' COCOeval."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from yolonas_lab.teaching.exercises import Case, Exercise, Exercises


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


def _match_by_overlap(overlaps: np.ndarray, threshold: float) -> np.ndarray:
    best_first = np.argsort(-overlaps.max(axis=1, initial=0.0), kind="stable")
    partners = np.full(len(overlaps), -1)
    partners[best_first] = match(overlaps[best_first], threshold)
    return partners


def _in_numbers(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Lists, arrays and tensors of numbers all count as arrays of floating-point numbers."""
    return functools.wraps(fn)(lambda *arguments: _as_floats(fn(*arguments)))


def _as_floats(value: Any) -> Any:
    if isinstance(value, tuple | list) and any(np.ndim(part) for part in value):
        return tuple(_as_floats(part) for part in value)
    try:
        return value if value is None or value is ... else np.asarray(value, float).squeeze()[()]
    except (TypeError, ValueError):
        return value


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
        probe=_in_numbers,
        mistakes={
            "g not in taken and ->": "an object may be taken only once: remember which ones are taken.",
            _match_by_overlap: "the detection with the better score goes first, even if a later one fits better: go "
            "through the rows in order.",
            "partner = -> free = [g for g in free if row[g] == row.max()]; partner =": "a detection whose favorite is "
            "taken may still take another object that reaches the threshold (giving up at once is PASCAL VOC's rule, "
            "not COCO's).",
            "key=lambda g: row[g] -> key=lambda g: -g": "among the free objects it is the one with the largest IoU, "
            "not the first that will do.",
            ">= threshold -> > threshold": "an IoU equal to the threshold is enough: compare with >=.",
            " and row[g] >= threshold ->": "an overlap below the threshold is no match: the answer is -1 there.",
            "append(partner) -> append(partner >= 0)": "return the number of the object that is taken (or -1), not "
            "True and False.",
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
        probe=_in_numbers,
        mistakes={
            "np.arange(1, len(is_true) + 1), true_positives / num_objects -> "
            "num_objects, true_positives / np.arange(1, len(is_true) + 1)": "return precision first, then recall.",
            "np.cumsum(is_true) -> is_true": "count the true positives among all detections so far, not only this one: "
            "a running sum (np.cumsum).",
            "/ num_objects -> / max(is_true.sum(), 1)": "recall divides by all objects, found or not (num_objects), "
            "not by those that were found.",
            "np.arange(1, len(is_true) + 1) -> len(is_true)": "precision divides by the number of detections so far "
            "(1, 2, 3 …), not by the length of the whole list.",
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
        probe=_in_numbers,
        mistakes={
            ">= r -> > r": "recall 1 itself counts: use the precision where recall >= r, not > r.",
            "precision[recall >= r].max(initial=0.0) -> np.append(precision, 0)[np.searchsorted(recall, r)]": (
                "at each recall take the best precision at that recall or any higher one, not the one right there."
            ),
            "(is_true, num_objects) -> (is_true, max(is_true.sum(), 1))": "recall divides by all objects "
            "(num_objects), found or not.",
            "np.mean(heights) -> np.diff(recall, prepend=0) @ np.maximum.accumulate(precision[::-1])[::-1]": (
                "this is the exact area under the curve; COCO takes the mean of 101 points instead."
            ),
            "0, 1, 101 -> 0, 1, 11": "COCO reads 101 recalls, 0, 0.01 … 1; 11 was PASCAL VOC's number.",
            "0, 1, 101 -> 0, 1, 100": "there are 101 recalls from 0 to 1, both ends included.",
            "initial=0.0 -> initial=[0.0, *precision][-1]": "beyond the largest recall that was reached the precision "
            "is 0, not the last value.",
            "np.mean(heights) -> (precision * is_true).sum() / num_objects": "this averages the precision at the true "
            "positives only; COCO reads it at 101 recalls.",
            "101)] -> 101) if (recall >= r).any()]": "average over all 101 recalls: those never reached count with "
            "precision 0.",
        },
    ),
)
hint, solution = EXERCISES.hint, EXERCISES.solution
check_match, check_precision_recall = EXERCISES["match"].check, EXERCISES["precision_recall"].check
check_average_precision = EXERCISES["average_precision"].check
