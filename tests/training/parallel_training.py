"""What test_processes.py runs under torchrun: one step of a training, shared by the processes.

python parallel_training.py FOLDER OUT_DIR BATCH_SIZE [own]: with "own", each process divides by its own objects.
"""

import sys

import torch
from tiny_training import FrozenBatchNorm, tiny_config, tiny_scenes

from yolonas_lab.losses import DetectionLoss
from yolonas_lab.training import fit


def train(folder, out_dir, batch_size, own=False):
    torch.set_num_threads(1)
    train_set, val_set = tiny_scenes(folder)
    k = len(train_set.class_names)
    loss = DetectionLoss(k)
    config = tiny_config(steps=1, batch_size=batch_size, out_dir=out_dir, grad_clip=None)
    compute_loss = (lambda raw, batch: loss(raw, batch.targets)) if own else None
    fit(FrozenBatchNorm(k), train_set, val_set, config, compute_loss)


if __name__ == "__main__":
    train(sys.argv[1], sys.argv[2], int(sys.argv[3]), own="own" in sys.argv)
