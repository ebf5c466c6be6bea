"""Self-checks of notebook 00: the set-up of this machine, and two warm-up exercises."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor

from yolonas_lab.teaching.exercises import Case, CheckFailed, Mistake, check_cases, show_hint, show_solution
from yolonas_lab.teaching.setup import setup_report

HINTS = {
    "speedup": [
        "If the time falls from 10 ms to 5 ms, the speed-up is 2. Which of the two times must then be on top?",
        "It is a ratio of two times, not a difference and not a percentage. No unit is left: ms divided by ms.",
        "return ms_before / ms_after",
    ],
    "kept_by_threshold": [
        "Two steps: which scores are above the threshold, and in which order do they come? Do the second with argsort.",
        "torch.argsort(scores, descending=True) gives all positions, best first. Then keep those whose score is above "
        "the threshold: a score equal to it is dropped.",
        "order = torch.argsort(scores, descending=True); return order[scores[order] > threshold]",
    ],
}


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


def check_speedup(fn: Callable[..., Any]) -> None:
    """Check the reader's speedup(ms_before, ms_after) -> number."""
    cases = [
        Case((10.0, 2.5), 4.0, "a quarter of the time"),
        Case((3.21, 2.36), 3.21 / 2.36, "YOLO-NAS S, FP16 to INT8, as published"),
        Case((4.0, 4.0), 1.0, "no change"),
        Case((2.0, 8.0), 0.25, "it became slower", "A speed-up below 1 is a slow-down; it needs no special case."),
    ]
    mistakes = [
        Mistake(
            lambda before, after: after / before, "the ratio is upside down: a faster network must give more than 1."
        ),
        Mistake(lambda before, after: before - after, "this is the time saved in ms; the speed-up is a ratio."),
        Mistake(
            lambda before, after: 1 - after / before,
            "this is the part of the time that was saved; half the time is a speed-up of 2, not of 0.5.",
        ),
        Mistake(
            lambda before, after: before / after - 1,
            "this is how much faster in parts of 1 (the 'x % faster' of advertisements); leave out the − 1.",
        ),
        Mistake(
            lambda before, after: 100 * (before / after - 1),
            "this is a percentage ('x % faster'); return the plain ratio of the times.",
        ),
    ]
    check_cases("speedup", fn, cases, mistakes)


def kept_by_threshold(scores: Tensor, threshold: float) -> Tensor:
    """Positions of the scores above the threshold, best score first: (n,) -> (m,) int64, m <= n."""
    order = torch.argsort(scores, descending=True)
    return order[scores[order] > threshold]


def check_kept_by_threshold(fn: Callable[..., Any]) -> None:
    """Check the reader's kept_by_threshold(scores (n,), threshold) -> positions (m,), best score first."""
    by_hand = torch.tensor([0.25, 0.9, 0.02, 0.6])
    seeded = torch.rand(40, generator=torch.Generator().manual_seed(0))
    cases = [
        Case((by_hand, 0.5), torch.tensor([1, 3]), "two scores above it"),
        Case((by_hand.flip(0), 0.1), torch.tensor([2, 0, 3]), "best score first"),
        Case((by_hand, 0.25), torch.tensor([1, 3]), "a score that equals the threshold"),
        Case((by_hand, 0.95), torch.tensor([], dtype=torch.int64), "nothing is above it"),
        Case((torch.tensor([]), 0.25), torch.tensor([], dtype=torch.int64), "no scores at all"),
        Case((seeded, 0.3), kept_by_threshold(seeded, 0.3), "forty random scores"),
    ]
    mistakes = [
        Mistake(
            lambda s, t: torch.argsort(s, descending=True)[s.sort(descending=True).values >= t],
            "a score equal to the threshold is kept here: use > instead of >=, as predict does.",
        ),
        Mistake(
            lambda s, t: (s > t).nonzero().flatten(), "the positions are right, but not ordered by score, best first."
        ),
        Mistake(
            lambda s, t: torch.argsort(s)[s.sort().values > t],
            "the worst score comes first: argsort sorts upwards unless descending=True.",
        ),
        Mistake(
            lambda s, t: s[s > t].sort(descending=True).values,
            "these are the scores themselves; what is asked for is where they stand (0 is the first).",
        ),
        Mistake(lambda s, t: s[s > t], "these are the scores themselves; what is asked for is where they stand."),
        Mistake(
            lambda s, t: torch.argsort(s[s > t], descending=True),
            "these are positions among the kept scores only; return positions in the whole of `scores`.",
        ),
        Mistake(
            lambda s, t: s > t,
            "this is a mask of True and False; return the positions, as whole numbers, best score first.",
        ),
    ]
    check_cases("kept_by_threshold", _with_tensor_result(fn), cases, mistakes)


def _with_tensor_result(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Let a reader return positions as a list or array too: both become an int64 tensor."""
    if not callable(fn):
        return fn

    @wraps(fn)
    def wrapped(scores: Tensor, threshold: float) -> Any:
        got = fn(scores, threshold)
        if isinstance(got, list | tuple) and not got:
            return torch.tensor([], dtype=torch.int64)
        return torch.as_tensor(got) if isinstance(got, list | tuple | np.ndarray) else got

    return wrapped


SOLUTIONS = {"speedup": speedup, "kept_by_threshold": kept_by_threshold}


def hint(name: str, level: int = 1) -> None:
    """Print hint `level` of exercise "speedup" or "kept_by_threshold"; each next one says more."""
    show_hint(HINTS, name, level)


def solution(name: str) -> None:
    """Print the reference solution of an exercise."""
    show_solution(SOLUTIONS, name)
