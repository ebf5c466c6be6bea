import itertools

import numpy as np
import pytest

from yolonas_lab.search.proxies import RankCorrelation, kendall, rank


def test_tau_by_hand():
    found = kendall([1, 2, 3, 4, 5], [1, 2, 3, 5, 4], resamples=200)  # 10 pairs, one of them in the other order
    assert found.tau == pytest.approx((9 - 1) / 10) and found.networks == 5
    assert found.low <= found.tau <= found.high
    assert found == kendall([1, 2, 3, 4, 5], [1, 2, 3, 5, 4], resamples=200)


@pytest.mark.parametrize("seed", range(3))
def test_tau_counts_pairs(seed):
    one, other = np.random.default_rng(seed).normal(size=(2, 12))
    signs = [np.sign((one[i] - one[j]) * (other[i] - other[j])) for i, j in itertools.combinations(range(12), 2)]
    assert kendall(one, other, resamples=10).tau == pytest.approx(np.mean(signs))


def test_the_same_order_is_certain_and_the_reverse_too():
    values = np.arange(16.0)
    assert kendall(values, values**3, resamples=200) == pytest.approx(RankCorrelation(1.0, 1.0, 1.0, 16))
    assert kendall(values, -values, resamples=200)[:3] == pytest.approx((-1.0, -1.0, -1.0))


def test_the_interval_holds_the_tau_of_all_networks():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=200)
    held = []
    for _ in range(12):  # samples of 25 of networks whose tau in all is known
        guesses = truth + rng.normal(size=200)
        of_all = kendall(guesses, truth, resamples=10).tau
        chosen = rng.choice(200, 25, replace=False)
        found = kendall(guesses[chosen], truth[chosen], resamples=150)
        held.append(found.low <= of_all <= found.high)
    assert sum(held) >= 9


def test_guesses_are_ranked_and_told():
    truth = [1.0, 2, 3, 4, 5, 6]
    found = rank({"bad": [2, 1, 3, 4, 6, 5], "good": [1, 2, 3, 4, 5, 6]}, truth)
    assert list(found.taus) == ["good", "bad"]
    assert str(found).splitlines()[0] == "good +1.00 [+1.00, +1.00] over 6 networks"


@pytest.mark.parametrize(
    ("guesses", "truth", "reason"),
    [
        ([1, 2, 3], [1, 2, 3], "at least 5"),
        ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6], "5 guesses for 6"),
        ([1, 2, 3, 4, np.nan], [1, 2, 3, 4, 5], "guesses are .*NaN"),
        ([1, 2, 3, 4, 5], [1, 1, 1, 1, 1], "truth are .*all the same"),
    ],
)
def test_what_orders_nothing_is_refused(guesses, truth, reason):
    with pytest.raises(ValueError, match=reason):
        kendall(guesses, truth)
