"""Milliseconds of a network that nobody has measured: the sum of its operations, brought to scale. Notebook 09.

Each operation's time is looked up in a table; what a few whole networks really take says how the sum relates to it, and
what it costs that a network's weights, other than a single operation's, do not fit the processor's fastest memory.
Look-up tables for search: Cai et al., "ProxylessNAS", arXiv 1812.00332, section 3.3.
"""

import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch

from yolonas_lab.common import progress, time_side_by_side, write_atomically
from yolonas_lab.deployment.export import export_onnx
from yolonas_lab.latency import (
    LatencyTable,
    check_engine,
    check_machine,
    count_macs,
    machine_for,
    measure_table,
    network_layers,
    read_json,
    space_layers,
    table_content,
    table_of,
    table_path,
)
from yolonas_lab.models.configs import YoloNASConfig
from yolonas_lab.models.reparameterize import reparameterize
from yolonas_lab.models.yolo_nas import Bottleneck, YoloNAS, decode
from yolonas_lab.quantization.calibrate import calibrate
from yolonas_lab.quantization.insert import QuantPolicy, quantize
from yolonas_lab.quantization.latency import onnx_session
from yolonas_lab.search.space import Space, config_of

# How long whole networks take: what a latency model is fitted to, and what it is judged by. Notebook 09.
#
# Measured are fresh networks, fused, on one image, decoding included: weights do not change the time, but for a factor
# of exactly 1, which is avoided. All of them take turns at one thread.
# stream of images: else dozens of networks drive each other's weights out of the processor's caches.


class NetworkTime(NamedTuple):
    """One network: its multiply-accumulates and its measured milliseconds for one image."""

    config: YoloNASConfig
    macs: int
    ms: float


@dataclass(frozen=True)
class NetworkTimes:
    """Networks measured side by side, with where and how. Iterating gives each NetworkTime."""

    machine: str
    engine: str
    image_size: int  # px
    num_classes: int
    times: tuple[NetworkTime, ...]

    def __iter__(self) -> Iterator[NetworkTime]:
        return iter(self.times)

    def __len__(self) -> int:
        return len(self.times)


def time_networks(
    configs: Sequence[YoloNASConfig], image_size: int, engine: str = "torch", num_classes: int = 80, rounds: int = 31
) -> NetworkTimes:
    """Measure whole networks, each once per round, for one image of image_size px; medians of CPU time.

    Exporting a network for onnxruntime takes seconds. Raises ValueError for no networks, and as `time_layers`.
    """
    check_engine(engine)
    runners = {
        f"{number} {config.name}": _runner(config, image_size, engine, num_classes)
        for number, config in enumerate(progress(configs, "preparing networks", "network"))
    }
    found = time_side_by_side(runners, rounds, lead_in=1)
    times = []
    for config, timing in zip(configs, found.values(), strict=True):
        macs = count_macs(network_layers(config, image_size, num_classes).values())
        times.append(NetworkTime(config, macs, timing.median_ms))
    return NetworkTimes(machine_for(engine), engine, image_size, num_classes, tuple(times))


def spread_sample(space: Space, count: int, rng: np.random.Generator) -> list[YoloNASConfig]:
    """Random networks, from near the smallest to near the largest: the later one comes, the later are its options.

    Uniform samples of a large space are all of middling size, and tell little about its ends.
    """
    configs = []
    for number in range(count):
        part = (number + rng.random()) / count  # of the options, how far from the first to the last
        choices = {d: options[rng.binomial(len(options) - 1, part)] for d, options in space.decisions.items()}
        configs.append(config_of(space, choices))
    return configs


def most_unequal_pair(networks: NetworkTimes, tolerance: float = 0.02) -> tuple[NetworkTime, NetworkTime]:
    """Two networks that take the same time, to within `tolerance` of it, and differ most in multiply-accumulates: the
    one with fewer first. They show that MACs are not milliseconds.

    Raises ValueError where no two take the same time.
    """
    pairs = [
        (one, other)
        for one in networks
        for other in networks
        if one.macs < other.macs and abs(one.ms - other.ms) <= tolerance * min(one.ms, other.ms)
    ]
    if not pairs:
        raise ValueError(f"No two of these {len(networks)} networks take the same time to within {tolerance:.0%}.")
    return max(pairs, key=lambda pair: pair[1].macs / pair[0].macs)


def _runner(config: YoloNASConfig, image_size: int, engine: str, num_classes: int) -> Callable[[], object]:
    torch.manual_seed(0)
    model = YoloNAS(config, num_classes).eval()
    for module in model.modules():
        if isinstance(module, Bottleneck):
            torch.nn.init.constant_(
                module.alpha, 0.9
            )  # onnxruntime leaves out a product with 1, which no trained network has
    images = torch.rand(1, 3, image_size, image_size)
    if engine == "torch":
        fused = reparameterize(model)

        def run() -> object:
            with torch.inference_mode():
                return decode(fused(images))

        return run
    if engine == "onnxruntime int8":
        model = calibrate(quantize(model, QuantPolicy.cpu()), images)
    with tempfile.TemporaryDirectory() as folder:
        session = onnx_session(export_onnx(model, Path(folder) / "network.onnx", image_size).read_bytes())
    feed = {"images": images.numpy().astype(np.float32)}
    return lambda: session.run(None, feed)


FEWEST_NETWORKS = 3  # as many as numbers are fitted


@dataclass(frozen=True)
class LatencyModel:
    """base_ms, plus `scale` times the sum of a network's operations, plus weights_ms for each million of its weights.

    A table alone is a model: of the bare sum.
    """

    table: LatencyTable
    num_classes: int = 80
    scale: float = 1.0
    base_ms: float = 0.0
    weights_ms: float = 0.0
    fitted_to: tuple[str, ...] = ()  # names of the networks that the three numbers come from

    def predict(self, config: YoloNASConfig) -> float:
        """Milliseconds of a network for one image of the table's size, on the table's machine.

        Raises ValueError naming an operation that the table lacks.
        """
        layers = network_layers(config, self.table.image_size, self.num_classes).values()
        megaweights = sum(layer.weights for layer in layers) / 1e6
        return self.base_ms + self.scale * self.table.total_ms(layers) + self.weights_ms * megaweights


def fit_latency(table: LatencyTable, networks: NetworkTimes) -> LatencyModel:
    """The model that fits measured networks best: least squares of the relative errors, none of its numbers negative.

    Raises ValueError for networks measured on another machine, engine or image size than the table, or fewer than 3.
    """
    check_same(table, networks)
    if len(networks) < FEWEST_NETWORKS:
        raise ValueError(f"{len(networks)} networks are too few for a fit: measure at least {FEWEST_NETWORKS}.")
    from scipy.optimize import nnls

    bare = LatencyModel(table, networks.num_classes)
    per_weight = LatencyModel(table, networks.num_classes, scale=0, weights_ms=1)
    parts = [[1.0, bare.predict(n.config), per_weight.predict(n.config)] for n in networks]  # (networks, 3)
    measured = np.array([network.ms for network in networks])
    relative = np.array(parts) / measured[:, None]  # an error of 1 % counts the same in every network
    (base_ms, scale, weights_ms), _ = nnls(relative, np.ones(len(networks)))
    names = tuple(network.config.name for network in networks)
    return LatencyModel(table, networks.num_classes, float(scale), float(base_ms), float(weights_ms), names)


def latency_model(
    space: Space,
    image_size: int,
    engine: str = "torch",
    num_classes: int = 80,
    folder: str | Path | None = None,
    networks: int = 12,
) -> LatencyModel:
    """The latency model of a space for this machine: every operation of the space measured, then some whole networks.

    With a folder, what was measured before is read from there. With onnxruntime each network costs seconds, for its
    export. Raises ValueError and FileNotFoundError as `measure_table` does.
    """
    path = None
    if folder is not None:
        empty = LatencyTable(machine_for(engine), engine, image_size, {})
        key = hashlib.sha256(repr((space, num_classes, networks)).encode()).hexdigest()[:8]
        path = table_path(folder, empty).with_suffix(f".model_{key}.json")
        if path.is_file():
            return load_model(path)
    table = measure_table(space_layers(space, image_size, num_classes), image_size, engine, folder)
    configs = spread_sample(space, networks, np.random.default_rng(0))
    model = fit_latency(table, time_networks(configs, image_size, engine, num_classes))
    if path is not None:
        save_model(model, path)
    return model


def save_model(model: LatencyModel, path: str | Path) -> Path:
    """Write a model and its table as JSON, atomically; returns the path."""
    numbers = {name: getattr(model, name) for name in ("num_classes", "scale", "base_ms", "weights_ms")}
    content = numbers | {"fitted_to": list(model.fitted_to), "table": table_content(model.table)}
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    return write_atomically(Path(path), lambda file: file.write(text.encode()))


def load_model(path: str | Path, machine: str | None = None) -> LatencyModel:
    """Read a model of this machine, or of the machine that is named as the file says it.

    Raises ValueError naming the file for one of another machine, and for what is no such model.
    """
    content = read_json(path)
    try:
        scale, base_ms, weights_ms = (float(content[name]) for name in ("scale", "base_ms", "weights_ms"))
        if not all(0 <= number < math.inf for number in (scale, base_ms, weights_ms)):
            raise ValueError(f"scale is {scale}, base_ms {base_ms}, weights_ms {weights_ms}: none may be negative.")
        names = tuple(map(str, content["fitted_to"]))
        model = LatencyModel(table_of(content["table"]), int(content["num_classes"]), scale, base_ms, weights_ms, names)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a latency model: {error}") from error
    check_machine(model.table, path, machine)
    return model


def check_same(table: LatencyTable, networks: NetworkTimes) -> None:
    """Raise ValueError unless table and networks were measured on one machine, with one engine, at one image size."""
    for what in ("machine", "engine", "image_size"):
        there, here = getattr(table, what), getattr(networks, what)
        if there != here:
            raise ValueError(
                f"The table's {what} is {there}, that of the networks {here}: measure both in the same place and way."
            )


# How far a latency model is off on networks that it has not seen. Notebook 09.
#
# A search needs both: milliseconds that are right, to keep a budget, and networks in the right order, to choose.


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
