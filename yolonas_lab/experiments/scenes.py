"""Generated scenes for experiments, drawn once and kept for the next run."""

import os
from pathlib import Path

from yolonas_lab.data import CocoDataset, ScenesSummary, make_scenes
from yolonas_lab.experiments.claim import settings_digest

FOLDER_VARIABLE = "YOLONAS_LAB_CACHE"


def cache_folder() -> Path:
    """Where generated data is kept: the environment variable YOLONAS_LAB_CACHE, or ~/.cache/yolonas_lab."""
    return Path(os.environ.get(FOLDER_VARIABLE) or Path.home() / ".cache" / "yolonas_lab")


def draw(train: int, val: int, image_size: int, difficulty: float, seed: int = 0) -> ScenesSummary:
    """The scenes with these settings (counts; side in px), from the cache folder or drawn into it."""
    name = settings_digest({"train": train, "val": val, "size": image_size, "difficulty": difficulty, "seed": seed})
    folder = cache_folder() / f"scenes-{name}"
    return make_scenes(
        folder, train, val, image_size=image_size, seed=seed, difficulty=difficulty, overwrite=folder.exists()
    )


def datasets(made: ScenesSummary) -> tuple[CocoDataset, CocoDataset]:
    """Training and validation set of drawn scenes."""
    train, val = (CocoDataset(made.images_dir(split), made.annotations(split)) for split in ("train", "val"))
    return train, val
