"""What `make bench` prints of a training step: it against a straightforward one, images per second, where time goes."""

import copy
import itertools
import statistics
import time
from dataclasses import replace

import pytest
import torch
from straightforward_step import StraightforwardStep

import yolonas_lab as yl
from yolonas_lab.common import machine_name, time_side_by_side
from yolonas_lab.data import Loader
from yolonas_lab.losses import DetectionLoss
from yolonas_lab.training import LAB, WeightAverage, make_optimizer
from yolonas_lab.training.devices import resolve_device

pytestmark = pytest.mark.bench

CASES = [("yolo_nas_pico", 64, 40), ("yolo_nas_nano", 64, 30), ("yolo_nas_s", 320, 4)]
PARTS = ("data", "forward", "loss", "backward", "optimizer + EMA")


class LibraryStep:
    """What `fit` does in a step, except clipping, which the straightforward one lacks too; and each part's time."""

    def __init__(self, model, batches, channels_last):
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.average, self.batches, self.updates = copy.deepcopy(model), batches, 0
        self.network = copy.deepcopy(model).train().to(memory_format=self.layout)
        self.optimizer = make_optimizer(self.network, 1e-3, 1e-4)
        self.ema = WeightAverage(self.average, self.network, 0.98)
        self.loss = DetectionLoss(model.num_classes)
        self.seconds = {part: [] for part in PARTS}

    def __call__(self):
        marks = [time.process_time()]
        batch = next(self.batches)
        images = batch.images.to(memory_format=self.layout)
        marks.append(time.process_time())
        raw = self.network(images)
        marks.append(time.process_time())
        loss = self.loss(raw, batch.targets)
        marks.append(time.process_time())
        loss.total.backward()
        marks.append(time.process_time())
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.updates += 1
        self.ema.update(self.updates)
        marks.append(time.process_time())
        for part, began, ended in zip(PARTS, marks, marks[1:]):
            self.seconds[part].append(ended - began)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A data set of 64 images of a size, drawn once."""
    made = {}

    def draw(size):
        if size not in made:
            folder = tmp_path_factory.mktemp(f"scenes{size}") / "scenes"
            summary = yl.data.make_scenes(folder, train=64, val=0, image_size=size)
            made[size] = yl.data.CocoDataset(summary.images_dir("train"), summary.annotations("train"))
        return made[size]

    return draw


def endless(dataset, size):
    loader = Loader(dataset, 8, size, LAB.augmentation, cache=True)
    return itertools.chain.from_iterable(loader.batches(epoch) for epoch in itertools.count())


@pytest.mark.parametrize(("name", "size", "rounds"), CASES)
def test_a_step_against_a_straightforward_one(scenes, name, size, rounds):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dataset = scenes(size)
    model = yl.models.get(name, num_classes=len(dataset.class_names)).eval()
    chosen = resolve_device(replace(LAB, image_size=size), model).channels_last
    plain = StraightforwardStep(model)
    their_batches = endless(dataset, size)
    steps = {
        "usual order": LibraryStep(model, endless(dataset, size), channels_last=False),
        "channels last": LibraryStep(model, endless(dataset, size), channels_last=True),
    }
    candidates = {"straightforward": lambda: plain(next(their_batches)), **steps}
    timings = time_side_by_side(candidates, rounds=rounds, warmup=2)
    print(f"\n{machine_name()}\n{name}, 8 images of {size} px, CPU time of a step:")
    for timing in timings.values():
        ratio = timing.median_ms / timings["straightforward"].median_ms
        print(f"  {timing}, {8000 / timing.median_ms:.1f} images/s, ratio {ratio:.2f}")
    ours = "channels last" if chosen else "usual order"
    parts = {part: statistics.median(seconds[2:]) for part, seconds in steps[ours].seconds.items()}
    whole = sum(parts.values())
    print(f"  fit uses {ours}: " + ", ".join(f"{part} {seconds / whole:.0%}" for part, seconds in parts.items()))
