"""What `make bench` prints: medians and ratios taken side by side on this machine. Nothing here asserts a time."""

import itertools
import subprocess
import sys
import tempfile
import time

import pytest
import torch

import yolonas_lab as yl
from yolonas_lab.common import machine_name, time_side_by_side
from yolonas_lab.detect import postprocess

pytestmark = pytest.mark.bench


def show(title, ways, rounds=15):
    torch.set_num_threads(1)
    with torch.inference_mode():
        timings = time_side_by_side(ways, rounds=rounds)
    print(f"\n{machine_name()}\n{title}:", *timings.values(), sep="\n  ")


@pytest.mark.parametrize(("name", "side", "batch"), [("yolo_nas_s", 640, 1), ("yolo_nas_pico", 96, 8)])
def test_forward_unfused_block_fused_and_fused(name, side, batch):
    model, images = yl.models.get(name), torch.rand(batch, 3, side, side)
    ways = {"unfused": model, "blocks fused": yl.models.fuse_blocks(model), "fused": yl.models.reparameterize(model)}
    show(f"{name} at {side} px, batch {batch}", {way: lambda m=m: m(images) for way, m in ways.items()})


def test_post_processing_of_8400_boxes_and_80_classes():
    points, strides = yl.models.anchor_points([(80, 80), (40, 40), (20, 20)])
    half = torch.rand(8400, 2) * strides * 4
    boxes = torch.cat([points - half, points + half], dim=1)
    cases = {"every score above 0.01": torch.rand(8400, 80) * 0.99 + 0.01, "1 % of them": torch.rand(8400, 80) ** 460}
    show("post-processing", {n: lambda s=s: postprocess(boxes, s, conf=0.01, top_k=1000) for n, s in cases.items()})


def test_drawing_scenes():
    seeds = itertools.count()

    def write():
        with tempfile.TemporaryDirectory() as folder:
            yl.data.make_scenes(f"{folder}/scenes", train=100, val=0, image_size=96, seed=next(seeds))

    show("scenes", {"100 of 96 px, as PNG and JSON": write}, rounds=5)


def test_import():
    def seconds(code):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - start

    extra = sorted(seconds("import torch, yolonas_lab") - seconds("import torch") for _ in range(7))[3]
    print(f"import yolonas_lab on top of torch: {extra:.2f} s")
