"""Claim: labels that a teacher puts on unlabeled images make a better detector than the few true labels alone.

Notebook 07. Few images have labels, a teacher labels the others: the detector that has learned from these few ("weak"),
or the shipped nano ("strong"). Every student starts from the same pretrained weights and makes the same steps.
"""

import dataclasses
import hashlib
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from torch import nn

from yolonas_lab.data import CocoDataset, ScenesSummary, digest
from yolonas_lab.evaluate import evaluate
from yolonas_lab.experiments import pretraining
from yolonas_lab.experiments.claim import Numbers
from yolonas_lab.experiments.scenes import datasets, draw, shuffled
from yolonas_lab.models import YoloNAS, get
from yolonas_lab.training import (
    LAB,
    UselessTeacherError,
    choose_thresholds,
    compare_labels,
    fit,
    hide_labels,
    make_pseudo_labels,
    merge_labels,
    precision_recall,
)

QUESTION = "How much AP do a teacher's labels on unlabeled images add to a few true labels, by teacher and threshold?"
THRESHOLDS = {"0.3": 0.3, "0.5": 0.5, "0.7": 0.7}
SETTINGS = {
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
    "pretraining": pretraining.SETTINGS,
    "recipe": dataclasses.replace(LAB, steps=1).decisive(),  # steps and seed are set in each run
}
METRICS = ("ap", "ap50", "boxes_per_image", "precision", "recall")  # the last three: of the labels on unlabeled images
RULES = {
    "weak": ("0.3", "0.5", "0.7", "chosen", "0.3 weighted", "chosen weighted"),
    "strong": ("0.3", "0.7", "chosen"),
}
ARMS = tuple(f"{teacher} {rule}" for teacher, rules in RULES.items() for rule in rules)
NO_LABELS = {"boxes_per_image": 0.0, "precision": 1.0, "recall": 0.0}
COMPARISONS = (
    *((arm, "labels only") for arm in (*ARMS, "weak second round", "all labels")),
    ("weak chosen", "weak 0.3"),
    ("weak 0.3 weighted", "weak 0.3"),
    ("weak chosen weighted", "weak chosen"),
    ("weak second round", "weak chosen weighted"),
)


class Data(NamedTuple):
    """The images of one seed, by what is known about them."""

    everything: CocoDataset  # the training images with all their labels
    labeled: CocoDataset
    choice: CocoDataset
    hidden: CocoDataset  # the others; only measurements see their labels
    val: CocoDataset


def run(seed: int, budget: float = 1.0) -> Numbers:
    """AP by source of the labels ("labels only", "weak 0.3", …, "all labels"), and how right these labels are."""
    data = prepare(seed)
    start = pretraining.pretrained(seed, budget)
    weak = train(data.labeled, start, seed, budget)
    numbers = {"labels only": measured(weak, data) | NO_LABELS}
    with TemporaryDirectory() as folder:
        for name, teacher in (("weak", weak), ("strong", strong_teacher())):
            for rule in RULES[name]:
                labels, found = label(teacher, data, rule, Path(folder) / f"{name} {rule}")
                student = train(labels, start, seed, budget)
                numbers[f"{name} {rule}"] = measured(student, data) | found
                if (name, rule) == ("weak", "chosen weighted"):
                    labels, found = label(student, data, rule, Path(folder) / "second round")
                    numbers["weak second round"] = measured(train(labels, start, seed, budget), data) | found
    per_image = data.hidden.report.boxes / len(data.hidden)
    truth = {"boxes_per_image": per_image, "precision": 1.0, "recall": 1.0}
    numbers["all labels"] = measured(train(data.everything, start, seed, budget), data) | truth
    return numbers


def strong_teacher() -> YoloNAS:
    """The shipped nano."""
    return get(SETTINGS["strong_teacher"], pretrained_weights="scenes")


def prepare(seed: int) -> Data:
    """Which images have labels is drawn with the seed."""
    train_set, val_set = datasets(_scenes())
    order, few, choice = shuffled(train_set, seed), SETTINGS["labeled_images"], SETTINGS["choice_images"]
    labeled, choice, rest = order[:few], order[few : few + choice], order[few + choice :]
    everything, labeled, choice, hidden = map(train_set.subset, (labeled + rest, labeled, choice, rest))
    return Data(everything, labeled, choice, hidden, val_set)


def train(labeled: CocoDataset, start: Path, seed: int, budget: float = 1.0) -> YoloNAS:
    """The student, from pretrained weights, trained on these labels."""
    model = pretraining.transferred(start, seed)
    fit(model, labeled, None, pretraining.recipe(seed, budget * SETTINGS["steps"]))
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


def measured(model: YoloNAS, data: Data) -> dict[str, float]:
    """AP on the validation images."""
    found = evaluate(model, data.val, image_size=SETTINGS["image_size"], batch_size=50, progress=False)
    return {"ap": found.ap, "ap50": found.ap50}


def data_digest() -> str:
    """Fingerprint of these scenes and of those for pretraining."""
    return hashlib.sha256((digest(_scenes().folder) + pretraining.data_digest()).encode()).hexdigest()


def _scenes() -> ScenesSummary:
    s = SETTINGS
    return draw(s["train_images"], s["val_images"], s["image_size"], s["difficulty"], s["data_seed"])
