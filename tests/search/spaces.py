"""Two spaces of a few small networks, one with shared weights; tables of times, frontiers and pictures made up."""

import numpy as np
import torch

from yolonas_lab.data.coco import Batch, Targets
from yolonas_lab.latency import Frontier, LatencyTable, Layer
from yolonas_lab.models import YoloNAS
from yolonas_lab.search import Candidate, Space, StageOptions, sample, space_layers

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


def made_up_table(space: Space = TINY, image_size: int = 32, num_classes: int = 2, **changes) -> LatencyTable:
    """A table of all operations of a space with those times."""
    layers = {layer: made_up_ms(layer) for layer in space_layers(space, image_size, num_classes)}
    about = {"machine": "a machine", "engine": "torch", "image_size": image_size, "layers": layers}
    return LatencyTable(**(about | changes))


def frontier(pairs, space: Space = TINY) -> Frontier:
    """Random networks with these (AP, ms)."""
    return Frontier(tuple(Candidate(sample(space, seeded(0)), ap, ms) for ap, ms in pairs))


def seeded(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


IMAGE_SIZE = 32


def _stage(hidden=(8,), blocks=(1,), out=(8,), concat=(True,), block="qarepvgg"):
    return StageOptions(out, blocks=blocks, hidden_channels=hidden, concat=concat, block=(block,))


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
    rng = np.random.default_rng(seed)
    targets = [
        Targets(torch.tensor([[4.0, 6.0, 24.0, 26.0]]), torch.tensor([int(rng.integers(3))])) for _ in range(count)
    ]
    return Batch(images(count, seed), targets, list(range(count)))
