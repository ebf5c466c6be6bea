"""Exercises of notebook 09 (architecture search): sample, predict_latency, pareto_front, fastest."""

import itertools
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from yolonas_lab.teaching.exercises import Case, CheckFailed, Mistake, check_cases, show_hint, show_solution

# Plausible wrong answers for the exercises of notebook 09.

LATENCY_MISTAKES = [
    Mistake(
        lambda layers, table, base, scale: base + scale * sum(table[layer] for layer in set(layers)),
        "an operation that occurs twice costs twice: a set forgets that.",
    ),
    Mistake(
        lambda layers, table, base, scale: scale * (base + sum(table[layer] for layer in layers)),
        "the scale belongs to the sum alone, not to base_ms.",
    ),
    Mistake(
        lambda layers, table, base, scale: sum(base + scale * table[layer] for layer in layers),
        "base_ms comes once for the whole network, not once for each operation.",
    ),
    Mistake(lambda layers, table, base, scale: scale * sum(table[layer] for layer in layers), "base_ms is missing."),
    Mistake(lambda layers, table, base, scale: base + sum(table[layer] for layer in layers), "the sum must be scaled."),
    Mistake(
        lambda layers, table, base, scale: base + scale * max(table[layer] for layer in layers),
        "the operations run one after the other: add their times, the longest alone is not enough.",
    ),
    Mistake(
        lambda layers, table, base, scale: base + scale * sum(table.values()),
        "add up the operations of the network, not everything in the table.",
    ),
    Mistake(
        lambda layers, table, base, scale: base + scale * sum(table[layer] for layer in layers) / len(layers),
        "the sum of the operations counts, not their mean.",
    ),
]


def _fronts(beats: Callable, order: Callable = lambda i, points: points[i][1], first_only: bool = True) -> Callable:
    """A frontier by comparing all pairs of (AP, ms)."""

    def wrong(points):
        kept = [i for i, point in enumerate(points) if not any(beats(other, point) for other in points)]
        if first_only:
            kept = [i for i in kept if points[i] not in points[:i]]
        return sorted(kept, key=lambda i: order(i, points))

    return wrong


def _beats(one, other):
    return one[0] >= other[0] and one[1] <= other[1] and one != other


def _single_pass(points, key):
    front, best = [], float("-inf")
    for i in sorted(range(len(points)), key=key):
        if points[i][0] > best:
            front, best = [*front, i], points[i][0]
    return front


PARETO_MISTAKES = [
    Mistake(
        _fronts(lambda one, other: one[0] > other[0] and one[1] < other[1]),
        "a point is beaten already when another is as good in one thing and better in the other.",
    ),
    Mistake(
        _fronts(_beats, first_only=False),
        "of networks that are equal in both, return only the first.",
    ),
    Mistake(
        _fronts(_beats, order=lambda i, points: i), "return the indices in the order of the ms, the fastest first."
    ),
    Mistake(_fronts(_beats, order=lambda i, points: -points[i][1]), "the fastest comes first: turn the order around."),
    Mistake(
        _fronts(lambda one, other: one[0] >= other[0] and one[1] >= other[1] and one != other),
        "few ms are good: the frontier wants a large AP and a small ms, not both large.",
    ),
    Mistake(
        lambda points: [points[i] for i in _fronts(_beats)(points)], "return the indices of the points, not the points."
    ),
    Mistake(
        lambda points: _single_pass(points, lambda i: points[i][1]),
        "at equal ms, look at the larger AP first: sort by (ms, -AP).",
    ),
    Mistake(
        lambda points: _single_pass(points, lambda i: i), "sort by ms before you walk: the points come in no order."
    ),
    Mistake(
        lambda points: [max(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))],
        "this is the network with the largest AP alone; the frontier has the best for *every* budget.",
    ),
]


def _total(first, steps, options):
    return first[options[0]] + sum(table[a][b] for table, a, b in zip(steps, options, options[1:]))


def _counts(first, steps):
    return [len(first), *(len(table[0]) for table in steps)]


def _smallest(first, steps):
    return _total(first, steps, [0] * (1 + len(steps)))


def _greedy(first, steps):
    options = [int(np.argmin(first))]
    for table in steps:
        options.append(int(np.argmin(table[options[-1]])))
    return _total(first, steps, options)


def _bound(first, steps):
    return min(first) + sum(min(map(min, table)) for table in steps)


def _sampled(first, steps, draws=30):
    rng = np.random.default_rng(0)
    return min(_total(first, steps, [rng.integers(n) for n in _counts(first, steps)]) for _ in range(draws))


def _slowest(first, steps):
    return max(_total(first, steps, o) for o in itertools.product(*map(range, _counts(first, steps))))


def _last_transposed(first, steps):
    """The minimum over the width that follows, kept for each width before."""
    so_far = list(first)
    for table in steps:
        so_far = [so_far[a] + min(table[a]) for a in range(len(so_far))]
    return min(so_far)


def _start_free(first, steps):
    so_far = [0.0] * len(first)
    for table in steps:
        so_far = [min(so_far[a] + table[a][b] for a in range(len(so_far))) for b in range(len(table[0]))]
    return min(so_far)


FASTEST_MISTAKES = [
    Mistake(
        _smallest,
        "this is the network with the first option everywhere; the smallest need not be the fastest.",
    ),
    Mistake(
        _bound,
        "these are each table's smallest entries, added up: a bound, but a network has them all only if the widths "
        "agree, for a stage reads the width that the one before has.",
    ),
    Mistake(
        _greedy,
        "the best next step was taken each time; a slower step may lead to a faster rest. Keep one sum for each width.",
    ),
    Mistake(_last_transposed, "so_far must be of the width chosen last: take the minimum over a, the width before it."),
    Mistake(_start_free, "the first stage takes time too: begin with first."),
    Mistake(_slowest, "this is the slowest network: take the minimum."),
    Mistake(
        _sampled,
        "networks were drawn at random. However many you look at, this proves nothing about the others.",
    ),
]


# Is a random network of a space what it should be? What can be said of a function whose answers are random.
#
# Part of the checks of notebook 09. Frequencies may stray by six standard deviations: a right answer is never refused.

DECISIONS = {"width": (16, 24, 32), "blocks": (1, 2), "concat": (False, True), "block": ("plain", "repvgg", "qarepvgg")}
DRAWS = 1200


def check_draws(fn: Callable[..., Any]) -> None:
    """Raise CheckFailed saying what is wrong with sample(decisions, rng), or print that it is right."""
    _inside(DECISIONS, _call(fn, DECISIONS, np.random.default_rng(0)))
    only = {"stem": (48,)}
    _inside(only, _call(fn, only, np.random.default_rng(0)))
    one, again = (_draws(fn, 20) for _ in range(2))
    if one != again:
        raise CheckFailed(
            "sample: two generators with the same seed gave different networks.\n  Likely: something else than rng was "
            "asked for random numbers, such as np.random or random."
        )
    draws = _draws(fn, DRAWS)
    if all(draw == draws[0] for draw in draws):
        raise CheckFailed(
            f"sample: {DRAWS} calls with one generator gave the same network each time, {draws[0]}.\n  Likely: a new "
            "generator is made inside, or nothing is drawn: use the rng that is given."
        )
    for name, options in DECISIONS.items():
        _even(f"decision {name!r}", Counter(draw[name] for draw in draws), options)
    names = list(DECISIONS)
    for i, one_name in enumerate(names):
        for other in names[:i]:
            pairs = [(a, b) for a in DECISIONS[one_name] for b in DECISIONS[other]]
            found = Counter((draw[one_name], draw[other]) for draw in draws)
            _even(f"the pair {one_name!r} and {other!r}", found, pairs, "draw anew for each decision")
    print("✓ sample: every network is as likely as any other")


def _draws(fn: Callable[..., Any], count: int) -> list[dict]:
    rng = np.random.default_rng(1)
    return [_call(fn, DECISIONS, rng) for _ in range(count)]


def _call(fn: Callable[..., Any], decisions: dict, rng: np.random.Generator) -> Any:
    try:
        got = fn(dict(decisions), rng)
    except NotImplementedError as error:
        raise CheckFailed("sample is not written yet: replace `raise NotImplementedError()` by your code.") from error
    except Exception as error:  # the reader's code may raise anything: it is the thing being checked
        raise CheckFailed(f"sample({decisions}, rng)\n  raised {type(error).__name__}: {str(error)[:300]}") from error
    if got is None or got is ...:
        raise CheckFailed("sample returned nothing: is there a `return` in front of the result?")
    return got


def _inside(decisions: dict, choices: Any) -> None:
    """Raise CheckFailed unless there is one option of each decision."""
    where = f"sample({decisions}, rng)\n  returned {choices!r:.200}\n  "
    if not isinstance(choices, dict):
        raise CheckFailed(f"{where}It is a {type(choices).__name__}: give a dictionary, decision -> option.")
    if choices.keys() != decisions.keys():
        raise CheckFailed(f"{where}It must hold each decision once: {', '.join(decisions)}.")
    for name, options in decisions.items():
        value = choices[name]
        if isinstance(value, list | tuple | np.ndarray):
            raise CheckFailed(f"{where}{name!r} is {value!r}: a network takes a single option, not several.")
        if value not in options or isinstance(value, bool | np.bool_) != isinstance(options[0], bool):
            index = isinstance(value, int | np.integer) and 0 <= value < len(options)
            advice = "\n  Likely: it is the index; return options[index]." if index else ""
            raise CheckFailed(f"{where}{name!r} is {value!r}, and its options are {options}.{advice}")


def _even(what: str, found: Counter, options: Sequence, advice: str = "") -> None:
    """Raise CheckFailed unless all options occur, each about as often as any other."""
    expected = DRAWS / len(options)
    for option in options:
        if found[option] == 0:
            which = " (the last one)" if option == options[-1] else ""
            likely = advice or "rng.integers(n) leaves out n itself: it takes the number of options, not the last index"
            raise CheckFailed(f"sample: in {DRAWS} networks, {what} was never {option!r}{which}.\n  Likely: {likely}.")
    slack = 6 * (expected * (1 - 1 / len(options))) ** 0.5
    for option in options:
        if abs(found[option] - expected) > slack:
            raise CheckFailed(
                f"sample: in {DRAWS} networks, {what} was {option!r} {found[option]} times, and about {expected:.0f} "
                f"would be fair.\n  Likely: {advice or 'the options are not drawn with equal probability'}."
            )


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
