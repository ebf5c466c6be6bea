"""What `make bench` prints of a training step: it against a straightforward one, and what a teacher adds to it."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch
from straightforward_step import StraightforwardStep

import yolonas_lab as yl
from yolonas_lab.common import machine_name, time_side_by_side
from yolonas_lab.data import Loader
from yolonas_lab.losses import DetectionLoss
from yolonas_lab.teaching.lessons.nb08 import training_step
from yolonas_lab.training import LAB, WeightAverage, make_optimizer
from yolonas_lab.training.devices import resolve_device

pytestmark = pytest.mark.bench


class LibraryStep:
    """What `fit` does in a step, except clipping, which the straightforward one lacks too."""

    def __init__(self, model, batches, layout):
        self.layout, self.average, self.batches, self.updates = layout, copy.deepcopy(model), batches, 0
        self.network = copy.deepcopy(model).train().to(memory_format=layout)
        self.optimizer = make_optimizer(self.network, 1e-3, 1e-4)
        self.ema = WeightAverage(self.average, self.network, 0.98)
        self.loss = DetectionLoss(model.num_classes)

    def __call__(self):
        batch = next(self.batches)
        self.loss(self.network(batch.images.to(memory_format=self.layout)), batch.targets).total.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.updates += 1
        self.ema.update(self.updates)


def scenes(folder, size, images):
    made = yl.data.make_scenes(folder / "scenes", train=images, val=0, image_size=size)
    return yl.data.CocoDataset(made.images_dir("train"), made.annotations("train"))


def show(title, timings, first):
    print(f"\n{machine_name()}\n{title}, CPU time of a step:")
    for timing in timings.values():
        print(f"  {timing}, ratio {timing.median_ms / timings[first].median_ms:.2f}")


@pytest.mark.parametrize(
    ("name", "size", "rounds"), [("yolo_nas_pico", 64, 40), ("yolo_nas_nano", 64, 30), ("yolo_nas_s", 320, 4)]
)
def test_a_step_against_a_straightforward_one(tmp_path, name, size, rounds):
    dataset = scenes(tmp_path, size, 64)

    def endless():
        loader = Loader(dataset, 8, size, LAB.augmentation, cache=True)
        return itertools.chain.from_iterable(loader.batches(epoch) for epoch in itertools.count())

    torch.manual_seed(0)
    model = yl.models.get(name, num_classes=len(dataset.class_names)).eval()
    plain, batches = StraightforwardStep(model), endless()
    candidates = {
        "straightforward": lambda: plain(next(batches)),
        "usual order": LibraryStep(model, endless(), torch.contiguous_format),
        "channels last": LibraryStep(model, endless(), torch.channels_last),
    }
    show(f"{name}, 8 images of {size} px", time_side_by_side(candidates, rounds, warmup=2), "straightforward")
    chosen = resolve_device(replace(LAB, image_size=size), model).channels_last
    print(f"  fit uses {'channels last' if chosen else 'usual order'}")


def test_what_a_teacher_costs(tmp_path):
    dataset = scenes(tmp_path, 64, 32)
    pico, nano = (yl.models.get(f"yolo_nas_{name}", pretrained_weights="scenes") for name in ("pico", "nano"))
    steps = {
        "pico alone": training_step(pico, dataset),
        "pico, taught by nano": training_step(pico, dataset, nano),
        "nano alone": training_step(nano, dataset),
    }
    show("8 images of 64 px", time_side_by_side(steps, rounds=40), "pico alone")
