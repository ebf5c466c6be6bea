"""Does a guess order networks as training does? Kendall's tau with an interval. Notebook 09.

Kendall, "A New Measure of Rank Correlation", 1938. 1: every pair in the same order; 0: as many pairs as not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

FEWEST_NETWORKS = 5  # below that an interval says nothing


class RankCorrelation(NamedTuple):
    """Kendall's tau (tau-b, which allows for ties) over some networks, with its 95 % interval."""

    tau: float
    low: float
    high: float
    networks: int

    def __str__(self) -> str:
        return f"{self.tau:+.2f} [{self.low:+.2f}, {self.high:+.2f}] over {self.networks} networks"


@dataclass(frozen=True)
class Ranking:
    """How well several guesses order the same networks: tau by the name of the guess, the best first."""

    taus: dict[str, RankCorrelation]

    def __str__(self) -> str:
        width = max(map(len, self.taus), default=0)
        return "\n".join(f"{name:<{width}} {tau}" for name, tau in self.taus.items())


def kendall(
    guesses: Sequence[float] | np.ndarray, truth: Sequence[float] | np.ndarray, resamples: int = 2000
) -> RankCorrelation:
    """Kendall's tau of guesses (n,) and truth (n,), and the percentile interval of resampled networks, the same each
    time.

    Few networks make it somewhat too narrow. Raises ValueError for fewer than 5 networks, for lengths that differ, NaN,
    and where all values are the same.
    """
    from scipy.stats import bootstrap

    one, other = np.asarray(guesses, dtype=float), np.asarray(truth, dtype=float)  # (n,) each
    if one.shape != other.shape or one.ndim != 1 or len(one) < FEWEST_NETWORKS:
        raise ValueError(
            f"There are {len(one)} guesses for {len(other)} networks: give one for each of at least {FEWEST_NETWORKS}."
        )
    for name, values in (("guesses", one), ("truth", other)):
        if np.isnan(values).any() or np.all(values == values[0]):
            raise ValueError(f"The {name} are {values.tolist()}: NaN or all the same, they order nothing.")
    found = bootstrap(
        (one, other), _tau, n_resamples=resamples, paired=True, vectorized=False, method="percentile",
        rng=np.random.default_rng(0),
    )  # fmt: skip
    low, high = found.confidence_interval
    return RankCorrelation(_tau(one, other), float(low), float(high), len(one))


def rank(guesses: Mapping[str, Sequence[float]], truth: Sequence[float]) -> Ranking:
    """`kendall` for each guess by its name, the largest tau first."""
    taus = {name: kendall(values, truth) for name, values in guesses.items()}
    return Ranking(dict(sorted(taus.items(), key=lambda item: -item[1].tau)))


def _tau(one: np.ndarray, other: np.ndarray) -> float:
    """0 for a resample in which all values are the same: it orders nothing."""
    from scipy.stats import kendalltau

    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(kendalltau(one, other)[0])  # type: ignore[arg-type]
