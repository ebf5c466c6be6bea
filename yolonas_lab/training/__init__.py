"""Training: the loop, its recipes, averaged weights, checkpoints, the record of it all; and labels from a teacher."""

from yolonas_lab.training.checkpoint import TrainState
from yolonas_lab.training.config import COCO_S, FINE_TUNE, LAB, TrainConfig
from yolonas_lab.training.fit import Hooks, fit
from yolonas_lab.training.history import History
from yolonas_lab.training.label_quality import LabelCurves, choose_thresholds, compare_labels, precision_recall
from yolonas_lab.training.optim import WeightAverage, ema_decay, make_optimizer, start_with_small_boxes, warmup_cosine
from yolonas_lab.training.pseudo_labels import UselessTeacherError, hide_labels, make_pseudo_labels, merge_labels

__all__ = [
    "COCO_S", "FINE_TUNE", "LAB", "History", "Hooks", "LabelCurves", "TrainConfig", "TrainState", "UselessTeacherError",
    "WeightAverage", "choose_thresholds", "compare_labels", "ema_decay", "fit", "hide_labels", "make_optimizer",
    "make_pseudo_labels", "merge_labels", "precision_recall", "start_with_small_boxes", "warmup_cosine",
]  # fmt: skip
