"""What `make bench` prints about loading: images per second by recipe, and a batch's share of a training step."""

import itertools
from dataclasses import replace

import pytest
import torch

import yolonas_lab as yl
from yolonas_lab.common import machine_name, time_side_by_side
from yolonas_lab.data import Augmentation, CocoDataset, Loader, make_scenes
from yolonas_lab.losses import DetectionLoss

pytestmark = pytest.mark.bench

LAB, COCO = Augmentation.lab(), Augmentation.coco()
RECIPES = {"none": Augmentation.none(), "lab": LAB, "coco": COCO, "lab + mosaic": replace(LAB, mosaic=1.0)}


@pytest.mark.parametrize("size", [64, 640])
def test_batches_of_each_recipe_and_a_training_step(tmp_path, size):
    torch.set_num_threads(1)
    made = make_scenes(tmp_path / "scenes", train=32, val=0, image_size=size)
    dataset = CocoDataset(made.images_dir("train"), made.annotations("train"))
    streams = {}
    for (name, recipe), cache in itertools.product(RECIPES.items(), (True, False)):
        loader = Loader(dataset, 8, size, recipe, cache=cache)
        epochs = map(loader.batches, itertools.count())
        streams[f"{name}, {'in memory' if cache else 'PNG files'}"] = itertools.chain.from_iterable(epochs)
    batch = next(streams["lab, in memory"])
    model, loss = yl.models.get("yolo_nas_pico", num_classes=6).train(), DetectionLoss(6)

    def step():
        loss(model(batch.images), batch.targets).total.backward()

    candidates = {name: lambda stream=stream: next(stream) for name, stream in streams.items()}
    print(f"\n{machine_name()}\nbatches of 8 images of {size} px, CPU time of one process:")
    print(*time_side_by_side(candidates | {"pico, forward and backward": step}, rounds=5).values(), sep="\n")
