"""What `make bench` prints about loading: images per second by size and recipe, and its share of a training step."""

import collections
import itertools
import multiprocessing
import os
import statistics
import time
from dataclasses import replace

import pytest
import torch

import yolonas_lab as yl
from yolonas_lab.common import machine_name, time_side_by_side
from yolonas_lab.data import Augmentation, CocoDataset, Loader, make_scenes
from yolonas_lab.losses import DetectionLoss

pytestmark = pytest.mark.bench

RECIPES = {
    "none": Augmentation.none(),
    "lab": Augmentation.lab(),
    "coco": Augmentation.coco(),
    "lab + mosaic": replace(Augmentation.lab(), mosaic=1.0),
}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    print(f"\n{machine_name()}")


@pytest.mark.parametrize(("size", "count"), [(64, 256), (96, 256), (640, 32)])
def test_images_per_second(tmp_path, size, count):
    scenes = make_scenes(tmp_path / "scenes", train=count, val=0, image_size=size)
    dataset = CocoDataset(scenes.images_dir("train"), scenes.annotations("train"))

    def endless(augmentation, cache):
        loader = Loader(dataset, 8, size, augmentation, cache=cache)
        return itertools.chain.from_iterable(loader.batches(epoch) for epoch in itertools.count())

    streams = {
        f"{name}, {'in memory' if cache else 'from PNG files'}": endless(augmentation, cache)
        for name, augmentation in RECIPES.items()
        for cache in (True, False)
    }
    timings = time_side_by_side(
        {name: lambda s=s: next(s) for name, s in streams.items()}, rounds=15 if size < 640 else 5
    )
    print(f"batches of 8 images of {size} px, CPU time of one process:")
    for timing in timings.values():
        print(f"  {timing}, {8000 / timing.median_ms:.0f} images/s")


def processors_used(work):
    """How many processors a call keeps busy, its ended child processes included."""
    began, used = time.perf_counter(), sum(os.times()[:4])
    work()
    return (sum(os.times()[:4]) - used) / (time.perf_counter() - began)


def spin(seconds=1.0):
    """Compute, sharing nothing with anyone."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def two_spinning():
    processes = [multiprocessing.Process(target=spin) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


@pytest.mark.parametrize(("size", "count", "recipe"), [(64, 1024, "lab"), (640, 96, "coco")])
def test_workers_side_by_side(tmp_path, size, count, recipe):
    """Images per second by the clock and processors kept busy, beside what this machine gives to two busy processes.

    On a machine with other work the last number is below 2, and workers cannot have more.
    """
    scenes = make_scenes(tmp_path / "scenes", train=count, val=0, image_size=size)
    dataset = CocoDataset(scenes.images_dir("train"), scenes.annotations("train"))
    loaders = {workers: Loader(dataset, 8, size, RECIPES[recipe], workers=workers) for workers in (0, 1, 2)}
    rates, busy, free = {w: [] for w in loaders}, {w: [] for w in loaders}, []
    for epoch in range(3):
        for workers, loader in loaders.items():
            began = time.perf_counter()
            busy[workers].append(processors_used(lambda ld=loader, e=epoch: collections.deque(ld.batches(e), maxlen=0)))
            rates[workers].append(8 * len(loader) / (time.perf_counter() - began))
        free.append(processors_used(two_spinning))
    print(f"{size} px, {recipe}, from PNG files, by the clock:")
    for workers in loaders:
        rate, processors = statistics.median(rates[workers]), statistics.median(busy[workers])
        print(f"  {workers} workers: {rate:.0f} images/s, {processors:.2f} processors busy")
    print(f"  two processes that only count: {statistics.median(free):.2f} processors busy")


@pytest.mark.parametrize("size", [64, 96])
def test_share_of_a_training_step(tmp_path, size):
    scenes = make_scenes(tmp_path / "scenes", train=256, val=0, image_size=size)
    dataset = CocoDataset(scenes.images_dir("train"), scenes.annotations("train"))
    loader = Loader(dataset, 8, size, Augmentation.lab(), cache=True)
    batches = itertools.chain.from_iterable(loader.batches(epoch) for epoch in itertools.count())
    batch = next(batches)
    model, loss = yl.models.get("yolo_nas_pico", num_classes=6).train(), DetectionLoss(6)

    def step():
        loss(model(batch.images), batch.targets).total.backward()

    timings = time_side_by_side({"batch": lambda: next(batches), "forward and backward": step}, rounds=40)
    share = timings["batch"].median_ms / timings["forward and backward"].median_ms
    print(f"pico, 8 images of {size} px:", *timings.values(), f"batch / step: {share:.2f}", sep="\n  ")
