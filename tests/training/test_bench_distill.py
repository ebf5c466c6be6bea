"""What `make bench` prints of distillation: how much longer a training step takes with a teacher."""

import pytest
import torch

import yolonas_lab as yl
from yolonas_lab.common import machine_name, time_side_by_side
from yolonas_lab.teaching.lessons.nb08 import training_step

pytestmark = pytest.mark.bench


def test_what_a_teacher_costs(tmp_path):
    torch.set_num_threads(1)
    made = yl.data.make_scenes(tmp_path / "scenes", train=32, val=0, image_size=64)
    dataset = yl.data.CocoDataset(made.images_dir("train"), made.annotations("train"))
    pico, nano = (yl.models.get(f"yolo_nas_{name}", pretrained_weights="scenes") for name in ("pico", "nano"))
    steps = {
        "pico alone": training_step(pico, dataset),
        "pico, taught by pico": training_step(pico, dataset, pico),
        "pico, taught by nano": training_step(pico, dataset, nano),
        "nano alone": training_step(nano, dataset),
    }
    timings = time_side_by_side(steps, rounds=40)
    print(f"\n{machine_name()}\na training step of 8 images of 64 px, CPU time:")
    for timing in timings.values():
        print(f"  {timing}, ratio {timing.median_ms / timings['pico alone'].median_ms:.2f}")
