"""Choosing the range of a tensor from the values that it takes: which of them to clip, to round the others finely.

Notebook 10 compares the four ways. Entropy: Migacz, "8-bit Inference with TensorRT", GTC 2017; all four: Wu et al.,
"Integer Quantization for Deep Learning Inference", arXiv 2004.09602, section 5.
"""

import math

import torch
from torch import Tensor

from yolonas_lab.common import unknown_name
from yolonas_lab.quantization.fake_quant import fake_quantize, integer_range, scale_and_zero_point

METHODS = ("max", "percentile", "mse", "entropy")
WEIGHT_METHODS = ("max", "percentile", "mse")  # a channel has too few weights for a distribution
PERCENTILE = 99.99
CANDIDATES = 100  # clipped ranges that mse and entropy try, from 1 % to all of the extremes
BINS = 4096  # on each side of 0


class Extremes:
    """The smallest and the largest value seen so far, 0 among them."""

    def __init__(self) -> None:
        self.low = self.high = 0.0

    def observe(self, x: Tensor, name: str = "this tensor") -> None:
        """Take in the values of a tensor of any shape. Raises ValueError with its name for NaN and infinity."""
        if x.numel() == 0:
            return
        low, high = (value.item() for value in x.aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(
                f"The activations of {name} hold NaN or infinite values; look for them in the images and the weights."
            )
        self.low, self.high = min(self.low, low), max(self.high, high)


class Histogram(Extremes):
    """How often which values were seen, in bins whose number is constant while their common width doubles as needed.

    The width is a power of two, so that wider bins hold exactly two narrower ones: the outcome depends on all the
    values and not on their order. Zeros, half of what a ReLU writes, are counted apart: every grid has them.
    """

    def __init__(self, bins: int = BINS) -> None:
        super().__init__()
        self.bins = bins
        self.width = 0.0  # 0 until something else than 0 was seen
        self.counts = torch.zeros(2 * bins, dtype=torch.int64)  # negative values, then positive ones
        self.zeros = 0

    def occupied(self) -> tuple[Tensor, Tensor]:
        """The middle of each bin that is not empty, ascending, and how many values lie there; (n,) float64 each."""
        bins = self.counts.nonzero().flatten()
        return (bins.double() + 0.5 - self.bins) * self.width, self.counts[bins].double()

    def observe(self, x: Tensor, name: str = "this tensor") -> None:
        super().observe(x, name)
        zeros = x.numel() - int(x.count_nonzero())
        self.zeros += zeros
        if self.low == self.high == 0:
            return
        self._widen(max(-self.low, self.high))
        index = (x.flatten().float() / self.width).floor_().add_(self.bins).clamp_(0, 2 * self.bins - 1)
        counts = torch.bincount(index.int(), minlength=2 * self.bins).cpu()
        counts[self.bins] -= zeros
        self.counts += counts

    def _widen(self, largest: float) -> None:
        """Double the width until the bins reach as far as `largest` > 0."""
        if self.width == 0:
            self.width = 2.0**-100  # far below anything a network computes with
        while self.width * self.bins < largest:
            self.width *= 2
            if self.counts.any():
                pairs = self.counts.view(-1, 2).sum(dim=1)  # (bins,)
                self.counts = torch.nn.functional.pad(pairs, (self.bins // 2, self.bins // 2))


def choose_range(seen: Extremes, method: str, percentile: float, bits: int, symmetric: bool) -> tuple[float, float]:
    """The range (low, high) to quantize to `bits` bits, by one of METHODS; all but "max" need a Histogram. Raises
    ValueError for an unknown method and for a percentile outside 50 … 100.
    """
    check_method(method, percentile)
    if method == "max" or seen.low == seen.high:
        return seen.low, seen.high
    assert isinstance(seen, Histogram)
    if method == "percentile":
        return percentile_range(seen, percentile, symmetric)
    return mse_range(seen, bits, symmetric) if method == "mse" else entropy_range(seen, bits, symmetric)


def check_method(method: str, percentile: float) -> None:
    """Raise ValueError unless method is one of METHODS and percentile lies in 50 … 100."""
    if method not in METHODS:
        raise ValueError(unknown_name("calibration method", method, METHODS))
    if not 50 <= percentile <= 100:
        raise ValueError(f"percentile is {percentile}: give the share of values to keep, from 50 to 100.")


def percentile_range(seen: Histogram, percentile: float, symmetric: bool) -> tuple[float, float]:
    """The range beyond which at most 100 - percentile % of all values lie: on both sides together if symmetric, else
    on each side.
    """
    negative, positive = seen.counts[: seen.bins].flip(0), seen.counts[seen.bins :]  # outward from 0, (bins,) each
    if symmetric:
        negative = positive = negative + positive
    allowed = (1 - percentile / 100) * (int(seen.counts.sum()) + seen.zeros)

    def limit(outward: Tensor) -> float:
        beyond = outward.flip(0).cumsum(0).flip(0)  # beyond[i] values lie in bin i or further out
        return int((beyond > allowed).sum()) * seen.width

    return max(seen.low, -limit(negative)), min(seen.high, limit(positive))


def clipped_ranges(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Candidate ranges (candidates, …) from 1 % of low … high (any shape) to all of it."""
    share = torch.linspace(1 / CANDIDATES, 1, CANDIDATES, dtype=low.dtype, device=low.device)
    share = share.view(-1, *[1] * low.ndim)
    return share * low, share * high


def mse_range(seen: Histogram, bits: int, symmetric: bool) -> tuple[float, float]:
    """The candidate range with the smallest squared error of quantization, summed over the histogram."""
    lows, highs, scale, zero_point = _candidates(seen, bits, symmetric)
    values, counts = seen.occupied()
    values = values.expand(CANDIDATES, -1)  # (candidates, n)
    rounded = fake_quantize(values, scale, zero_point, *integer_range(bits, symmetric), axis=0)
    best = int(((rounded - values).square() @ counts).argmin())
    return float(lows[best]), float(highs[best])


def entropy_range(seen: Histogram, bits: int, symmetric: bool) -> tuple[float, float]:
    """The candidate range whose distribution after rounding tells least apart from that before: least KL divergence.

    Grids finer than the histogram are not tried: there rounding would seem to cost nothing. A histogram of few values
    is rough by chance, so that a narrow range can win by luck: of all candidates within one standard error of the least
    divergence the widest is taken.
    """
    lows, highs, scale, zero_point = _candidates(seen, bits, symmetric)
    values, counts = seen.occupied()
    divergence = torch.full((CANDIDATES, 2), float("inf"), dtype=torch.float64)  # and its standard error
    for i in range(CANDIDATES):
        if scale[i] >= seen.width or i == CANDIDATES - 1:
            levels = (values / scale[i]).round().long() + zero_point[i]
            divergence[i] = torch.tensor(_divergence(counts, levels, *integer_range(bits, symmetric)))
    least, error = divergence[divergence[:, 0].argmin()]
    best = int((divergence[:, 0] <= least + error).nonzero()[-1])
    return float(lows[best]), float(highs[best])


def _divergence(counts: Tensor, levels: Tensor, low: int, high: int) -> tuple[float, float]:
    """KL(p || q) and its standard error, for bins in ascending order, none empty, and the level of each.

    p is the histogram with all that lies outside low … high moved to the outermost bins inside. q is what rounding
    leaves of the inside: each level's total, spread evenly over its bins. q is not made to sum to 1, else a range with
    a single bin inside would seem perfect; so the clipped share has its cost. The error is that of n values drawn from
    q: 2 n KL is chi-square then, with a degree of freedom for each bin beyond the first of its level.
    """
    first, end = int((levels < low).sum()), int((levels <= high).sum())
    if first == end:
        return float("inf"), 0.0
    inside, levels = counts[first:end], levels[first:end] - low
    p = inside.clone()
    p[0] += counts[:first].sum()
    p[-1] += counts[end:].sum()
    bins = torch.bincount(levels)  # of each level
    q = (torch.bincount(levels, inside) / bins)[levels]
    freedom, n = len(inside) - int(bins.count_nonzero()), float(counts.sum())
    return float((p * (p / q).log()).sum()) / n, (2 * freedom) ** 0.5 / (2 * n)


def _candidates(seen: Extremes, bits: int, symmetric: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Clipped ranges, low and high, with scale and zero-point, (candidates,) each; symmetric ranges go as far to the
    left as to the right.
    """
    largest = max(-seen.low, seen.high)
    low, high = (-largest, largest) if symmetric else (seen.low, seen.high)
    lows, highs = clipped_ranges(*torch.tensor([low, high], dtype=torch.float64))
    return lows, highs, *scale_and_zero_point(lows, highs, bits, symmetric)


def weight_range(weight: Tensor, bits: int, method: str, axis: int | None) -> Tensor:
    """The largest magnitude of a weight that its symmetric grid reaches: one value, or one per index of `axis`.

    method is one of WEIGHT_METHODS; percentile keeps PERCENTILE % of the magnitudes.
    """
    rows = weight.detach().transpose(0, axis).flatten(1) if axis is not None else weight.detach().reshape(1, -1)
    largest = rows.abs().amax(dim=1)  # (channels,)
    if method == "percentile":
        # quantile() takes 16 million values at most, and fewer than a large layer has.
        kept = max(1, round(rows.shape[1] * PERCENTILE / 100))
        largest = rows.abs().kthvalue(kept, dim=1).values
    elif method == "mse":
        largest = _least_squared_error(rows, largest, bits)
    return largest if axis is not None else largest[0]


def _least_squared_error(rows: Tensor, largest: Tensor, bits: int) -> Tensor:
    """For each row (channels, n), the clipped range of least squared error: (channels,)."""
    best, least = largest, torch.full_like(largest, float("inf"))
    low, high = integer_range(bits, symmetric=True)
    for candidate in clipped_ranges(largest, largest)[0].flip(0):  # all of the range first: it wins a tie
        scale, zero_point = scale_and_zero_point(-candidate, candidate, bits, symmetric=True)
        error = (fake_quantize(rows, scale, zero_point, low + 1, high, axis=0) - rows).square().sum(dim=1)
        better = error < least
        best, least = torch.where(better, candidate, best), torch.where(better, error, least)
    return best
