"""Notebook 00: the check of this machine, and two exercises to warm up."""

import torch
from torch import Tensor

from yolonas_lab.teaching.exercises import Case, CheckFailed, Exercise, Exercises, tensor_from
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
            "ms_before / ms_after -> ms_after / ms_before": "the ratio is upside down: a faster network must give more "
            "than 1.",
            "ms_before / ms_after -> ms_before - ms_after": "this is the time saved in ms; the speed-up is a ratio.",
            "ms_before / ms_after -> 1 - ms_after / ms_before": "this is the part of the time that was saved; half the "
            "time is a speed-up of 2, not of 0.5.",
            "ms_before / ms_after -> ms_before / ms_after - 1": "this is how much faster in parts of 1 (the 'x % "
            "faster' of advertisements); leave out the − 1.",
            "ms_before / ms_after -> 100 * (ms_before / ms_after - 1)": "this is a percentage ('x % faster'); return "
            "the plain ratio of the times.",
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
            "> threshold -> >= threshold": "a score equal to the threshold is kept here: use > instead of >=, as "
            "predict does.",
            "order[scores[order] > threshold] -> (scores > threshold).nonzero().flatten()": "the positions are right, "
            "but not ordered by score, best first.",
            "descending=True -> descending=False": "the worst score comes first: argsort sorts upwards unless "
            "descending=True.",
            "return order -> return scores[order]": "these are the scores themselves; what is asked for is where they "
            "stand (0 is the first).",
            "order[scores[order] > threshold] -> scores[scores > threshold].argsort(descending=True)": (
                "these are positions among the kept scores only; return positions in the whole of `scores`."
            ),
            "order[scores[order] > threshold] -> scores > threshold": "this is a mask of True and False; return the "
            "positions, as whole numbers, best score first.",
        },
        probe=tensor_from,
    ),
)
hint, solution = EXERCISES.hint, EXERCISES.solution
check_speedup = EXERCISES["speedup"].check
check_kept_by_threshold = EXERCISES["kept_by_threshold"].check
