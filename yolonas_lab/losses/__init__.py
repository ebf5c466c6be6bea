"""The YOLO-NAS loss: task-aligned assignment, varifocal, GIoU and Distribution Focal Loss."""

from yolonas_lab.data.targets import Targets
from yolonas_lab.losses.assign import Assignment, assign
from yolonas_lab.losses.detection import DetectionLoss, LossParts
from yolonas_lab.losses.dfl import dfl_loss, distances_to_sides

__all__ = ["Assignment", "DetectionLoss", "LossParts", "Targets", "assign", "dfl_loss", "distances_to_sides"]
