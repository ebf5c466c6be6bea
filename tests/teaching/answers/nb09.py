import itertools

import numpy as np

from yolonas_lab import latency


def with_a_loop(layers, table, base_ms, scale):
    ms = base_ms
    for layer in layers:
        ms += scale * table[layer]
    return ms


def all_pairs(points):
    def beaten(i):
        ap, ms = points[i]
        return any(a >= ap and t <= ms and ((a, t) != (ap, ms) or j < i) for j, (a, t) in enumerate(points) if j != i)

    return sorted((i for i in range(len(points)) if not beaten(i)), key=lambda i: points[i][1])


def with_numpy(first, steps):
    so_far = np.array(first)
    for table in steps:
        so_far = (so_far[:, None] + np.array(table)).min(axis=0)
    return float(so_far.min())


def all_networks(first, steps):
    counts = [range(len(first)), *(range(len(table[0])) for table in steps)]
    return min(
        first[path[0]] + sum(table[a][b] for table, (a, b) in zip(steps, itertools.pairwise(path)))
        for path in itertools.product(*counts)
    )


def drawing(index):
    """A sample that asks `index` for the place of each option."""
    return lambda decisions, rng: {name: options[index(rng, len(options))] for name, options in decisions.items()}


def one_draw_for_all(decisions, rng):
    part = rng.random()
    return drawing(lambda rng, n: int(part * n))(decisions, rng)


RIGHT = [
    ("sample", drawing(lambda rng, n: int(rng.random() * n))),
    ("sample", lambda decisions, rng: {name: rng.choice(options) for name, options in decisions.items()}),
    ("predict_latency", with_a_loop),
    ("pareto_front", all_pairs),
    ("pareto_front", latency.pareto_front),
    ("fastest", with_numpy),
    ("fastest", all_networks),
]
WRONG = [
    ("sample", drawing(lambda rng, n: np.random.randint(n)), "something else than rng"),  # noqa: NPY002
    ("sample", drawing(lambda rng, n: np.random.default_rng(0).integers(n)), "a new generator is made inside"),
    ("sample", drawing(lambda rng, n: 0), "nothing is drawn"),
    ("sample", drawing(lambda rng, n: rng.integers(max(1, n - 1))), "rng.integers(n) leaves out n"),
    ("sample", drawing(lambda rng, n: rng.binomial(n - 1, 0.5)), "equal probability"),
    ("sample", one_draw_for_all, "anew for each decision"),
    ("sample", lambda d, rng: {n: rng.integers(len(o)) for n, o in d.items()}, "it is the index"),
    ("sample", lambda d, rng: {n: o[rng.integers(len(o)) :][:1] for n, o in d.items()}, "a single option, not several"),
    ("sample", lambda d, rng: [o[rng.integers(len(o))] for o in d.values()], "give a dictionary"),
    ("sample", lambda d, rng: {"width": 16}, "each decision once"),
    ("sample", drawing(lambda rng, n: rng.integers(1, n + 1)), "raised IndexError"),
    ("predict_latency", (with_a_loop, "in layers -> in {*layers}"), "occurs twice costs twice"),
    ("predict_latency", (with_a_loop, "ms = base_ms -> ms = 0"), "base_ms is missing"),
    ("predict_latency", (with_a_loop, "scale * table -> table"), "must be scaled"),
    ("predict_latency", lambda x, t, b, s: b + s * sum(t.values()), "not everything in the table"),
    ("predict_latency", (with_a_loop, "table[layer] -> table.get(layer, 0)"), "'pool'.\n  Likely: table.get(layer, 0)"),
    ("pareto_front", lambda points: all_pairs([(-ap, ms) for ap, ms in points]), "expected"),
    ("pareto_front", (all_pairs, ", key=lambda i: points[i][1] ->"), "order of the ms"),
    ("pareto_front", (all_pairs, "points[i][1]) -> points[i][1])[::-1]"), "turn the order around"),
    ("pareto_front", (all_pairs, " or j < i ->"), "return only the first"),
    ("pareto_front", lambda points: [max(range(len(points)), key=lambda i: points[i][0])], "largest AP alone"),
    ("fastest", (all_networks, "return min -> return max"), "take the minimum"),
    ("fastest", lambda first, steps: with_numpy([0.0] * len(first), steps), "begin with first"),
    ("fastest", lambda first, steps: with_numpy(first, steps) + 1, "expected"),
]
