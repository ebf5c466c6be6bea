"""What the tests of quantization share: drawn scenes, the shipped pico, and that in INT8."""

from typing import Any

import pytest
import torch

import yolonas_lab as yl
from yolonas_lab.data import CocoDataset, Loader
from yolonas_lab.quantization import calibrate, quantize


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> tuple[CocoDataset, CocoDataset]:
    """A training and a validation set."""
    folder = tmp_path_factory.mktemp("quantization") / "scenes"
    made = yl.data.make_scenes(folder, train=64, val=60, image_size=64, seed=21, difficulty=0.5)
    train_set, val_set = (CocoDataset(made.images_dir(split), made.annotations(split)) for split in ("train", "val"))
    return train_set, val_set


@pytest.fixture(scope="session")
def images(scenes) -> torch.Tensor:
    """(16, 3, 64, 64)."""
    return next(Loader(scenes[0], 16, 64, shuffle=False).batches(0)).images


@pytest.fixture(scope="session")
def pico() -> Any:
    return yl.models.get("yolo_nas_pico", pretrained_weights="scenes")


@pytest.fixture(scope="session")
def int8(pico, images) -> Any:
    """For reading only: copy it to change it."""
    return calibrate(quantize(pico), [images])
