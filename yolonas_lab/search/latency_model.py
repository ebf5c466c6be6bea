"""Milliseconds of a network that nobody has measured: the sum of its operations, brought to scale. Notebook 09.

Each operation's time is looked up in a table; what a few whole networks really take says how the sum relates to it, and
what it costs that a network's weights, other than a single operation's, do not fit the processor's fastest memory.
"""

import itertools
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch

from yolonas_lab.common import fingerprint, progress, time_side_by_side, write_json
from yolonas_lab.deployment import export_onnx
from yolonas_lab.latency import (
    LatencyTable,
    Layer,
    machine_for,
    measure_table,
    network_layers,
    onnx_session,
    parse_layer,
)
from yolonas_lab.models.configs import YoloNASConfig
from yolonas_lab.models.reparameterize import reparameterize
from yolonas_lab.models.yolo_nas import Bottleneck, YoloNAS, decode
from yolonas_lab.quantization import QuantPolicy, calibrate, quantize
from yolonas_lab.search.proxies import kendall_tau, macs
from yolonas_lab.search.space import Space, config_of, spread_sample


def space_layers(space: Space, image_size: int, num_classes: int = 80) -> list[Layer]:
    """Every operation that some network of a space has, each once. Raises ValueError as `network_layers`.

    An operation depends on the decisions of one stage and the width of at most one other: these are combined.
    """
    fixed = {decision: options[0] for decision, options in space.decisions.items()}
    found: dict[Layer, None] = {}
    for free in _groups(space):
        for chosen in itertools.product(*(space.decisions[decision] for decision in free)):
            config = config_of(space, fixed | dict(zip(free, chosen)))
            found |= dict.fromkeys(network_layers(config, image_size, num_classes).values())
    return list(found)


def _groups(space: Space) -> Iterator[list[str]]:
    """Decisions that may meet in one operation. Block types are left out: fused, they are all the same."""
    matter = [decision for decision in space.decisions if not decision.endswith("block")]
    widths = [decision for decision in matter if decision.endswith(("out_channels", "stem_channels"))]
    places = dict.fromkeys(decision.rpartition(".")[0] for decision in matter if decision.count(".") == 2)
    for place in places:
        own = [decision for decision in matter if decision.startswith(f"{place}.")]
        yield from ([*own, width] for width in widths if width not in own)
    heads = [decision for decision in matter if decision.startswith("head_channels")]
    yield from ([head, width] for head in heads for width in widths)


class NetworkTime(NamedTuple):
    """One network: its multiply-accumulates and its measured milliseconds for one image."""

    config: YoloNASConfig
    macs: int
    ms: float


@dataclass(frozen=True)
class NetworkTimes:
    """Networks measured side by side, with where and how."""

    machine: str
    engine: str
    image_size: int  # px
    num_classes: int
    times: tuple[NetworkTime, ...]


def time_networks(
    configs: Sequence[YoloNASConfig], image_size: int, engine: str = "torch", num_classes: int = 80, rounds: int = 31
) -> NetworkTimes:
    """Measure whole networks, fused, decoding included, for one image of image_size px: medians of CPU time on one
    thread, in turns. An export for onnxruntime takes seconds. Raises ValueError for no networks and as `machine_for`.
    """
    machine = machine_for(engine)
    numbered = enumerate(progress(configs, "preparing networks", "network"))
    runners = {f"{i} {config.name}": _runner(config, image_size, engine, num_classes) for i, config in numbered}
    # Each runs once untimed before it is timed, as in a stream of images: else dozens of networks drive each other's
    # weights out of the caches.
    found = time_side_by_side(runners, rounds, lead_in=1)
    counts = [round(macs(config, image_size, num_classes)) for config in configs]
    times = tuple(NetworkTime(c, count, t.median_ms) for c, count, t in zip(configs, counts, found.values()))
    return NetworkTimes(machine, engine, image_size, num_classes, times)


def _runner(config: YoloNASConfig, image_size: int, engine: str, num_classes: int) -> Callable[[], object]:
    """A function that runs a fresh network: what its weights are does not change the time, with one exception."""
    torch.manual_seed(0)
    model = YoloNAS(config, num_classes).eval()
    for module in model.modules():
        if isinstance(module, Bottleneck):  # a fresh alpha is 1, and onnxruntime leaves out a product with exactly 1
            torch.nn.init.constant_(module.alpha, 0.9)
    images = torch.rand(1, 3, image_size, image_size)
    if engine == "torch":
        fused = reparameterize(model)
        return torch.inference_mode()(lambda: decode(fused(images)))
    if engine == "onnxruntime int8":
        model = calibrate(quantize(model, QuantPolicy.cpu()), images)
    with tempfile.TemporaryDirectory() as folder:
        session = onnx_session(export_onnx(model, Path(folder) / "network.onnx", image_size).read_bytes())
    return lambda: session.run(None, {"images": images.numpy()})


def most_unequal_pair(networks: NetworkTimes, tolerance: float = 0.02) -> tuple[NetworkTime, NetworkTime]:
    """Two networks that take the same time, to within `tolerance`, and differ most in multiply-accumulates, the one
    with fewer first: MACs are not milliseconds. Raises ValueError where no two take the same time.
    """
    pairs = [
        (one, other)
        for one, other in itertools.permutations(networks.times, 2)
        if one.macs < other.macs and abs(one.ms - other.ms) <= tolerance * min(one.ms, other.ms)
    ]
    if not pairs:
        raise ValueError(f"No two of {len(networks.times)} networks take the same time to within {tolerance:.0%}.")
    return max(pairs, key=lambda pair: pair[1].macs / pair[0].macs)


@dataclass(frozen=True)
class LatencyModel:
    """base_ms + `scale` · the sum of a network's operations + weights_ms for each million of its weights."""

    table: LatencyTable
    num_classes: int = 80
    scale: float = 1.0
    base_ms: float = 0.0
    weights_ms: float = 0.0
    fitted_to: tuple[str, ...] = ()  # names of the networks that the three numbers come from

    def predict(self, config: YoloNASConfig) -> float:
        """Milliseconds of a network for one image, where the table was measured. Raises ValueError as `total_ms`."""
        layers = network_layers(config, self.table.image_size, self.num_classes).values()
        megaweights = sum(layer.weights for layer in layers) / 1e6
        return self.base_ms + self.scale * self.table.total_ms(layers) + self.weights_ms * megaweights


def fit_latency(table: LatencyTable, networks: NetworkTimes) -> LatencyModel:
    """The model that fits measured networks best: least squares of the relative errors, none of its numbers negative.

    Raises ValueError for networks measured on another machine, engine or image size than the table, or fewer than 3.
    """
    _check_same(table, networks)
    if len(networks.times) < 3:
        raise ValueError(f"{len(networks.times)} networks are too few to fit 3 numbers: measure at least 3.")
    from scipy.optimize import nnls

    bare = LatencyModel(table, networks.num_classes)
    per_weight = LatencyModel(table, networks.num_classes, scale=0, weights_ms=1)
    parts = [[1.0, bare.predict(n.config), per_weight.predict(n.config)] for n in networks.times]  # (networks, 3)
    measured = np.array([network.ms for network in networks.times])
    relative = np.array(parts) / measured[:, None]  # an error of 1 % counts the same in every network
    (base_ms, scale, weights_ms), _ = nnls(relative, np.ones(len(measured)))
    names = tuple(network.config.name for network in networks.times)
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
    A folder keeps it for the next time. Raises ValueError as `machine_for` and `load_model` do.
    """
    path = None
    if folder is not None:
        place = f"{engine.replace(' ', '_')}_{image_size}px_{fingerprint(f'{machine_for(engine)}, {engine}', 8)}"
        path = Path(folder) / f"latency_{place}.model_{fingerprint(repr((space, num_classes, networks)), 8)}.json"
        if path.is_file():
            return load_model(path)
        path.parent.mkdir(parents=True, exist_ok=True)
    table = measure_table(space_layers(space, image_size, num_classes), image_size, engine)
    configs = spread_sample(space, networks, np.random.default_rng(0))
    model = fit_latency(table, time_networks(configs, image_size, engine, num_classes))
    if path is not None:
        save_model(model, path)
    return model


def save_model(model: LatencyModel, path: str | Path) -> Path:
    """Write a model and its table as JSON, whole or not at all; returns the path."""
    table = vars(model.table) | {"layers": {str(layer): ms for layer, ms in model.table.layers.items()}}
    return write_json(path, vars(model) | {"table": table})


def load_model(path: str | Path) -> LatencyModel:
    """Read a model. Raises ValueError naming the file for one of another machine, and for what is no such model."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        machine, engine, image_size, layers = (content["table"][name] for name in LatencyTable.__dataclass_fields__)
        table = LatencyTable(machine, engine, image_size, {parse_layer(name): ms for name, ms in layers.items()})
        model = LatencyModel(**content | {"table": table, "fitted_to": tuple(content["fitted_to"])})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a latency model ({error}): delete it, and it is measured anew.") from error
    if machine != (here := machine_for(engine)):
        raise ValueError(f"{path} was measured on '{machine}', and this is '{here}': measure here.")
    return model


def _check_same(table: LatencyTable, networks: NetworkTimes) -> None:
    for what in ("machine", "engine", "image_size"):
        there, here = getattr(table, what), getattr(networks, what)
        if there != here:
            raise ValueError(f"The table's {what} is {there}, that of the networks {here}: measure both in one way.")


class Prediction(NamedTuple):
    """One network: name, multiply-accumulates, predicted and measured milliseconds."""

    name: str
    macs: int
    predicted_ms: float
    measured_ms: float


@dataclass(frozen=True)
class ErrorReport:
    """How good a latency model is on networks that it was not fitted to. A search needs both: milliseconds that are
    right, to keep a budget, and networks in the right order, to choose.
    """

    machine: str
    engine: str
    image_size: int  # px
    rows: tuple[Prediction, ...]

    def __str__(self) -> str:
        _, counted, predicted, measured = zip(*self.rows)
        errors = [abs(row.predicted_ms - row.measured_ms) / row.measured_ms for row in self.rows]
        return (
            f"{self.engine} at {self.image_size} px: {len(measured)} held-out networks of {min(measured):.2f} to "
            f"{max(measured):.2f} ms: error {median(errors):.1%} (median), {max(errors):.1%} (worst); Kendall's tau "
            f"{kendall_tau(predicted, measured):.2f}, of MACs {kendall_tau(counted, measured):.2f}\n{self.machine}"
        )


def error_report(model: LatencyModel, networks: NetworkTimes) -> ErrorReport:
    """Compare predictions with measured networks. Raises ValueError for those of another machine, engine, image size or
    number of classes than the model's, and for one that the model was fitted to.
    """
    _check_same(model.table, networks)
    if networks.num_classes != model.num_classes:
        raise ValueError(f"The networks have {networks.num_classes} classes, the model is for {model.num_classes}.")
    if known := {network.config.name for network in networks.times} & {*model.fitted_to}:
        raise ValueError(f"The model was fitted to {', '.join(sorted(known))}: judge it by other networks.")
    rows = (Prediction(n.config.name, n.macs, model.predict(n.config), n.ms) for n in networks.times)
    return ErrorReport(networks.machine, networks.engine, networks.image_size, tuple(rows))
