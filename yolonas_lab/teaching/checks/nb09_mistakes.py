"""Plausible wrong answers for the exercises of notebook 09."""

import itertools
from collections.abc import Callable

import numpy as np

from yolonas_lab.teaching.checks.check import Mistake

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
