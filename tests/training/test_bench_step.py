"""What `make bench` prints of a training step: it against a straightforward one, and what a teacher adds to it."""

import copy
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "losses"))  # where the per-image loss lies beside its own tests

from per_image_loss import per_image_loss_vectorised_over_points  # pyright: ignore[reportMissingImports]
from tiny_training import tiny_scenes

import yolonas_lab as yl
from yolonas_lab.common import machine_name, time_side_by_side
from yolonas_lab.data import Loader
from yolonas_lab.teaching.lessons.nb08 import training_step
from yolonas_lab.training import LAB, ema_decay


def straightforward_step(model, dataset):
    """Per-image assignment and loss, AdamW parameter by parameter, moving average over state_dict()."""
    batch = next(iter(Loader(dataset, LAB.batch_size, LAB.image_size, LAB.augmentation, LAB.seed).batches(0)))
    network, average = copy.deepcopy(model).train(), copy.deepcopy(model).state_dict()
    groups = [
        {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": LAB.weight_decay},
        {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LAB.lr, foreach=False, fused=False)

    def step():
        per_image_loss_vectorised_over_points(network(batch.images), batch.targets)[0].backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), LAB.grad_clip or 10.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        decay, live = ema_decay(1000, LAB.ema_decay), network.state_dict()
        for name, tensor in average.items():
            if tensor.is_floating_point():
                tensor.mul_(decay).add_(live[name], alpha=1 - decay)

    return step


@pytest.mark.bench
def test_a_step_against_a_straightforward_one_and_one_with_a_teacher(tmp_path):
    dataset, _ = tiny_scenes(tmp_path, train=32)
    pico, nano = (yl.models.get(f"yolo_nas_{name}", pretrained_weights="scenes") for name in ("pico", "nano"))
    steps = {
        "pico, straightforward": straightforward_step(pico, dataset),
        "pico": training_step(pico, dataset),
        "pico, taught by nano": training_step(pico, dataset, nano),
        "nano": training_step(nano, dataset),
    }
    print(f"\n{machine_name()}\n8 images of 64 px, CPU time of a step:")
    print(*time_side_by_side(steps, rounds=40).values(), sep="\n")
