"""Notebook 00: the check of this machine, and two exercises to warm up."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yolonas_lab.teaching.exercises import Case, CheckFailed, Exercise, Exercises
from yolonas_lab.teaching.setup import setup_report


def check_setup() -> None:
    """Print what this machine has for the workbook; raise CheckFailed, with what to do, where something is missing."""
    findings = setup_report()
    for finding in findings:
        print(finding)
    missing = [finding for finding in findings if finding.ok is False]
    if missing:
        raise CheckFailed("Not ready yet: " + " ".join(f"{f.about}: {f.found}. {f.advice}" for f in missing))
    print("\nEverything the notebooks need is here.")


def speedup(ms_before: float, ms_after: float) -> float:
    """How many times as fast something is after a change, from its times before and after, in ms."""
    return ms_before / ms_after


def kept_by_threshold(scores: Tensor, threshold: float) -> Tensor:
    """Positions of the scores above the threshold, best score first: (n,) -> (m,) int64, m <= n."""
    order = torch.argsort(scores, descending=True)
    return order[scores[order] > threshold]


def _as_tensor(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Positions may come as a list or an array too: both become an int64 tensor."""

    @wraps(fn)
    def with_tensor(scores: Tensor, threshold: float) -> Any:
        got = fn(scores, threshold)
        if isinstance(got, list | tuple) and not got:
            return torch.tensor([], dtype=torch.int64)
        return torch.as_tensor(got) if isinstance(got, list | tuple | np.ndarray) else got

    return with_tensor


def _threshold_cases() -> list[Case]:
    by_hand, none = torch.tensor([0.25, 0.9, 0.02, 0.6]), torch.tensor([], dtype=torch.int64)
    seeded = torch.rand(40, generator=torch.Generator().manual_seed(0))
    return [
        Case((by_hand, 0.5), "two scores above it", torch.tensor([1, 3])),
        Case((by_hand.flip(0), 0.1), "best score first", torch.tensor([2, 0, 3])),
        Case((by_hand, 0.25), "a score that equals the threshold", torch.tensor([1, 3])),
        Case((by_hand, 0.95), "nothing is above it", none),
        Case((torch.tensor([]), 0.25), "no scores at all", none),
        Case((seeded, 0.3), "forty random scores"),
    ]


EXERCISES = Exercises(
    Exercise(
        speedup,
        hints=(
            "If the time falls from 10 ms to 5 ms, the speed-up is 2. Which of the two times must then be on top?",
            "It is a ratio of two times, not a difference and not a percentage. No unit is left: ms divided by ms.",
            "return ms_before / ms_after",
        ),
        cases=[
            Case((10.0, 2.5), "a quarter of the time", 4.0),
            Case((3.21, 2.36), "YOLO-NAS S, FP16 to INT8, as published", 3.21 / 2.36),
            Case((4.0, 4.0), "no change", 1.0),
            Case((2.0, 8.0), "it became slower", 0.25, "A speed-up below 1 is a slow-down; it needs no special case."),
        ],
        mistakes={
            "the ratio is upside down: a faster network must give more than 1.": lambda before, after: after / before,
            "this is the time saved in ms; the speed-up is a ratio.": lambda before, after: before - after,
            "this is the part of the time that was saved; half the time is a speed-up of 2, not of 0.5.": (
                lambda before, after: 1 - after / before
            ),
            "this is how much faster in parts of 1 (the 'x % faster' of advertisements); leave out the − 1.": (
                lambda before, after: before / after - 1
            ),
            "this is a percentage ('x % faster'); return the plain ratio of the times.": (
                lambda before, after: 100 * (before / after - 1)
            ),
        },
    ),
    Exercise(
        kept_by_threshold,
        hints=(
            "Two steps: which scores are above the threshold, and in which order do they come? Do the second with "
            "argsort.",
            "torch.argsort(scores, descending=True) gives all positions, best first. Then keep those whose score is "
            "above the threshold: a score equal to it is dropped.",
            "order = torch.argsort(scores, descending=True); return order[scores[order] > threshold]",
        ),
        cases=_threshold_cases,
        mistakes={
            "a score equal to the threshold is kept here: use > instead of >=, as predict does.": (
                lambda s, t: torch.argsort(s, descending=True)[s.sort(descending=True).values >= t]
            ),
            "the positions are right, but not ordered by score, best first.": (
                lambda s, t: (s > t).nonzero().flatten()
            ),
            "the worst score comes first: argsort sorts upwards unless descending=True.": (
                lambda s, t: torch.argsort(s)[s.sort().values > t]
            ),
            "these are the scores themselves; what is asked for is where they stand (0 is the first).": (
                lambda s, t: s[s > t].sort(descending=True).values
            ),
            "these are positions among the kept scores only; return positions in the whole of `scores`.": (
                lambda s, t: torch.argsort(s[s > t], descending=True)
            ),
            "this is a mask of True and False; return the positions, as whole numbers, best score first.": (
                lambda s, t: s > t
            ),
        },
        probe=_as_tensor,
    ),
)
hint, solution = EXERCISES.hint, EXERCISES.solution
check_speedup = EXERCISES["speedup"].check
check_kept_by_threshold = EXERCISES["kept_by_threshold"].check
