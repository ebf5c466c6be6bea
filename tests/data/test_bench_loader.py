"""What `make bench` prints about loading: images per second by size and recipe, and its share of a training step."""

import itertools
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


def scenes_of(folder, count, size):
    made = make_scenes(folder / "scenes", train=count, val=0, image_size=size)
    return CocoDataset(made.images_dir("train"), made.annotations("train"))


def endless(loader):
    return itertools.chain.from_iterable(loader.batches(epoch) for epoch in itertools.count())


@pytest.mark.parametrize(("size", "count", "rounds"), [(64, 256, 15), (96, 256, 15), (640, 32, 5)])
def test_images_per_second(tmp_path, size, count, rounds):
    dataset = scenes_of(tmp_path, count, size)
    streams = {
        f"{name}, {'in memory' if cache else 'from PNG files'}": endless(Loader(dataset, 8, size, recipe, cache=cache))
        for name, recipe in RECIPES.items()
        for cache in (True, False)
    }
    timings = time_side_by_side({name: lambda s=s: next(s) for name, s in streams.items()}, rounds=rounds)
    print(f"batches of 8 images of {size} px, CPU time of one process:")
    for timing in timings.values():
        print(f"  {timing}, {8000 / timing.median_ms:.0f} images/s")


@pytest.mark.parametrize(("size", "count", "recipe"), [(64, 1024, "lab"), (640, 96, "coco")])
def test_workers_side_by_side(tmp_path, size, count, recipe):
    """By the clock: on a machine with other work, workers cannot have what they could."""
    dataset = scenes_of(tmp_path, count, size)
    for epoch, workers in itertools.product(range(3), (0, 1, 2)):
        loader = Loader(dataset, 8, size, RECIPES[recipe], workers=workers)
        began = time.perf_counter()
        batches = sum(1 for _ in loader.batches(epoch))
        print(f"{size} px, {recipe}, {workers} workers: {8 * batches / (time.perf_counter() - began):.0f} images/s")


@pytest.mark.parametrize("size", [64, 96])
def test_share_of_a_training_step(tmp_path, size):
    batches = endless(Loader(scenes_of(tmp_path, 256, size), 8, size, Augmentation.lab(), cache=True))
    batch = next(batches)
    model, loss = yl.models.get("yolo_nas_pico", num_classes=6).train(), DetectionLoss(6)

    def step():
        loss(model(batch.images), batch.targets).total.backward()

    timings = time_side_by_side({"batch": lambda: next(batches), "forward and backward": step}, rounds=40)
    share = timings["batch"].median_ms / timings["forward and backward"].median_ms
    print(f"pico, 8 images of {size} px:", *timings.values(), f"batch / step: {share:.2f}", sep="\n  ")
