"""Claim: a detector pretrained on other classes needs fewer labels of its own.

Notebook 07. YOLO-NAS was pretrained on Objects365; here its place is taken by `scenes_pretrain`: other classes, other
colors. Backbone, neck and box branch are kept, the class layers start anew. He et al., "Rethinking ImageNet
Pre-training", arXiv 1811.08883, is why training from scratch also gets the steps that pretraining took ("long").
"""

import dataclasses
import hashlib
import warnings
from pathlib import Path

import torch

from yolonas_lab.data import CocoDataset, ScenesSummary, digest
from yolonas_lab.evaluate import evaluate
from yolonas_lab.experiments.claim import Numbers, plain, settings_digest
from yolonas_lab.experiments.scenes import cache_folder, datasets, draw, shuffled
from yolonas_lab.models import CONFIGS, YoloNAS, get
from yolonas_lab.training import LAB, TrainConfig, fit

QUESTION = "How much AP does pretraining on other classes add, when 50, 100, 200 or all 2,000 images have labels?"
SETTINGS = {
    "model": "yolo_nas_pico",
    "image_size": 64,  # px
    "pretraining_images": 2000,
    "pretraining_steps": 1000,
    "train_images": 2000,
    "labels": (50, 100, 200, 2000),  # images with labels: the first ones in an order of the seed
    "steps": 400,
    "long_labels": (50, 2000),  # where training from scratch also gets the steps of pretraining
    "val_images": 500,
    "data_seed": 0,
    "difficulty": 0.5,
    "recipe": dataclasses.replace(LAB, steps=1).decisive(),  # steps and seed are set in each run
}
METRICS = ("ap", "ap50")
COMPARISONS = tuple((f"pretrained {labels}", f"scratch {labels}") for labels in SETTINGS["labels"]) + tuple(
    (f"pretrained {labels}", f"scratch long {labels}") for labels in SETTINGS["long_labels"]
)


def run(seed: int, budget: float = 1.0) -> Numbers:
    """AP by start and number of labels ("scratch 50", "pretrained 50", …), trained with budget times the steps."""
    train_set, val_set = datasets(_scenes("scenes"))
    start = pretrained(seed, budget)
    order = shuffled(train_set, seed)
    short = recipe(seed, budget * SETTINGS["steps"])
    long = recipe(seed, budget * (SETTINGS["steps"] + SETTINGS["pretraining_steps"]))
    numbers = {}
    for labels in SETTINGS["labels"]:
        labeled = train_set.subset(order[:labels])
        numbers[f"scratch {labels}"] = _train(from_scratch(seed), labeled, val_set, short)
        numbers[f"pretrained {labels}"] = _train(transferred(start, seed), labeled, val_set, short)
        if labels in SETTINGS["long_labels"]:
            numbers[f"scratch long {labels}"] = _train(from_scratch(seed), labeled, val_set, long)
    return numbers


def data_digest() -> str:
    """Fingerprint of the scenes of both domains."""
    both = (digest(_scenes(domain).folder) for domain in ("scenes", "scenes_pretrain"))
    return hashlib.sha256("".join(both).encode()).hexdigest()


def pretrained(seed: int, budget: float = 1.0) -> Path:
    """The checkpoint of a model trained on the other classes, from the cache folder or trained into it."""
    made = _scenes("scenes_pretrain")
    other = CocoDataset(made.images_dir("train"), made.annotations("train"))
    config = recipe(seed, budget * SETTINGS["pretraining_steps"])
    decisive = ("model", "image_size", "pretraining_images", "data_seed", "difficulty", "recipe")
    name = settings_digest(plain({key: SETTINGS[key] for key in decisive} | {"torch": torch.__version__}))
    folder = cache_folder() / f"pretraining-{name}" / f"seed-{seed}-steps-{config.steps}"
    torch.manual_seed(seed)
    model = YoloNAS(CONFIGS[SETTINGS["model"]], len(other.class_names))
    fit(model, other, None, dataclasses.replace(config, out_dir=folder))  # one that was finished is only loaded
    return folder / "checkpoint.pt"


def transferred(checkpoint: Path, seed: int) -> YoloNAS:
    """The model for the target's classes with a checkpoint's backbone, neck and box branch."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Freshly initialised")  # as intended here
        return get(SETTINGS["model"], num_classes=_num_classes(), checkpoint_path=checkpoint)


def from_scratch(seed: int) -> YoloNAS:
    """The same model with no weights but random ones."""
    torch.manual_seed(seed)
    return YoloNAS(CONFIGS[SETTINGS["model"]], _num_classes())


def recipe(seed: int, steps: float) -> TrainConfig:
    """How all of them are trained."""
    return dataclasses.replace(
        LAB, steps=max(1, round(steps)), seed=seed, image_size=SETTINGS["image_size"], evaluate_every=None
    )


def _train(model: YoloNAS, labeled: CocoDataset, val_set: CocoDataset, config: TrainConfig) -> dict[str, float]:
    fit(model, labeled, None, config)
    found = evaluate(model, val_set, image_size=config.image_size, batch_size=50, progress=False)
    return {metric: getattr(found, metric) for metric in METRICS}


def _num_classes() -> int:
    return len(_scenes("scenes").class_names)


def _scenes(domain: str) -> ScenesSummary:
    s = SETTINGS
    if domain == "scenes_pretrain":
        return draw(s["pretraining_images"], 0, s["image_size"], s["difficulty"], s["data_seed"], domain)
    return draw(s["train_images"], s["val_images"], s["image_size"], s["difficulty"], s["data_seed"])
