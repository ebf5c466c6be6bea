"""What test_devices.py runs under torchrun: one step of a training with a teacher, shared by the processes.

python parallel_training.py FOLDER OUT_DIR BATCH_SIZE [explode]: with "explode" there is no teacher, and the loss of the
second process is no number.
"""

import os
import sys

import torch
from tiny_training import FrozenBatchNorm, tiny_config, tiny_scenes

from yolonas_lab import models
from yolonas_lab.losses import DetectionLoss
from yolonas_lab.training import Hooks, fit


def train(folder, out_dir, batch_size, how="taught"):
    torch.set_num_threads(1)
    train_set, val_set = tiny_scenes(folder)
    k = len(train_set.class_names)
    config = tiny_config(steps=1, batch_size=batch_size, out_dir=out_dir, grad_clip=None)

    def explode(raw, batch):
        parts = DetectionLoss(k)(raw, batch.targets)
        return parts._replace(total=parts.total * float("nan")) if os.environ["RANK"] == "1" else parts

    if how == "explode":
        fit(FrozenBatchNorm(k), train_set, val_set, config, Hooks(compute_loss=explode))
    else:
        teacher = models.get("yolo_nas_pico", pretrained_weights="scenes")
        fit(FrozenBatchNorm(k), train_set, val_set, config, teacher=teacher)


if __name__ == "__main__":
    train(sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
