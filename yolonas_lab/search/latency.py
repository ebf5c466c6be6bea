"""Milliseconds of a network that nobody has measured: the sum of its operations, brought to scale. Notebook 09.

Each operation's time is looked up in a table; what a few whole networks really take says how the sum relates to it, and
what it costs that a network's weights, other than a single operation's, do not fit the processor's fastest memory.
Look-up tables for search: Cai et al., "ProxylessNAS", arXiv 1812.00332, section 3.3.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from yolonas_lab.models.configs import YoloNASConfig
from yolonas_lab.search.latency_table import (
    LatencyTable,
    check_machine,
    measure_table,
    read_json,
    table_content,
    table_of,
    table_path,
)
from yolonas_lab.search.layer_times import machine_for
from yolonas_lab.search.layers import network_layers, space_layers
from yolonas_lab.search.network_times import NetworkTimes, spread_sample, time_networks
from yolonas_lab.search.space import Space
from yolonas_lab.training.files import write_atomically

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
