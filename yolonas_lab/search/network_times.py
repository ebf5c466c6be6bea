"""How long whole networks take: what a latency model is fitted to, and what it is judged by. Notebook 09.

Measured are fresh networks, fused, on one image, decoding included: weights do not change the time, but for a factor
of exactly 1, which is avoided. All of them take turns at one thread. Each runs once untimed before it is timed, as in a
stream of images: else dozens of networks drive each other's weights out of the processor's caches.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from yolonas_lab.deployment.export import export_onnx
from yolonas_lab.models.configs import YoloNASConfig
from yolonas_lab.models.heads import decode
from yolonas_lab.models.reparameterize import reparameterize
from yolonas_lab.models.stages import Bottleneck
from yolonas_lab.models.yolo_nas import YoloNAS
from yolonas_lab.progress import progress
from yolonas_lab.quantization.calibrate import calibrate
from yolonas_lab.quantization.insert import quantize
from yolonas_lab.quantization.latency import onnx_session
from yolonas_lab.quantization.policy import QuantPolicy
from yolonas_lab.search.layer_times import check_engine, machine_for
from yolonas_lab.search.layers import count_macs, network_layers
from yolonas_lab.search.space import Space, config_of
from yolonas_lab.timing import time_side_by_side


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
