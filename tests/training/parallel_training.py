"""What test_devices.py runs under torchrun: one step of a training with a teacher, shared by the processes.

python parallel_training.py FOLDER OUT_DIR BATCH_SIZE
"""

import sys

import torch
from tiny_training import FrozenBatchNorm, tiny_config, tiny_scenes

from yolonas_lab import models
from yolonas_lab.training import fit


def train(folder, out_dir, batch_size):
    torch.set_num_threads(1)
    train_set, val_set = tiny_scenes(folder)
    config = tiny_config(steps=1, batch_size=batch_size, out_dir=out_dir, grad_clip=None)
    teacher = models.get("yolo_nas_pico", pretrained_weights="scenes")
    fit(FrozenBatchNorm(len(train_set.class_names)), train_set, val_set, config, teacher=teacher)


if __name__ == "__main__":
    train(sys.argv[1], sys.argv[2], int(sys.argv[3]))
