"""Training: the loop, its recipes, averaged weights, checkpoints, the record of it all; and labels from a teacher."""

from yolonas_lab.training.config import COCO_S, FINE_TUNE, LAB, TrainConfig
from yolonas_lab.training.ema import WeightAverage, ema_decay
from yolonas_lab.training.fit import fit
from yolonas_lab.training.history import History
from yolonas_lab.training.label_choice import LabelCurves, choose_threshold, choose_thresholds, precision_recall
from yolonas_lab.training.label_files import LabelQuality, compare_labels, hide_labels, merge_labels
from yolonas_lab.training.optimizer import make_optimizer, start_with_small_boxes
from yolonas_lab.training.pseudo_labels import PseudoLabelReport, make_pseudo_labels
from yolonas_lab.training.schedule import warmup_cosine
from yolonas_lab.training.self_training import self_train
from yolonas_lab.training.state import TrainState
from yolonas_lab.training.teacher_boxes import UselessTeacherError

__all__ = [
    "COCO_S",
    "FINE_TUNE",
    "LAB",
    "History",
    "LabelCurves",
    "LabelQuality",
    "PseudoLabelReport",
    "TrainConfig",
    "TrainState",
    "UselessTeacherError",
    "WeightAverage",
    "choose_threshold",
    "choose_thresholds",
    "compare_labels",
    "ema_decay",
    "fit",
    "hide_labels",
    "make_optimizer",
    "make_pseudo_labels",
    "merge_labels",
    "precision_recall",
    "self_train",
    "start_with_small_boxes",
    "warmup_cosine",
]
