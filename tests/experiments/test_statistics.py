import math

import numpy as np
import pytest
from scipy import stats

from yolonas_lab.experiments.statistics import mean_interval, paired_difference


def test_by_hand():
    found = paired_difference("b", "a", "ap", [0.5, 0.7, 0.9], [0.4, 0.6, 0.7])
    assert found.values == pytest.approx((0.1, 0.1, 0.2)) and found.mean == pytest.approx(0.4 / 3)
    assert 0.1 - 1e-9 <= found.low < found.mean < found.high <= 0.2 + 1e-9
    assert found.shown and str(found).endswith("better in 3 of 3 seeds")
    assert not paired_difference("b", "a", "ap", [0.5, 0.3, 0.4], [0.4, 0.4, 0.4]).shown


def test_pairing_removes_what_both_arms_share():
    shared = np.linspace(0, 1, 8)
    found = paired_difference("b", "a", "ap", list(shared + 0.01 + 0.001 * np.arange(8)), list(shared))
    assert found.shown and found.high - found.low < 0.005


def test_few_or_equal_values():
    assert all(math.isnan(x) for x in mean_interval(np.array([0.3])))
    assert mean_interval(np.array([0.25, 0.25, 0.25])) == (0.25, 0.25)


def test_many_values_agree_with_student_t_and_the_answer_is_always_the_same():
    values = np.random.default_rng(1).normal(0.3, 1.0, size=400)
    low, high = mean_interval(values)
    expected = stats.t.interval(0.95, 399, loc=values.mean(), scale=stats.sem(values))
    assert (low, high) == pytest.approx(expected, abs=0.01)
    assert mean_interval(values) == (low, high)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    inside = [low <= 0 <= high for low, high in (mean_interval(rng.normal(size=30)) for _ in range(60))]
    assert 0.85 < np.mean(inside) <= 1.0
