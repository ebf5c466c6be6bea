"""What the claims share: generated scenes that are drawn once, models that are trained once, one way to measure AP."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from yolonas_lab.data import CocoDataset, ScenesSummary, digest, make_scenes
from yolonas_lab.evaluate import evaluate
from yolonas_lab.experiments.harness import plain, settings_digest
from yolonas_lab.models import YoloNAS, YoloNASConfig
from yolonas_lab.training import LAB, TrainConfig, fit

FOLDER_VARIABLE = "YOLONAS_LAB_CACHE"
IMAGE_SIZE = 64  # px, in all claims but one
RECIPE = dataclasses.replace(LAB, steps=1).decisive()  # for settings; image_size, steps and seed are set in each run


def cache_folder() -> Path:
    """Where generated data is kept: the environment variable YOLONAS_LAB_CACHE, or ~/.cache/yolonas_lab."""
    return Path(os.environ.get(FOLDER_VARIABLE) or Path.home() / ".cache" / "yolonas_lab")


def draw(settings: Mapping[str, Any]) -> ScenesSummary:
    """The scenes that the settings of a claim speak of, from the cache folder or drawn into it.

    settings: train_images, val_images, image_size (px), difficulty, data_seed, and domain where it is not "scenes".
    """
    names = {"train": "train_images", "val": "val_images", "size": "image_size", "difficulty": "difficulty"}
    decisive = {key: settings[name] for key, name in names.items()} | {"seed": settings["data_seed"]}
    domain = settings.get("domain", "scenes")
    mark = settings_digest(decisive if domain == "scenes" else decisive | {"domain": domain})
    folder = cache_folder() / f"scenes-{mark}"
    train, val, image_size, difficulty, seed = decisive.values()
    same = {"image_size": image_size, "difficulty": difficulty, "seed": seed, "domain": domain}
    return make_scenes(folder, train, val, **same, overwrite=folder.exists())


def dataset(settings: Mapping[str, Any], split: str) -> CocoDataset:
    """The "train" or "val" images of these scenes."""
    made = draw(settings)
    return CocoDataset(made.images_dir(split), made.annotations(split))


def datasets(settings: Mapping[str, Any]) -> tuple[CocoDataset, CocoDataset]:
    """Training and validation images of these scenes."""
    return dataset(settings, "train"), dataset(settings, "val")


def scenes_digest(settings: Mapping[str, Any]) -> str:
    """Fingerprint of these scenes; draws them if they are not there yet."""
    return digest(draw(settings).folder)


def shuffled(dataset: CocoDataset, seed: int) -> list[int]:
    """The numbers of a data set's images in an order of the seed: its first n are the n images that have labels."""
    return np.random.default_rng(seed).permutation(len(dataset)).tolist()


def recipe(seed: int, steps: float) -> TrainConfig:
    """How the lab models of the claims are trained."""
    steps = max(1, round(steps))
    return dataclasses.replace(LAB, steps=steps, seed=seed, image_size=IMAGE_SIZE, evaluate_every=None)


def network(config: YoloNASConfig, num_classes: int, seed: int) -> YoloNAS:
    """A network with random weights of this seed."""
    torch.manual_seed(seed)
    return YoloNAS(config, num_classes)


def trained_once(
    config: YoloNASConfig, train_set: CocoDataset, how: TrainConfig, kind: str, decisive: Mapping[str, Any], name: str
) -> tuple[YoloNAS, Path]:
    """A network trained from the seed of `how`, and its checkpoint in the cache folder, kept for all claims.

    kind, decisive (settings) and name say which one it is. One that was finished is only loaded.
    """
    mark = settings_digest(plain({**decisive, "torch": torch.__version__}))
    folder = cache_folder() / f"{kind}-{mark}" / f"{name}seed-{how.seed}-steps-{how.steps}"
    model = network(config, len(train_set.class_names), how.seed)
    fit(model, train_set, None, dataclasses.replace(how, out_dir=folder))
    return model, folder / "checkpoint.pt"


def measured(model: Any, val_set: CocoDataset, metrics: Sequence[str] = ("ap", "ap50")) -> dict[str, float]:
    """COCO metrics of a detector on validation images of 64 px."""
    found = evaluate(model, val_set, image_size=IMAGE_SIZE, batch_size=50, progress=False)
    return {metric: getattr(found, metric) for metric in metrics}
