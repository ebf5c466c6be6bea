"""Exercises of notebook 09 (architecture search): sample, predict_latency, pareto_front, fastest."""

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from yolonas_lab.teaching.checks.check import Case, CheckFailed, check_cases, show_hint, show_solution
from yolonas_lab.teaching.checks.nb09_mistakes import FASTEST_MISTAKES, LATENCY_MISTAKES, PARETO_MISTAKES
from yolonas_lab.teaching.checks.nb09_sample import check_draws

Step = Sequence[Sequence[float]]  # ms by width before and own width


def sample(decisions: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    return {name: options[rng.integers(len(options))] for name, options in decisions.items()}


def predict_latency(layers: Sequence[str], table: Mapping[str, float], base_ms: float, scale: float) -> float:
    return base_ms + scale * sum(table[layer] for layer in layers)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    front, best = [], float("-inf")
    for i in sorted(range(len(points)), key=lambda i: (points[i][1], -points[i][0])):
        ap, _ = points[i]
        if ap > best:
            front.append(i)
            best = ap
    return front


def fastest(first: Sequence[float], steps: Sequence[Step]) -> float:
    so_far = list(first)  # the fewest ms up to here, by the width chosen here
    for step in steps:
        so_far = [min(so_far[a] + step[a][b] for a in range(len(so_far))) for b in range(len(step[0]))]
    return min(so_far)


SOLUTIONS: dict[str, Callable[..., Any]] = {
    "sample": sample,
    "predict_latency": predict_latency,
    "pareto_front": pareto_front,
    "fastest": fastest,
}
HINTS = {
    "sample": (
        "One independent draw for each decision. What can rng draw, and what do you do with it?",
        "rng.integers(n) is 0, 1, … or n - 1, each with the same probability. Use it as an index.",
        "{name: options[rng.integers(len(options))] for name, options in decisions.items()}",
    ),
    "predict_latency": (
        "Look up every operation, add up, then bring the sum to scale.",
        "An operation that occurs twice costs twice. The base is there once, and the scale does not apply to it.",
        "base_ms + scale * sum(table[layer] for layer in layers)",
    ),
    "pareto_front": (
        "Walk from the fastest network to the slowest. When is the next one worth its time?",
        "Only if its AP is above that of all before it. At equal ms the one with the larger AP must come first.",
        "Sort range(len(points)) by key=lambda i: (points[i][1], -points[i][0]); keep i when its AP is above the best "
        "so far, and update the best.",
    ),
    "fastest": (
        "Go stage by stage. For each width of the last one, keep the fewest ms with which a network can end there.",
        "If so_far[a] is the fewest ms that end in width a, the fewest that go on to width b are the minimum over a of "
        "so_far[a] + step[a][b].",
        "so_far = list(first); for step in steps: so_far = [min(so_far[a] + step[a][b] for a in "
        "range(len(so_far))) for b in range(len(step[0]))]; the answer is min(so_far).",
    ),
}


def hint(name: str, level: int = 1) -> None:
    """Print a hint for an exercise of this notebook; level 1 is the gentlest."""
    show_hint(HINTS, name, level)


def solution(name: str) -> None:
    """Print the reference solution of an exercise of this notebook."""
    show_solution(SOLUTIONS, name)


def check_sample(fn) -> None:
    """Check sample(decisions, rng) -> choices: in the space, from rng alone, each network as likely as any other."""
    if not callable(fn):
        raise CheckFailed(f"sample: give the check your function itself, as in check_sample(sample), not {fn!r:.60}.")
    check_draws(fn)


def check_predict_latency(fn) -> None:
    """Check predict_latency(layers, table, base_ms, scale) -> ms; an operation that was not measured is an error."""
    hand = (["conv", "add"], {"conv": 0.25, "add": 0.125}, 0.5, 1.0)
    cases = [Case(hand, predict_latency(*hand), "by hand: 0.5 + 0.25 + 0.125")]
    scaled = (["conv", "add"], {"conv": 0.25, "add": 0.125, "pool": 7.0}, 0.5, 2.0)
    cases.append(Case(scaled, predict_latency(*scaled), "a scale of 2; the table knows more than is needed"))
    twice = (["conv", "add", "conv"], {"conv": 0.25, "add": 0.125}, 0.0, 1.0)
    cases.append(Case(twice, predict_latency(*twice), "an operation that occurs twice"))
    cases.append(Case(([], {"conv": 0.25}, 0.5, 2.0), 0.5, "no operations: the base remains"))
    for seed in range(2):
        rng = random.Random(seed)
        table = {f"operation {i}": rng.uniform(0.01, 0.3) for i in range(8)}
        arguments = (rng.choices(list(table), k=12), table, rng.uniform(0.1, 1), rng.uniform(0.7, 1.4))
        cases.append(Case(arguments, predict_latency(*arguments), "12 operations of a table of 8"))
    _refuses_unknown(fn)
    check_cases("predict_latency", fn, cases, LATENCY_MISTAKES)


def check_pareto_front(fn) -> None:
    """Check pareto_front(points) of (AP, ms) -> indices of those that none beats, the fastest first."""
    hand = [(0.50, 4.0), (0.55, 5.0), (0.52, 6.0), (0.45, 3.0), (0.45, 4.5)]
    settings = {
        "the five networks of the text": hand,
        "one network": [(0.3, 5.0)],
        "two with the same AP: the slower one is beaten": [(0.5, 4.0), (0.5, 3.0), (0.6, 5.0)],
        "two with the same ms: the worse one is beaten": [(0.4, 3.0), (0.5, 3.0), (0.6, 5.0)],
        "two that are equal in both: the first counts": [(0.6, 5.0), (0.5, 3.0), (0.5, 3.0)],
        "all are on the frontier, in no order": [(0.6, 6.0), (0.4, 4.0), (0.5, 5.0), (0.3, 3.0)],
        "one beats all others": [(0.4, 4.0), (0.7, 2.0), (0.5, 3.0)],
    }
    for seed in range(3):
        rng = random.Random(seed)
        settings[f"{6 + 6 * seed} random networks"] = [
            (rng.randint(40, 60) / 100, rng.randint(20, 40) / 10) for _ in range(6 + 6 * seed)
        ]
    cases = [Case((points,), pareto_front(points), about) for about, points in settings.items()]
    check_cases("pareto_front", fn, cases, PARETO_MISTAKES)


def check_fastest(fn) -> None:
    """Check fastest(first, steps) -> the fewest ms of any network of a chain of stages."""
    settings = {
        "by hand: 2 widths, 2 stages": ([1.0, 2.0], [[[5.0, 4.0], [2.0, 4.5]]]),
        "a single stage": ([3.0, 2.0, 4.0], []),
        "the smallest is not the fastest": (
            [1.0, 1.5],
            [[[2.0, 1.0], [2.0, 1.0]], [[1.0, 1.0], [0.5, 2.0]]],
        ),
        "each stage's own best does not fit the next one's": (
            [1.0, 2.0],
            [[[9.0, 9.0], [9.0, 1.0]], [[0.5, 9.0], [9.0, 3.0]]],
        ),
        "a fast beginning with a slow end": ([1.0, 2.0], [[[1.0, 1.0], [1.5, 1.5]], [[8.0, 9.0], [8.0, 9.0]]]),
    }
    for seed, widths in enumerate([(2, 3, 2), (3, 2, 4, 3), (3,) * 9]):
        rng = random.Random(seed)

        def times(count: int, rng: random.Random = rng) -> list[float]:
            return [rng.randint(1, 40) / 8 for _ in range(count)]

        steps = [[times(own) for _ in range(before)] for before, own in itertools.pairwise(widths)]
        settings[f"{np.prod(widths):,} networks"] = (times(widths[0]), steps)
    cases = [Case(arguments, fastest(*arguments), about) for about, arguments in settings.items()]
    check_cases("fastest", fn, cases, FASTEST_MISTAKES)


def _refuses_unknown(fn: Callable[..., Any]) -> None:
    """Fail a function that answers although an operation is missing in the table; all else is left to the cases."""
    try:
        got = fn(["conv", "pool"], {"conv": 0.25}, 0.5, 1.0)
    except Exception:  # whatever it raises: the cases below tell a refusal from a mistake
        return
    if isinstance(got, int | float) and not isinstance(got, bool):
        raise CheckFailed(
            f"predict_latency(['conv', 'pool'], {{'conv': 0.25}}, 0.5, 1.0)\n  returned {got:g}, but nobody has "
            "measured 'pool'.\n  Likely: table.get(layer, 0) counts it as free: look it up with table[layer]."
        )
