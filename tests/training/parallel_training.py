"""What test_processes.py runs under torchrun: one step of a training, shared by the processes.

python parallel_training.py FOLDER OUT_DIR BATCH_SIZE [own | explode | taught]: with "own", each process divides by its
own objects; with "explode", the loss of the second process is no number; with "taught", there is a teacher.
"""

import os
import sys

import torch
from tiny_training import FrozenBatchNorm, tiny_config, tiny_scenes

from yolonas_lab import models
from yolonas_lab.losses import DetectionLoss
from yolonas_lab.training import Hooks, fit


def train(folder, out_dir, batch_size, how=""):
    torch.set_num_threads(1)
    train_set, val_set = tiny_scenes(folder)
    k = len(train_set.class_names)
    loss = DetectionLoss(k)
    config = tiny_config(steps=1, batch_size=batch_size, out_dir=out_dir, grad_clip=None)

    def own(raw, batch):
        return loss(raw, batch.targets)

    def explode(raw, batch):
        parts = own(raw, batch)
        return parts._replace(total=parts.total * float("nan")) if os.environ["RANK"] == "1" else parts

    teacher = models.get("yolo_nas_pico", pretrained_weights="scenes") if how == "taught" else None
    hooks = Hooks(compute_loss={"own": own, "explode": explode}.get(how))
    fit(FrozenBatchNorm(k), train_set, val_set, config, hooks, teacher=teacher)


if __name__ == "__main__":
    train(sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
