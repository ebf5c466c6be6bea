"""A space of 16 small networks, and pictures of noise, for tests of what is done with weights."""

import numpy as np
import torch

from yolonas_lab.data.coco import Batch, Targets
from yolonas_lab.models import YoloNAS
from yolonas_lab.search import Space, StageOptions

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
