"""How far a latency model is off on networks that it has not seen. Notebook 09.

A search needs both: milliseconds that are right, to keep a budget, and networks in the right order, to choose.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from yolonas_lab.search.latency import LatencyModel, check_same
from yolonas_lab.search.network_times import NetworkTimes


@dataclass(frozen=True)
class Prediction:
    """One network: name, multiply-accumulates, predicted and measured milliseconds."""

    name: str
    macs: int
    predicted_ms: float
    measured_ms: float

    @property
    def error(self) -> float:
        """The prediction's distance from the measurement, as a part of the measurement."""
        return abs(self.predicted_ms - self.measured_ms) / self.measured_ms


@dataclass(frozen=True)
class ErrorReport:
    """How good a latency model is on networks that it was not fitted to."""

    machine: str
    engine: str
    image_size: int  # px
    rows: tuple[Prediction, ...]

    @property
    def median_error(self) -> float:
        """Half of the networks are predicted better than this, as a part of their time: 0.08 is 8 %."""
        return median(row.error for row in self.rows)

    @property
    def worst_error(self) -> float:
        """The largest error, as a part of the network's time."""
        return max(row.error for row in self.rows)

    @property
    def tau(self) -> float:
        """Kendall's tau between predicted and measured times: 1 where they order the networks alike."""
        return _tau([row.predicted_ms for row in self.rows], [row.measured_ms for row in self.rows])

    @property
    def tau_of_macs(self) -> float:
        """Kendall's tau between multiply-accumulates and measured times: what counting alone would give."""
        return _tau([row.macs for row in self.rows], [row.measured_ms for row in self.rows])

    def __str__(self) -> str:
        low, high = (f(row.measured_ms for row in self.rows) for f in (min, max))
        return (
            f"{self.engine} at {self.image_size} px: {len(self.rows)} held-out networks of {low:.2f} to {high:.2f} ms: "
            f"error {self.median_error:.1%} (median), {self.worst_error:.1%} (worst); "
            f"Kendall's tau {self.tau:.2f}, of MACs {self.tau_of_macs:.2f}\n{self.machine}"
        )


def error_report(model: LatencyModel, networks: NetworkTimes) -> ErrorReport:
    """Compare predictions with measured networks that the model was not fitted to.

    Raises ValueError for fewer than 2 networks, for one that it was fitted to, and for those of another machine,
    engine, image size or number of classes than the model's.
    """
    check_same(model.table, networks)
    if networks.num_classes != model.num_classes:
        raise ValueError(f"The networks have {networks.num_classes} classes, the model is for {model.num_classes}.")
    if len(networks) < 2:
        raise ValueError(f"{len(networks)} networks give no report: measure at least 2.")
    for network in networks:
        if network.config.name in model.fitted_to:
            raise ValueError(f"The model was fitted to {network.config.name}: judge it by other networks.")
    rows = tuple(
        Prediction(network.config.name, network.macs, model.predict(network.config), network.ms) for network in networks
    )
    return ErrorReport(networks.machine, networks.engine, networks.image_size, rows)


def _tau(one: Sequence[float], other: Sequence[float]) -> float:
    from scipy.stats import kendalltau

    return float(kendalltau(one, other)[0])  # type: ignore[arg-type]
