"""Exercises of notebook 09 (architecture search): sample, predict_latency, pareto_front, fastest."""

import itertools
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from yolonas_lab.teaching.exercises import Case, CheckFailed, Exercise, Exercises

Step = Sequence[Sequence[float]]  # ms by width before and own width
DECISIONS = {"width": (16, 24, 32), "blocks": (1, 2), "concat": (False, True), "block": ("plain", "repvgg", "qarepvgg")}
DRAWS = 1200


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


def _unfair(draw: Callable[..., Any]) -> str:
    """What is wrong with random networks, or "". Frequencies may stray by six standard deviations, so that a right
    answer is never refused.
    """
    for decisions in (DECISIONS, {"stem": (48,)}):
        choices = draw(decisions, np.random.default_rng(0))
        if problem := _outside(decisions, choices):
            return f"for {decisions} it returned {choices!r:.200}\n  {problem}"
    rng, same = np.random.default_rng(1), np.random.default_rng(1)
    draws = [draw(DECISIONS, rng) for _ in range(DRAWS)]
    if draws[:20] != [draw(DECISIONS, same) for _ in range(20)]:
        return (
            "two generators with the same seed gave different networks.\n  Likely: something else than rng was asked "
            "for random numbers, such as np.random or random."
        )
    if all(network == draws[0] for network in draws):
        return (
            f"{DRAWS} calls with one generator gave the same network each time, {draws[0]}.\n  Likely: a new generator "
            "is made inside, or nothing is drawn: use the rng that is given."
        )
    for name, options in DECISIONS.items():
        if problem := _uneven(f"decision {name!r}", Counter(network[name] for network in draws), options):
            return problem
    for other, name in itertools.combinations(DECISIONS, 2):
        pairs = list(itertools.product(DECISIONS[name], DECISIONS[other]))
        found = Counter((network[name], network[other]) for network in draws)
        if problem := _uneven(f"the pair {name!r} and {other!r}", found, pairs, "draw anew for each decision"):
            return problem
    return ""


def _outside(decisions: dict, choices: Any) -> str:
    """What keeps the choices from being one option of each decision, or ""."""
    if not isinstance(choices, dict):
        return f"It is a {type(choices).__name__}: give a dictionary, decision -> option."
    if choices.keys() != decisions.keys():
        return f"It must hold each decision once: {', '.join(decisions)}."
    for name, options in decisions.items():
        value = choices[name]
        if isinstance(value, list | tuple | np.ndarray):
            return f"{name!r} is {value!r}: a network takes a single option, not several."
        if value not in options or isinstance(value, bool | np.bool_) != isinstance(options[0], bool):
            index = isinstance(value, int | np.integer) and 0 <= value < len(options)
            advice = "\n  Likely: it is the index; return options[index]." if index else ""
            return f"{name!r} is {value!r}, and its options are {options}.{advice}"
    return ""


def _uneven(what: str, found: Counter, options: Sequence, advice: str = "") -> str:
    """What shows that not each option occurs about as often as any other, or ""."""
    expected = DRAWS / len(options)
    slack = 6 * (expected * (1 - 1 / len(options))) ** 0.5
    for option in options:
        if found[option] == 0:
            which = " (the last one)" if option == options[-1] else ""
            likely = advice or "rng.integers(n) leaves out n itself: it takes the number of options, not the last index"
            return f"in {DRAWS} networks, {what} was never {option!r}{which}.\n  Likely: {likely}."
    for option in options:
        if abs(found[option] - expected) > slack:
            return (
                f"in {DRAWS} networks, {what} was {option!r} {found[option]} times, and about {expected:.0f} would be "
                f"fair.\n  Likely: {advice or 'the options are not drawn with equal probability'}."
            )
    return ""


def _guesses_unknown(predict: Callable[..., Any]) -> str:
    """What is wrong with an answer although an operation is missing in the table; all else is left to the cases."""
    try:
        got = predict(["conv", "pool"], {"conv": 0.25}, 0.5, 1.0)
    except CheckFailed:  # it raised something: the cases tell a refusal from a mistake
        return ""
    if not isinstance(got, int | float) or isinstance(got, bool):
        return ""
    return (
        f"for ['conv', 'pool'], {{'conv': 0.25}}, 0.5, 1.0 it returned {got:g}, but nobody has measured 'pool'.\n"
        "  Likely: table.get(layer, 0) counts it as free: look it up with table[layer]."
    )


def _greedy(first: Sequence[float], steps: Sequence[Step]) -> float:
    width = int(np.argmin(first))
    ms = first[width]
    for table in steps:
        before, width = width, int(np.argmin(table[width]))
        ms += table[before][width]
    return ms


def _sampled(first: Sequence[float], steps: Sequence[Step]) -> float:
    rng, found = np.random.default_rng(0), []
    for _ in range(30):
        widths = [int(rng.integers(len(row))) for row in (first, *(table[0] for table in steps))]
        found.append(first[widths[0]] + sum(table[a][b] for table, a, b in zip(steps, widths, widths[1:])))
    return min(found)


def _latency_cases() -> list[Case]:
    two = {"conv": 0.25, "add": 0.125}
    cases = [
        Case((["conv", "add"], two, 0.5, 1.0), "by hand: 0.5 + 0.25 + 0.125"),
        Case((["conv", "add"], two | {"pool": 7.0}, 0.5, 2.0), "a scale of 2; the table knows more than is needed"),
        Case((["conv", "add", "conv"], two, 0.0, 1.0), "an operation that occurs twice"),
        Case(([], {"conv": 0.25}, 0.5, 2.0), "no operations: the base remains", 0.5),
    ]
    for seed in range(2):
        rng = random.Random(seed)
        table = {f"operation {i}": rng.uniform(0.01, 0.3) for i in range(8)}
        arguments = (rng.choices(list(table), k=12), table, rng.uniform(0.1, 1), rng.uniform(0.7, 1.4))
        cases.append(Case(arguments, "12 operations of a table of 8"))
    return cases


def _front_cases() -> list[Case]:
    cases = [
        Case(([(0.50, 4.0), (0.55, 5.0), (0.52, 6.0), (0.45, 3.0), (0.45, 4.5)],), "the five networks of the text"),
        Case(([(0.3, 5.0)],), "one network"),
        Case(([(0.5, 4.0), (0.5, 3.0), (0.6, 5.0)],), "two with the same AP: the slower one is beaten"),
        Case(([(0.4, 3.0), (0.5, 3.0), (0.6, 5.0)],), "two with the same ms: the worse one is beaten"),
        Case(([(0.6, 5.0), (0.5, 3.0), (0.5, 3.0)],), "two that are equal in both: the first counts"),
        Case(([(0.6, 6.0), (0.4, 4.0), (0.5, 5.0), (0.3, 3.0)],), "all are on the frontier, in no order"),
        Case(([(0.4, 4.0), (0.7, 2.0), (0.5, 3.0)],), "one beats all others"),
    ]
    for seed in range(3):
        rng, n = random.Random(seed), 6 + 6 * seed
        points = [(rng.randint(40, 60) / 100, rng.randint(20, 40) / 10) for _ in range(n)]
        cases.append(Case((points,), f"{n} random networks"))
    return cases


def _fastest_cases() -> list[Case]:
    misfit = [[[9.0, 9.0], [9.0, 1.0]], [[0.5, 9.0], [9.0, 3.0]]]
    slow_end = [[[1.0, 1.0], [1.5, 1.5]], [[8.0, 9.0], [8.0, 9.0]]]
    cases = [
        Case(([1.0, 2.0], [[[5.0, 4.0], [2.0, 4.5]]]), "by hand: 2 widths, 2 stages"),
        Case(([3.0, 2.0, 4.0], []), "a single stage"),
        Case(([1.0, 1.5], [[[2.0, 1.0]] * 2, [[1.0, 1.0], [0.5, 2.0]]]), "the smallest is not the fastest"),
        Case(([1.0, 2.0], misfit), "each stage's own best does not fit the next one's"),
        Case(([1.0, 2.0], slow_end), "a fast beginning with a slow end"),
    ]
    for seed, widths in enumerate([(2, 3, 2), (3, 2, 4, 3), (3,) * 9]):
        rng = random.Random(seed)
        steps = [
            [[rng.randint(1, 40) / 8 for _ in range(own)] for _ in range(before)]
            for before, own in itertools.pairwise(widths)
        ]
        first = [rng.randint(1, 40) / 8 for _ in range(widths[0])]
        cases.append(Case((first, steps), f"{np.prod(widths):,} networks"))
    return cases


EXERCISES = Exercises(
    Exercise(
        sample,
        hints=(
            "One independent draw for each decision. What can rng draw, and what do you do with it?",
            "rng.integers(n) is 0, 1, … or n - 1, each with the same probability. Use it as an index.",
            "{name: options[rng.integers(len(options))] for name, options in decisions.items()}",
        ),
        judge=_unfair,
        passed="every network is as likely as any other",
    ),
    Exercise(
        predict_latency,
        hints=(
            "Look up every operation, add up, then bring the sum to scale.",
            "An operation that occurs twice costs twice. The base is there once, and the scale does not apply to it.",
            "base_ms + scale * sum(table[layer] for layer in layers)",
        ),
        judge=_guesses_unknown,
        cases=_latency_cases,
        mistakes={
            "in layers -> in set(layers)": "an operation that occurs twice costs twice: a set forgets that.",
            "base_ms + scale -> scale * base_ms + scale": "the scale belongs to the sum alone, not to base_ms.",
            "base_ms + scale * sum(table[layer] -> sum(base_ms + scale * table[layer]": "base_ms comes once for the "
            "whole network, not once for each operation.",
            "base_ms + ->": "base_ms is missing.",
            "scale * ->": "the sum must be scaled.",
            "sum(table -> max(table": "the operations run one after the other: add their times, the longest alone is "
            "not enough.",
            "table[layer] for layer in layers -> table.values()": "add up the operations of the network, not "
            "everything in the table.",
            "in layers) -> in layers) / len(layers)": "the sum of the operations counts, not their mean.",
        },
    ),
    Exercise(
        pareto_front,
        hints=(
            "Walk from the fastest network to the slowest. When is the next one worth its time?",
            "Only if its AP is above that of all before it. At equal ms the one with the larger AP must come first.",
            "Sort range(len(points)) by key=lambda i: (points[i][1], -points[i][0]); keep i when its AP is above the "
            "best so far, and update the best.",
        ),
        cases=_front_cases,
        mistakes={
            "ap > best -> not any(other > ap and ms < points[i][1] for other, ms in points)": "a point is beaten "
            "already when another is as good in one thing and better in the other.",
            "ap > best -> ap > best or points[i] == points[front[-1]]": "of networks that are equal in both, return "
            "only the first.",
            "return front -> return sorted(front)": "return the indices in the order of the ms, the fastest first.",
            "return front -> return front[::-1]": "the fastest comes first: turn the order around.",
            ("(points[i][1], -> (-points[i][1],", "return front -> return front[::-1]"): "few ms are good: the "
            "frontier wants a large AP and a small ms, not both large.",
            "return front -> return [points[i] for i in front]": "return the indices of the points, not the points.",
            "-points[i][0] -> 0": "at equal ms, look at the larger AP first: sort by (ms, -AP).",
            "sorted(range(len(points)), key=lambda i: (points[i][1], -points[i][0])) -> range(len(points))": (
                "sort by ms before you walk: the points come in no order."
            ),
            "return front -> return front[-1:]": "this is the network with the largest AP alone; the frontier has the "
            "best for *every* budget.",
        },
    ),
    Exercise(
        fastest,
        hints=(
            "Go stage by stage. For each width of the last one, keep the fewest ms with which a network can end there.",
            "If so_far[a] is the fewest ms that end in width a, the fewest that go on to width b are the minimum over "
            "a of so_far[a] + step[a][b].",
            "so_far = list(first); for step in steps: so_far = [min(so_far[a] + step[a][b] for a in "
            "range(len(so_far))) for b in range(len(step[0]))]; the answer is min(so_far).",
        ),
        cases=_fastest_cases,
        mistakes={
            "a in range(len(so_far))) for b in range(len(step[0])) -> a in [0]) for b in [0]": "this is the network "
            "with the first option everywhere; the smallest need not be the fastest.",
            "min(so_far[a] -> min(min(so_far)": "these are each table's smallest entries, added up: a bound, but a "
            "network has them all only if the widths agree, for a stage reads the width that the one before has.",
            _greedy: "the best next step was taken each time; a slower step may lead to a faster rest. Keep one sum "
            "for each width.",
            "min(so_far[a] + step[a][b] for a in range(len(so_far))) for b in range(len(step[0])) -> "
            "so_far[a] + min(step[a]) for a in range(len(so_far))": "so_far must be of the width chosen last: take the "
            "minimum over a, the width before it.",
            "list(first) -> [0.0] * len(first)": "the first stage takes time too: begin with first.",
            "min( -> max(": "this is the slowest network: take the minimum.",
            _sampled: "networks were drawn at random. However many you look at, this proves nothing about the others.",
        },
    ),
)
hint, solution = EXERCISES.hint, EXERCISES.solution
check_sample, check_predict_latency = EXERCISES["sample"].check, EXERCISES["predict_latency"].check
check_pareto_front, check_fastest = EXERCISES["pareto_front"].check, EXERCISES["fastest"].check
