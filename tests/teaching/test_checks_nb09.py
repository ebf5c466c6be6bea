import itertools

import numpy as np
import pytest
from open_exercise import assert_called_open

from yolonas_lab import latency as frontier
from yolonas_lab.teaching.checks import nb09
from yolonas_lab.teaching.checks import nb09 as made
from yolonas_lab.teaching.exercises import CheckFailed

CHECKS = {
    "sample": nb09.check_sample,
    "predict_latency": nb09.check_predict_latency,
    "pareto_front": nb09.check_pareto_front,
    "fastest": nb09.check_fastest,
}


@pytest.mark.parametrize("name", CHECKS)
def test_reference_solutions_pass(name, capsys):
    CHECKS[name](nb09.SOLUTIONS[name])
    assert capsys.readouterr().out.startswith(f"✓ {name}")


def test_solutions_written_in_another_way_pass():
    def by_choice(decisions, rng):
        return {name: options[int(rng.random() * len(options))] for name, options in decisions.items()}

    def of_numpy_type(decisions, rng):
        return {name: rng.choice(options) for name, options in decisions.items()}

    def with_a_loop(layers, table, base_ms, scale):
        ms = base_ms
        for layer in layers:
            ms += scale * table[layer]
        return ms

    def all_pairs(points):
        def beaten(i):
            ap, ms = points[i]
            return any(
                a >= ap and t <= ms and ((a, t) != (ap, ms) or j < i) for j, (a, t) in enumerate(points) if j != i
            )

        return sorted((i for i in range(len(points)) if not beaten(i)), key=lambda i: points[i][1])

    def with_numpy(first, steps):
        so_far = np.array(first)
        for table in steps:
            so_far = (so_far[:, None] + np.array(table)).min(axis=0)
        return float(so_far.min())

    for fn in (by_choice, of_numpy_type):
        nb09.check_sample(fn)
    nb09.check_predict_latency(with_a_loop)
    nb09.check_pareto_front(all_pairs)
    nb09.check_pareto_front(frontier.pareto_front)
    nb09.check_fastest(with_numpy)


def middle(options):
    return options[len(options) // 2]


def one_draw_for_all(decisions, rng):
    part = rng.random()
    return {name: options[int(part * len(options))] for name, options in decisions.items()}


WRONG_SAMPLES = [
    (lambda d, rng: {n: o[np.random.randint(len(o))] for n, o in d.items()}, "something else than rng"),  # noqa: NPY002
    (lambda d, rng: nb09.sample(d, np.random.default_rng(0)), "a new generator is made inside"),
    (lambda d, rng: {n: o[0] for n, o in d.items()}, "nothing is drawn"),
    (lambda d, rng: {n: o[rng.integers(max(1, len(o) - 1))] for n, o in d.items()}, "last one.*\n.*leaves out n"),
    (lambda d, rng: {n: o[rng.binomial(len(o) - 1, 0.5)] for n, o in d.items()}, "equal probability"),
    (one_draw_for_all, "anew for each decision"),
    (lambda d, rng: {n: rng.integers(len(o)) for n, o in d.items()}, "it is the index"),
    (lambda d, rng: {n: o[rng.integers(len(o)) :][:1] for n, o in d.items()}, "a single option, not several"),
    (lambda d, rng: [o[rng.integers(len(o))] for o in d.values()], "give a dictionary"),
    (lambda d, rng: {"width": 16}, "each decision once"),
    (lambda d, rng: None, "returned nothing"),
    (lambda d, rng: {n: o[rng.integers(1, len(o) + 1)] for n, o in d.items()}, "raised IndexError"),
]


@pytest.mark.parametrize(("wrong", "advice"), WRONG_SAMPLES)
def test_wrong_samples_are_told_what_is_wrong(wrong, advice):
    with pytest.raises(CheckFailed, match=advice):
        nb09.check_sample(wrong)


def by_all_networks(choose):
    def wrong(first, steps):
        counts = [range(len(first)), *(range(len(table[0])) for table in steps)]
        return choose(made._total(first, steps, o) for o in itertools.product(*counts))

    return wrong


def pareto(key):
    return lambda points: made._single_pass(points, key)


WRONG = [
    ("predict_latency", lambda x, t, b, s: b + s * sum({i: t[i] for i in x}.values()), "occurs twice costs twice"),
    ("predict_latency", lambda x, t, b, s: s * (b + sum(t[i] for i in x)), "sum alone"),
    ("predict_latency", lambda x, t, b, s: sum(b + s * t[i] for i in x), "once for the whole network"),
    ("predict_latency", lambda x, t, b, s: s * sum(t[i] for i in x), "base_ms is missing"),
    ("predict_latency", lambda x, t, b, s: b + sum(t[i] for i in x), "must be scaled"),
    ("predict_latency", lambda x, t, b, s: b + s * max((t[i] for i in x), default=0), "one after the other"),
    ("predict_latency", lambda x, t, b, s: b + s * sum(t.values()), "not everything in the table|nobody has"),
    ("predict_latency", lambda x, t, b, s: b + s * sum(t.get(i, 0) for i in x), "counts it as free"),
    ("predict_latency", lambda x, t, b, s: None, "returned None"),
    ("pareto_front", lambda p: [i for i in nb09.pareto_front([(-a, m) for a, m in p])], "expected"),
    ("pareto_front", lambda p: sorted(nb09.pareto_front(p)), "order of the ms"),
    ("pareto_front", lambda p: nb09.pareto_front(p)[::-1], "turn the order around"),
    ("pareto_front", lambda p: [p[i] for i in nb09.pareto_front(p)], "indices of the points"),
    ("pareto_front", pareto(lambda i: i), "Likely|expected"),
    ("pareto_front", lambda p: [max(range(len(p)), key=lambda i: p[i][0])], "largest AP alone"),
    ("pareto_front", lambda p: [p.index(max(p)), *nb09.pareto_front(p)], "expected"),
    ("fastest", made._smallest, "smallest need not be the fastest"),
    ("fastest", made._bound, "a bound"),
    ("fastest", made._greedy, "best next step"),
    ("fastest", made._last_transposed, "width chosen last"),
    ("fastest", made._start_free, "begin with first"),
    ("fastest", by_all_networks(max), "take the minimum"),
    ("fastest", lambda f, s: nb09.fastest(f, s) + 1, "expected"),
]


@pytest.mark.parametrize(("name", "wrong", "advice"), WRONG)
def test_wrong_solutions_are_told_what_is_wrong(name, wrong, advice):
    with pytest.raises(CheckFailed, match=advice):
        CHECKS[name](wrong)


def test_ties_on_the_frontier_are_told_apart():
    def at_equal_ms(points):
        return made._single_pass(points, lambda i: points[i][1])

    def both_of_equal(points):
        return made._fronts(made._beats, first_only=False)(points)

    def strictly(points):
        return made._fronts(lambda one, other: one[0] > other[0] and one[1] < other[1])(points)

    for wrong, advice in (
        (at_equal_ms, "larger AP first"),
        (both_of_equal, "only the first"),
        (strictly, "as good in"),
    ):
        with pytest.raises(CheckFailed, match=advice):
            nb09.check_pareto_front(wrong)


def test_samples_do_not_prove():
    with pytest.raises(CheckFailed, match="proves nothing"):
        nb09.check_fastest(made._sampled)


@pytest.mark.parametrize("name", CHECKS)
def test_an_open_exercise_is_called_open(name):
    assert_called_open(CHECKS[name])
    with pytest.raises(CheckFailed, match="give the check your function"):
        CHECKS[name](None)


def test_the_frontier_is_the_library_s():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        points = [(float(a), float(b)) for a, b in rng.integers(0, 6, (12, 2))]
        assert nb09.pareto_front(points) == frontier.pareto_front(points)


def test_the_fastest_is_the_minimum_over_all_networks():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        widths = rng.integers(1, 4, 5)
        steps = [rng.random(pair).tolist() for pair in itertools.pairwise(widths)]
        first = rng.random(widths[0]).tolist()
        assert nb09.fastest(first, steps) == pytest.approx(by_all_networks(min)(first, steps))


@pytest.mark.parametrize("name", CHECKS)
def test_every_exercise_has_graded_hints_and_a_solution(name, capsys):
    assert len(nb09.HINTS[name]) == 3
    for level in range(1, 4):
        nb09.hint(name, level)
    nb09.solution(name)
    assert f"def {name}(" in capsys.readouterr().out
