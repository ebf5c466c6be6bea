"""Is it better, or was it luck? Differences seed by seed, with a bootstrap interval of their mean.

Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 14 (BCa). Taking the difference within a seed
removes what both arms share: initial weights, order of the data, validation images.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Difference(NamedTuple):
    """How much better an arm is than its baseline in a metric: mean over the seeds, and its 95 % interval."""

    arm: str
    baseline: str
    metric: str
    mean: float
    low: float  # NaN where there are fewer than two seeds
    high: float
    values: tuple[float, ...]  # one per seed

    @property
    def shown(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        wins = sum(value > 0 for value in self.values)
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}], better in {wins} of {len(self.values)} seeds"


def paired_difference(
    arm: str, baseline: str, metric: str, better: Sequence[float], worse: Sequence[float]
) -> Difference:
    """The difference of two arms measured with the same seeds, in order: (n,), (n,).

    Few seeds make a bootstrap interval somewhat too narrow: read one that barely leaves out 0 as undecided.
    """
    values = np.asarray(better, dtype=float) - np.asarray(worse, dtype=float)  # (n,)
    low, high = mean_interval(values)
    return Difference(arm, baseline, metric, float(values.mean()), low, high, tuple(values.tolist()))


def mean_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Bootstrap interval of the mean of values (n,): bias-corrected and accelerated, the same each time.

    NaN for fewer than two values; equal values give an interval without width.
    """
    from scipy.stats import bootstrap

    if len(values) < 2:
        return math.nan, math.nan
    if np.ptp(values) < 1e-12:  # nothing to resample: BCa would divide 0 by 0
        return float(values.mean()), float(values.mean())
    found = bootstrap((values,), np.mean, confidence_level=confidence, rng=np.random.default_rng(0))
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
