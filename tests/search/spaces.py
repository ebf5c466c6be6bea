"""Two spaces of a few small networks, one with shared weights; tables of times, frontiers and pictures made up."""

import itertools

import numpy as np
import torch

from yolonas_lab.data.coco import Batch, Targets
from yolonas_lab.latency import Frontier, LatencyTable, Layer
from yolonas_lab.models import YoloNAS
from yolonas_lab.models.configs import YoloNASConfig
from yolonas_lab.search import Candidate, Space, StageOptions, config_of, sample, space_layers

PLAIN = {"concat": (False,), "block": ("plain",)}
FIXED = StageOptions((16,), blocks=(1,), hidden_channels=(8,), **PLAIN)
TINY = Space(
    name="tiny",
    stem_channels=(8,),
    backbone=(FIXED, StageOptions((24,), blocks=(1, 2, 3), hidden_channels=(8, 16), **PLAIN), FIXED, FIXED),
    neck=(FIXED, FIXED, FIXED, FIXED),
    head_channels=((16,), (16, 24), (16,)),
    stem_block=("plain", "qarepvgg"),
    reg_max=4,
)
PAIRS = [(0.3, 2.0), (0.5, 4.0), (0.4, 5.0), (0.6, 7.0), (0.2, 2.5)]  # AP and ms


def made_up_ms(layer: Layer) -> float:
    """A time for an operation that has no simple relation to its multiply-accumulates."""
    return 1e-3 + 1e-6 * layer.macs**0.5 * layer.kernel + (0.002 if layer.kind == "add" else 0)


def made_up_table() -> LatencyTable:
    """A table of all operations of TINY at 32 px and 2 classes, with those times."""
    return LatencyTable("a machine", "torch", 32, {layer: made_up_ms(layer) for layer in space_layers(TINY, 32, 2)})


def frontier(pairs) -> Frontier:
    """A random network, each time with other (AP, ms)."""
    return Frontier(tuple(Candidate(sample(TINY, seeded(0)), ap, ms) for ap, ms in pairs))


def every_network(space: Space) -> list[YoloNASConfig]:
    names, options = zip(*space.decisions.items())
    return [config_of(space, dict(zip(names, chosen))) for chosen in itertools.product(*options)]


def seeded(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


IMAGE_SIZE = 32


def _stage(hidden=(8,), blocks=(1,), out=(8,), concat=(True,), block="qarepvgg"):
    return StageOptions(out, blocks, hidden, concat, (block,))


SHARED = Space(
    name="shared",
    stem_channels=(8,),
    backbone=(_stage(), _stage(hidden=(8, 16), blocks=(1, 2)), _stage(out=(8, 16)), _stage()),
    neck=(_stage(concat=(False, True)), _stage(), _stage(block="plain"), _stage(block="plain")),
    head_channels=((8,), (8,), (8,)),
    stem_block=("qarepvgg",),
    reg_max=4,
    image_size=IMAGE_SIZE,
)


def supernet(config, classes=3, seed=0):
    torch.manual_seed(seed)
    return YoloNAS(config, classes)


def images(count, seed=0):
    return torch.rand(count, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(seed))


def batch(count=4, seed=0):
    """Noise with one box in each image."""
    labels, box = np.random.default_rng(seed).integers(3, size=(count, 1)), torch.tensor([[4.0, 6.0, 24.0, 26.0]])
    return Batch(images(count, seed), [Targets(box, torch.from_numpy(label)) for label in labels], list(range(count)))
