"""Claims about labels: pretraining on other classes saves them, and a teacher's labels add to a few true ones.

Notebook 07. YOLO-NAS was pretrained on Objects365; here its place is taken by `scenes_pretrain`: other classes, other
colors. Backbone, neck and box branch are kept, the class layers start anew. Training from scratch also gets the steps
that pretraining took ("long"), see He et al., "Rethinking ImageNet Pre-training", arXiv 1811.08883. A teacher labels
the images without labels: the detector that has learned from the few ("weak"), or the shipped nano ("strong").
"""

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import nn

from yolonas_lab.common import fingerprint
from yolonas_lab.data import CocoDataset
from yolonas_lab.experiments import scenes
from yolonas_lab.experiments.harness import Claim, Numbers
from yolonas_lab.models import CONFIGS, YoloNAS, get
from yolonas_lab.training import (
    TrainConfig,
    UselessTeacherError,
    choose_thresholds,
    compare_labels,
    fit,
    hide_labels,
    make_pseudo_labels,
    merge_labels,
    precision_recall,
)

PRETRAINING = {
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
    "recipe": scenes.RECIPE,
}


def run_pretraining(seed: int, budget: float = 1.0) -> Numbers:
    """AP by start and number of labels ("scratch 50", "pretrained 50", …), trained with budget times the steps."""
    s = PRETRAINING
    train_set, val_set = scenes.datasets(s)
    start = pretrained(seed, budget)
    order = scenes.shuffled(train_set, seed)
    short = scenes.recipe(seed, budget * s["steps"])
    long = scenes.recipe(seed, budget * (s["steps"] + s["pretraining_steps"]))

    def trained(model: YoloNAS, labeled: CocoDataset, config: TrainConfig) -> dict[str, float]:
        fit(model, labeled, None, config)
        return scenes.measured(model, val_set)

    numbers = {}
    for labels in s["labels"]:
        labeled = train_set.subset(order[:labels])
        numbers[f"scratch {labels}"] = trained(from_scratch(seed), labeled, short)
        numbers[f"pretrained {labels}"] = trained(transferred(start, seed), labeled, short)
        if labels in s["long_labels"]:
            numbers[f"scratch long {labels}"] = trained(from_scratch(seed), labeled, long)
    return numbers


def pretraining_digest() -> str:
    """Fingerprint of the scenes of both domains."""
    return fingerprint(scenes.scenes_digest(PRETRAINING) + scenes.scenes_digest(_other_classes()))


def _other_classes() -> dict[str, Any]:
    other = {"train_images": PRETRAINING["pretraining_images"], "val_images": 0, "domain": "scenes_pretrain"}
    return PRETRAINING | other


def pretrained(seed: int, budget: float = 1.0) -> Path:
    """The checkpoint of a model trained on the other classes, from the cache folder or trained into it."""
    s, other = PRETRAINING, scenes.dataset(_other_classes(), "train")
    keys = ("model", "image_size", "pretraining_images", "data_seed", "difficulty", "recipe")
    how, decisive = scenes.recipe(seed, budget * s["pretraining_steps"]), {key: s[key] for key in keys}
    return scenes.trained_once(CONFIGS[s["model"]], other, how, "pretraining", decisive, "")[1]


def transferred(checkpoint: Path, seed: int) -> YoloNAS:
    """The model for the target's classes with a checkpoint's backbone, neck and box branch."""
    num_classes = len(scenes.draw(PRETRAINING).class_names)
    torch.manual_seed(seed)  # of the new class layers
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Freshly initialised")  # as intended here
        return get(PRETRAINING["model"], num_classes=num_classes, checkpoint_path=checkpoint)


def from_scratch(seed: int) -> YoloNAS:
    """The same model with no weights but random ones."""
    return scenes.network(CONFIGS[PRETRAINING["model"]], len(scenes.draw(PRETRAINING).class_names), seed)


THRESHOLDS = {"0.3": 0.3, "0.5": 0.5, "0.7": 0.7}
PSEUDO_LABELS = {
    "student": "yolo_nas_pico",
    "strong_teacher": "yolo_nas_nano",  # its shipped weights: it has learned from other scenes of the same kind
    "image_size": 64,  # px
    "train_images": 2000,
    "labeled_images": 30,
    "choice_images": 100,  # with labels, on which thresholds are chosen; no model learns from them
    "val_images": 500,
    "data_seed": 1,
    "difficulty": 0.5,
    "steps": 500,
    "thresholds": THRESHOLDS,
    "pretraining": PRETRAINING,
    "recipe": scenes.RECIPE,
}
RULES = {
    "weak": ("0.3", "0.5", "0.7", "chosen", "0.3 weighted", "chosen weighted"),
    "strong": ("0.3", "0.7", "chosen"),
}
ARMS = tuple(f"{teacher} {rule}" for teacher, rules in RULES.items() for rule in rules)
NO_LABELS = {"boxes_per_image": 0.0, "precision": 1.0, "recall": 0.0}


class Data(NamedTuple):
    """The images of one seed, by what is known about them."""

    everything: CocoDataset  # the training images with all their labels
    labeled: CocoDataset
    choice: CocoDataset
    hidden: CocoDataset  # the others; only measurements see their labels
    val: CocoDataset


def run_pseudo_labels(seed: int, budget: float = 1.0) -> Numbers:
    """AP by source of the labels ("labels only", "weak 0.3", …, "all labels"), and how right these labels are.

    Every student starts from the same pretrained weights and makes the same steps.
    """
    data = prepare(seed)
    start = pretrained(seed, budget)
    weak = train(data.labeled, start, seed, budget)
    numbers = {"labels only": scenes.measured(weak, data.val) | NO_LABELS}
    with TemporaryDirectory() as folder:
        for name, teacher in (("weak", weak), ("strong", strong_teacher())):
            for rule in RULES[name]:
                labels, found = label(teacher, data, rule, Path(folder) / f"{name} {rule}")
                student = train(labels, start, seed, budget)
                numbers[f"{name} {rule}"] = scenes.measured(student, data.val) | found
                if (name, rule) == ("weak", "chosen weighted"):
                    labels, found = label(student, data, rule, Path(folder) / "second round")
                    second = train(labels, start, seed, budget)
                    numbers["weak second round"] = scenes.measured(second, data.val) | found
    truth = {"boxes_per_image": data.hidden.report.boxes / len(data.hidden), "precision": 1.0, "recall": 1.0}
    numbers["all labels"] = scenes.measured(train(data.everything, start, seed, budget), data.val) | truth
    return numbers


def pseudo_labels_digest() -> str:
    """Fingerprint of these scenes and of those for pretraining."""
    return fingerprint(scenes.scenes_digest(PSEUDO_LABELS) + pretraining_digest())


def strong_teacher() -> YoloNAS:
    """The shipped nano."""
    return get(PSEUDO_LABELS["strong_teacher"], pretrained_weights="scenes")


def prepare(seed: int) -> Data:
    """Which images have labels is drawn with the seed."""
    train_set, val_set = scenes.datasets(PSEUDO_LABELS)
    order, few, choice = (
        scenes.shuffled(train_set, seed),
        PSEUDO_LABELS["labeled_images"],
        PSEUDO_LABELS["choice_images"],
    )
    labeled, choice, rest = order[:few], order[few : few + choice], order[few + choice :]
    everything, labeled, choice, hidden = map(train_set.subset, (labeled + rest, labeled, choice, rest))
    return Data(everything, labeled, choice, hidden, val_set)


def train(labeled: CocoDataset, start: Path, seed: int, budget: float = 1.0) -> YoloNAS:
    """The student, from pretrained weights, trained on these labels."""
    model = transferred(start, seed)
    fit(model, labeled, None, scenes.recipe(seed, budget * PSEUDO_LABELS["steps"]))
    return model


def label(teacher: nn.Module, data: Data, rule: str, folder: Path) -> tuple[CocoDataset, dict[str, float]]:
    """The true labels merged with those that a teacher puts on the hidden images, and how right the latter are."""
    folder.mkdir()
    name, _, weighted = rule.partition(" ")
    hidden = hide_labels(data.hidden, folder / "hidden.json")
    try:
        threshold = THRESHOLDS.get(name) or choose_thresholds(precision_recall(teacher, data.choice))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* have no box above the threshold")  # as is to be expected here
            made = make_pseudo_labels(teacher, hidden, folder / "pseudo.json", threshold, bool(weighted), batch_size=50)
    except UselessTeacherError:  # after hardly any training, or at a high threshold
        return data.labeled, dict(NO_LABELS)
    pseudo = CocoDataset(hidden.images_dir, made.path)
    found = compare_labels(pseudo, data.hidden)
    numbers = {name: getattr(found, name) for name in ("boxes_per_image", "precision", "recall")}
    return merge_labels(data.labeled, pseudo, folder / "merged.json"), numbers


CLAIMS = (
    Claim(
        name="pretraining",
        question=(
            "How much AP does pretraining on other classes add, when 50, 100, 200 or all 2,000 images have labels?"
        ),
        settings=PRETRAINING,
        metrics=("ap", "ap50"),
        comparisons=(
            *((f"pretrained {labels}", f"scratch {labels}") for labels in PRETRAINING["labels"]),
            *((f"pretrained {labels}", f"scratch long {labels}") for labels in PRETRAINING["long_labels"]),
        ),
        run=run_pretraining,
        data_digest=pretraining_digest,
    ),
    Claim(
        name="pseudo_labels",
        question=(
            "How much AP do a teacher's labels on unlabeled images add to a few true labels, by teacher and threshold?"
        ),
        settings=PSEUDO_LABELS,
        metrics=("ap", "ap50", "boxes_per_image", "precision", "recall"),  # the last three: of the added labels
        comparisons=(
            *((arm, "labels only") for arm in (*ARMS, "weak second round", "all labels")),
            ("weak chosen", "weak 0.3"),
            ("weak 0.3 weighted", "weak 0.3"),
            ("weak chosen weighted", "weak chosen"),
            ("weak second round", "weak chosen weighted"),
        ),
        run=run_pseudo_labels,
        data_digest=pseudo_labels_digest,
    ),
)
