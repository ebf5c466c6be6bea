"""A training of a second: yolo_nas_pico on a few generated scenes of 64 px. Tests and their child processes use it."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

import yolonas_lab as yl
from yolonas_lab.models.configs import CONFIGS
from yolonas_lab.models.yolo_nas import YoloNAS
from yolonas_lab.training import LAB, TrainConfig


def tiny_scenes(folder, train=18, val=4):
    """Training and validation set."""
    made = yl.data.make_scenes(Path(folder) / "scenes", train=train, val=val, image_size=64, seed=5)
    train_set, val_set = (yl.data.CocoDataset(made.images_dir(s), made.annotations(s)) for s in ("train", "val"))
    return train_set, val_set


def tiny_model(num_classes):
    """The same fresh pico each time."""
    torch.manual_seed(0)
    return yl.models.get("yolo_nas_pico", num_classes=num_classes)


class FrozenBatchNorm(YoloNAS):
    """A pico whose BatchNorms stay in eval mode, so that an image's loss does not depend on its batch."""

    def __init__(self, num_classes):
        torch.manual_seed(0)
        super().__init__(CONFIGS["yolo_nas_pico"], num_classes)

    def train(self, mode=True):
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


def tiny_config(**changes) -> TrainConfig:
    """LAB, with 8 steps of 2 x 4 images by default."""
    settings = {"steps": 8, "batch_size": 4, "warmup_steps": 4, "evaluate_every": None} | changes
    return replace(LAB, **settings)


def same(a, b):
    """Bit for bit: nested dicts and lists of tensors and numbers; the time that something took does not count."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(k == "seconds" or same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)
