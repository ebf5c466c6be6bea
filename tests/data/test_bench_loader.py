"""What `make bench` prints about loading: images per second by size and recipe, and its share of a training step."""

import itertools
import time
from dataclasses import replace

import pytest
import torch

import yolonas_lab as yl
from yolonas_lab.data import Augmentation, CocoDataset, Loader, make_scenes
from yolonas_lab.losses import DetectionLoss
from yolonas_lab.timing import machine_name, time_side_by_side

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


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_workers_side_by_side(tmp_path, workers):
    scenes = make_scenes(tmp_path / "scenes", train=512, val=0, image_size=96)
    loader = Loader(
        CocoDataset(scenes.images_dir("train"), scenes.annotations("train")),
        8,
        96,
        Augmentation.coco(),
        workers=workers,
    )
    began = time.perf_counter()
    images = sum(len(batch.image_ids) for batch in loader.batches(0))
    print(f"{workers} workers, 96 px, coco, from files: {images / (time.perf_counter() - began):.0f} images/s by clock")


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
