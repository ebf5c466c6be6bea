"""The YOLO-NAS loss: task-aligned assignment, varifocal, GIoU and Distribution Focal Loss."""

from yolonas_lab.data.coco import Targets
from yolonas_lab.losses.assign import Assignment, assign
from yolonas_lab.losses.detection import DetectionLoss, LossParts, dfl_loss, distances_to_sides
from yolonas_lab.losses.distillation import DistillConfig, distillation_losses, kd_class_loss, kd_dfl_loss

__all__ = [
    "Assignment", "DetectionLoss", "DistillConfig", "LossParts", "Targets", "assign", "dfl_loss", "distances_to_sides",
    "distillation_losses", "kd_class_loss", "kd_dfl_loss",
]  # fmt: skip
