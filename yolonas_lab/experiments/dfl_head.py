"""Claim: the distribution head (DFL) finds boxes better than a head that predicts the four distances themselves.

Notebook 05. Li et al., "Generalized Focal Loss", arXiv 2006.04388, table 2. Both heads use task-aligned assignment,
the same network, data, steps and initial boxes; at a short and a long training, and at a long one on harder scenes.
"""

import dataclasses
import hashlib
from collections.abc import Sequence

import torch

from yolonas_lab.data import ScenesSummary, digest
from yolonas_lab.evaluate import evaluate
from yolonas_lab.experiments.claim import Numbers
from yolonas_lab.experiments.plain_head import PlainBoxYoloNAS, plain_box_loss
from yolonas_lab.experiments.scenes import datasets, draw
from yolonas_lab.models import CONFIGS, YoloNAS
from yolonas_lab.training import LAB, Hooks, TrainConfig, fit

QUESTION = "Does predicting each box side as a distribution (DFL) give a higher AP than predicting it as one number?"
CONDITIONS = {
    "short": {"steps": 500, "difficulty": 0.5},
    "long": {"steps": 1500, "difficulty": 0.5},
    "hard": {"steps": 1500, "difficulty": 0.75},
}
SETTINGS = {
    "model": "yolo_nas_pico",
    "image_size": 64,  # px
    "train_images": 2000,
    "val_images": 500,
    "data_seed": 0,
    "conditions": CONDITIONS,
    "l1_weight": 0.5,  # of the plain head; DFL's published weight
    "recipe": dataclasses.replace(LAB, steps=1).decisive(),  # steps and seed are set in each run
}
METRICS = ("ap", "ap50", "ap75")
COMPARISONS = tuple((f"dfl {condition}", f"plain {condition}") for condition in CONDITIONS)


def run(seed: int, budget: float = 1.0, conditions: Sequence[str] = tuple(CONDITIONS)) -> Numbers:
    """AP of both heads in each condition ("dfl short", "plain short", …), trained with budget times its steps."""
    numbers = {}
    for condition in conditions:
        steps = max(1, round(budget * CONDITIONS[condition]["steps"]))
        config = dataclasses.replace(LAB, steps=steps, seed=seed, image_size=SETTINGS["image_size"])
        for head in ("dfl", "plain"):
            numbers[f"{head} {condition}"] = _train(head, condition, config)
    return numbers


def data_digest() -> str:
    """Fingerprint of the scenes of all conditions."""
    levels = sorted({condition["difficulty"] for condition in CONDITIONS.values()})
    return hashlib.sha256("".join(digest(_scenes(level).folder) for level in levels).encode()).hexdigest()


def make_model(head: str, num_classes: int, seed: int) -> YoloNAS:
    """The network with a "dfl" or a "plain" box head; everything but the box layers starts with the same weights."""
    config = CONFIGS[SETTINGS["model"]]
    torch.manual_seed(seed)
    if head == "dfl":
        return YoloNAS(config, num_classes)
    assert LAB.box_bias_slope is not None
    return PlainBoxYoloNAS(config, num_classes, LAB.box_bias_slope)


def _train(head: str, condition: str, config: TrainConfig) -> dict[str, float]:
    train_set, val_set = datasets(_scenes(CONDITIONS[condition]["difficulty"]))
    model = make_model(head, len(train_set.class_names), config.seed)
    if head == "dfl":
        fit(model, train_set, None, config)
    else:  # its box layers are started by make_model
        config = dataclasses.replace(config, box_bias_slope=None)
        weight = SETTINGS["l1_weight"]
        hooks = Hooks(compute_loss=lambda raw, batch: plain_box_loss(raw, batch.targets, l1_weight=weight))
        fit(model, train_set, None, config, hooks)
    found = evaluate(model, val_set, image_size=config.image_size, progress=False)
    return {metric: getattr(found, metric) for metric in METRICS}


def _scenes(difficulty: float) -> ScenesSummary:
    s = SETTINGS
    return draw(s["train_images"], s["val_images"], s["image_size"], difficulty, s["data_seed"])
