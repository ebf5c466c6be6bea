"""Rounds of pseudo-labels: the student of one round, as the moving average of its weights, is the next one's teacher.

Notebook 07. Xie et al., "Noisy Student", arXiv 1911.04252; averaged weights as the teacher: Tarvainen and Valpola,
"Mean teachers", arXiv 1703.01780.
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

from torch import nn

from yolonas_lab.data.coco import CocoDataset
from yolonas_lab.training.config import TrainConfig
from yolonas_lab.training.fit import fit
from yolonas_lab.training.label_files import merge_labels
from yolonas_lab.training.pseudo_labels import Thresholds, make_pseudo_labels


def self_train(
    teacher: nn.Module,
    make_student: Callable[[], nn.Module],
    labeled: CocoDataset,
    unlabeled: CocoDataset,
    folder: str | os.PathLike,
    config: TrainConfig,
    rounds: int = 2,
    choose: Callable[[nn.Module], Thresholds] = lambda teacher: 0.5,
    weighted: bool = True,
) -> list[nn.Module]:
    """Label, merge, train a fresh student, and let it teach the next round; returns the student of each round.

    make_student: a new model in each round. choose: the threshold(s) for a teacher, such as
    `lambda teacher: choose_thresholds(precision_recall(teacher, val_set))`. folder gets round_1, round_2, … with the
    labels and the training of each; a call that was stopped goes on from there. Raises ValueError for less than one
    round, and as make_pseudo_labels, merge_labels and fit do.
    """
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise ValueError(f"rounds is {rounds!r}: give a whole number of at least 1.")
    students: list[nn.Module] = []
    for number in range(1, rounds + 1):
        place = Path(folder) / f"round_{number}"
        place.mkdir(parents=True, exist_ok=True)
        made = make_pseudo_labels(teacher, unlabeled, place / "pseudo_labels.json", choose(teacher), weighted)
        both = merge_labels(labeled, CocoDataset(unlabeled.images_dir, made.path), place / "labels.json")
        teacher = make_student()
        fit(teacher, both, None, dataclasses.replace(config, out_dir=place / "training"))
        students.append(teacher)
    return students
