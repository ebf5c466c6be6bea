"""The two detectors that the quantization claims compare: pico with QARepVGG and with RepVGG blocks, trained alike.

Each seed has a pair of its own, from other initial weights and another order of the data. Trained weights are kept in
the cache folder, so that several claims share them; a training that was stopped goes on.
"""

import dataclasses
from typing import Any

import torch

from yolonas_lab.data import CocoDataset, digest
from yolonas_lab.evaluate import evaluate
from yolonas_lab.experiments.claim import plain, settings_digest
from yolonas_lab.experiments.scenes import cache_folder, datasets, draw
from yolonas_lab.models import CONFIGS, YoloNAS
from yolonas_lab.quantization import QuantPolicy, calibrate, quantize
from yolonas_lab.training import LAB, TrainConfig, fit

TWINS = {"QARepVGG": "yolo_nas_pico", "RepVGG": "yolo_nas_pico_repvgg"}
SETTINGS = {
    "models": TWINS,
    "image_size": 64,  # px
    "train_images": 2000,
    "val_images": 500,
    "data_seed": 0,
    "difficulty": 0.5,
    "steps": 1600,
    "recipe": dataclasses.replace(LAB, steps=1).decisive(),  # steps and seed are set in each run
    "calibration_images": 256,
}
"""What decides the trained twins and their calibration; each claim's SETTINGS holds it as "twins"."""


def scenes() -> tuple[CocoDataset, CocoDataset]:
    """Training and validation images, drawn if they are not there yet."""
    return datasets(_drawn())


def scenes_digest() -> str:
    """Fingerprint of the scenes; draws them if they are not there yet."""
    return digest(_drawn().folder)


def trained(block: str, seed: int, budget: float = 1.0) -> YoloNAS:
    """The pico with "QARepVGG" or "RepVGG" blocks, trained with this seed and budget times the steps; in eval mode."""
    train_set, _ = scenes()
    config = recipe(seed, budget)
    name = settings_digest(plain({"settings": SETTINGS, "torch": torch.__version__}))
    folder = cache_folder() / f"twins-{name}" / f"{block}-seed-{seed}-steps-{config.steps}"
    torch.manual_seed(seed)
    model = YoloNAS(CONFIGS[TWINS[block]], len(train_set.class_names))
    fit(model, train_set, None, dataclasses.replace(config, out_dir=folder))  # one that was finished is only loaded
    return model.eval()


def recipe(seed: int, budget: float = 1.0) -> TrainConfig:
    """How the twins are trained."""
    steps = max(1, round(budget * SETTINGS["steps"]))
    return dataclasses.replace(LAB, steps=steps, seed=seed, image_size=SETTINGS["image_size"], evaluate_every=None)


def quantized(model: YoloNAS, policy: QuantPolicy, method: str = "percentile") -> YoloNAS:
    """The model quantized by a policy, with activation ranges from the first training images."""
    train_set, _ = scenes()
    images = SETTINGS["calibration_images"]
    return calibrate(quantize(model, policy), train_set, method=method, max_images=images, batch_size=32)


def measured_ap(model: Any) -> float:
    """COCO AP on the validation images."""
    _, val_set = scenes()
    return evaluate(model, val_set, image_size=SETTINGS["image_size"], batch_size=50, progress=False).ap


def _drawn() -> Any:
    s = SETTINGS
    return draw(s["train_images"], s["val_images"], s["image_size"], s["difficulty"], s["data_seed"])
