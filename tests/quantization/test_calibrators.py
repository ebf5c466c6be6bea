import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yolonas_lab.quantization import Histogram, choose_range, fake_quantize, scale_and_zero_point
from yolonas_lab.quantization.calibrators import CANDIDATES, METHODS, Extremes, _divergence, weight_range
from yolonas_lab.quantization.fake_quant import integer_range


def seen(*tensors, bins=4096):
    histogram = Histogram(bins)
    for x in tensors:
        histogram.observe(x)
    return histogram


def test_a_histogram_by_hand():
    histogram = seen(torch.tensor([0.0, 0.3, 1.9, -1.0]), bins=4)  # 4 bins a side, 0.5 wide, reach ± 2
    assert histogram.width == 0.5 and histogram.zeros == 1
    assert histogram.counts.tolist() == [0, 0, 1, 0, 1, 0, 0, 1]
    histogram.observe(torch.tensor([3.5]))  # pairs of bins become one
    assert histogram.width == 1 and histogram.counts.tolist() == [0, 0, 0, 1, 1, 1, 0, 1]
    assert (histogram.low, histogram.high) == (-1.0, 3.5)
    values, counts = histogram.occupied()
    assert values.tolist() == [-0.5, 0.5, 1.5, 3.5] and counts.tolist() == [1, 1, 1, 1]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=9), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
def test_a_histogram_does_not_depend_on_order_and_grouping(batches, random):
    streamed = seen(*[torch.tensor(batch) for batch in batches], bins=16)
    values = [value for batch in batches for value in batch]
    random.shuffle(values)
    at_once = seen(torch.tensor(values), bins=16)
    assert streamed.width == at_once.width and streamed.zeros == at_once.zeros
    assert (streamed.low, streamed.high) == (at_once.low, at_once.high)
    assert torch.equal(streamed.counts, at_once.counts) and len(streamed.counts) == 32
    assert int(streamed.counts.sum()) + streamed.zeros == len(values)
    inside = [v for v in values if v != 0]
    if inside:
        edges = (np.arange(33) - 16) * streamed.width
        assert np.histogram(inside, edges)[0].sum() == len(inside)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("symmetric", [True, False])
def test_nothing_but_zeros(method, symmetric):
    assert choose_range(seen(torch.zeros(50)), method, 99.9, 8, symmetric) == (0.0, 0.0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([90.0, 99.0, 99.9, 100.0]), st.booleans())
def test_a_percentile_leaves_out_no_more_than_allowed_and_is_tight(seed, percentile, symmetric):
    x = torch.randn(2000, generator=torch.Generator().manual_seed(seed)).relu() - 0.1
    histogram = seen(x)
    low, high = choose_range(histogram, "percentile", percentile, 8, symmetric)
    allowed = (1 - percentile / 100) * len(x) + 1e-6
    width = histogram.width
    sides = [(x < -max(-low, high)) | (x > max(-low, high))] if symmetric else [x < low, x > high]
    assert all(side.sum() <= allowed for side in sides)
    limit = max(-low, high) - width
    tighter = [x.abs() > limit] if symmetric else [x < low + width, x > high - width]
    assert percentile == 100 or all(side.sum() > allowed or side.sum() == 0 for side in tighter)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_mse_finds_what_trying_every_range_on_the_values_finds(bits, symmetric):
    x = torch.randn(20_000, generator=torch.Generator().manual_seed(bits)).double() ** 3 + 0.5
    histogram = seen(x)
    found = choose_range(histogram, "mse", 99.9, bits, symmetric)

    def error(low, high):
        grid = scale_and_zero_point(torch.tensor(low), torch.tensor(high), bits, symmetric)
        return (fake_quantize(x, *grid, *integer_range(bits, symmetric)) - x).square().mean().item()

    largest = max(-histogram.low, histogram.high)
    ends = (-largest, largest) if symmetric else (histogram.low, histogram.high)
    shares = [i / CANDIDATES for i in range(1, CANDIDATES + 1)]
    best = min(error(share * ends[0], share * ends[1]) for share in shares)
    assert error(*found) == pytest.approx(best, rel=0.01)
    assert error(*found) <= error(*ends) * 1.001 and (bits == 8 or found[1] < 0.9 * ends[1])


def straightforward_divergence(values, scale, low, high):
    """KL divergence as in the talk that proposed it, in plain loops over (value, count) pairs, but for the clipped
    share, which q lacks; and the divergence's standard error.
    """
    bins = {}
    for value, count in values:
        bins[value] = bins.get(value, 0) + count
    level = {v: round(v / scale) for v in bins}  # Python rounds halves to even too
    inside = sorted(v for v in bins if low <= level[v] <= high)
    if not inside:
        return math.inf, 0.0
    p = {v: bins[v] for v in inside}
    p[inside[0]] += sum(c for v, c in bins.items() if level[v] < low)
    p[inside[-1]] += sum(c for v, c in bins.items() if level[v] > high)
    q = {}
    for v in inside:
        together = [u for u in inside if level[u] == level[v]]
        q[v] = sum(bins[u] for u in together) / len(together)
    n = sum(bins.values())
    sharing = len(inside) - len({level[v] for v in inside})
    return sum(p[v] / n * math.log(p[v] / q[v]) for v in inside), math.sqrt(2 * sharing) / (2 * n)


@pytest.mark.parametrize("bits", [3, 4])
def test_entropy_finds_what_a_straightforward_search_finds(bits):
    x = torch.randn(3000, generator=torch.Generator().manual_seed(bits)) ** 3
    histogram = seen(x, bins=64)
    low, high = choose_range(histogram, "entropy", 99.9, bits, True)
    values = list(zip(*(column.tolist() for column in histogram.occupied()), strict=True))
    limits = integer_range(bits, True)
    divergences = {}
    for i in range(1, CANDIDATES + 1):
        largest = max(-histogram.low, histogram.high) * i / CANDIDATES
        scale = largest / limits[1]
        if scale >= histogram.width:
            divergences[largest] = straightforward_divergence(values, scale, *limits)
            centers, counts = histogram.occupied()
            ours = _divergence(counts, (centers / scale).round().long(), *limits)
            assert ours == pytest.approx(divergences[largest], abs=1e-12)
    least, error = min(divergences.values())
    best = max(largest for largest, (divergence, _) in divergences.items() if divergence <= least + error)
    assert high == pytest.approx(best) and low == -high
    assert 0.05 < high / x.abs().max() < 0.9  # it clips


def test_entropy_does_not_clip_by_luck():
    few = torch.randn(1000, generator=torch.Generator().manual_seed(0)).abs()  # the least divergence is at 83 %
    assert choose_range(seen(few), "entropy", 99.9, 8, True)[1] == few.max().item()
    # One shade in much of a picture: the range that holds nothing else is not perfect, it clips all the rest.
    picture = torch.cat([torch.full((300,), 0.05), torch.rand(500, generator=torch.Generator().manual_seed(0))])
    assert choose_range(seen(picture), "entropy", 99.9, 8, True)[1] > 0.9


def test_an_outlier_moves_max_alone():
    x = torch.cat([torch.randn(100_000, generator=torch.Generator().manual_seed(0)).relu(), torch.tensor([50.0])])
    high = {method: choose_range(seen(x, bins=2**15), method, 99.99, 4, True)[1] for method in METHODS}
    assert high["max"] == 50 and all(high[method] < 5 for method in ("percentile", "mse", "entropy"))
    assert high["percentile"] == pytest.approx(x.quantile(0.9999).item(), abs=0.01)


def test_unknown_methods_name_the_nearest_one_and_percentiles_have_limits():
    with pytest.raises(ValueError, match="did you mean 'entropy'"):
        choose_range(Extremes(), "entropie", 99.9, 8, True)
    for percentile in (49, 100.1, float("nan")):
        with pytest.raises(ValueError, match="from 50 to 100"):
            choose_range(Extremes(), "percentile", percentile, 8, True)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", [Extremes, Histogram])
def test_values_that_are_not_finite(kind, value):
    with pytest.raises(ValueError, match="NaN or infinite"):
        kind().observe(torch.tensor([1.0, value]))


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_the_range_of_a_weight(axis):
    weight = torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    largest = weight_range(weight, 8, "max", axis)
    expected = weight.abs().amax() if axis is None else weight.abs().amax(dim=[d for d in range(4) if d != axis])
    assert torch.equal(largest, expected)
    least = weight_range(weight, 3, "mse", axis)

    def error(limit):
        scale, zero_point = scale_and_zero_point(-limit, limit, 3, True)
        off = fake_quantize(weight, scale, zero_point, -3, 3, axis) - weight
        return off.square().sum(dim=[d for d in range(4) if d != axis] if axis is not None else (0, 1, 2, 3))

    for share in torch.linspace(0.01, 1, 100):
        assert (error(least) <= error(share * largest) * 1.0001).all()
    assert (error(least) < error(largest)).any()
    assert (weight_range(weight, 8, "percentile", axis) <= largest).all()


def test_the_percentile_of_a_weight_leaves_out_one_in_ten_thousand():
    weight = torch.arange(1.0, 20_001)[torch.randperm(20_000, generator=torch.Generator().manual_seed(0))]
    assert weight_range(weight.view(1, -1, 1, 1), 8, "percentile", None) == 19_998
