"""Generated scenes for experiments, drawn once and kept for the next run."""

import os
from pathlib import Path

import numpy as np

from yolonas_lab.data import CocoDataset, ScenesSummary, make_scenes
from yolonas_lab.experiments.claim import settings_digest

FOLDER_VARIABLE = "YOLONAS_LAB_CACHE"


def cache_folder() -> Path:
    """Where generated data is kept: the environment variable YOLONAS_LAB_CACHE, or ~/.cache/yolonas_lab."""
    return Path(os.environ.get(FOLDER_VARIABLE) or Path.home() / ".cache" / "yolonas_lab")


def draw(
    train: int, val: int, image_size: int, difficulty: float, seed: int = 0, domain: str = "scenes"
) -> ScenesSummary:
    """The scenes with these settings (counts; side in px), from the cache folder or drawn into it."""
    settings = {"train": train, "val": val, "size": image_size, "difficulty": difficulty, "seed": seed}
    name = settings_digest(settings if domain == "scenes" else settings | {"domain": domain})
    folder = cache_folder() / f"scenes-{name}"
    return make_scenes(
        folder, train, val, image_size=image_size, seed=seed, domain=domain, difficulty=difficulty,
        overwrite=folder.exists(),
    )  # fmt: skip


def datasets(made: ScenesSummary) -> tuple[CocoDataset, CocoDataset]:
    """Training and validation set of drawn scenes."""
    train, val = (CocoDataset(made.images_dir(split), made.annotations(split)) for split in ("train", "val"))
    return train, val


def shuffled(dataset: CocoDataset, seed: int) -> list[int]:
    """The numbers of a data set's images in an order of the seed: its first n are the n images that have labels."""
    return np.random.default_rng(seed).permutation(len(dataset)).tolist()
