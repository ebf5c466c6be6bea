"""Training: the loop, its recipes, the moving average of the weights, checkpoints and the record of it all."""

from yolonas_lab.training.config import COCO_S, FINE_TUNE, LAB, TrainConfig
from yolonas_lab.training.ema import WeightAverage, ema_decay
from yolonas_lab.training.fit import fit
from yolonas_lab.training.history import History
from yolonas_lab.training.optimizer import make_optimizer, start_with_small_boxes
from yolonas_lab.training.schedule import warmup_cosine
from yolonas_lab.training.state import TrainState

__all__ = [
    "COCO_S",
    "FINE_TUNE",
    "LAB",
    "History",
    "TrainConfig",
    "TrainState",
    "WeightAverage",
    "ema_decay",
    "fit",
    "make_optimizer",
    "start_with_small_boxes",
    "warmup_cosine",
]
