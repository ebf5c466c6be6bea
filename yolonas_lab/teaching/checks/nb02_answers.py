"""Notebook 02's exercises as they should be, and plausible wrong answers, so that the checks can name a mistake.

The rules are those of pycocotools' COCOeval.
"""

import numpy as np


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
