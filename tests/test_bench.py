"""What `make bench` prints: medians and ratios taken side by side on this machine. Nothing here asserts a time."""

import itertools
import statistics
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


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    print(f"\n{machine_name()}")


@pytest.mark.parametrize(
    ("name", "side", "batch"), [("yolo_nas_s", 640, 1), ("yolo_nas_nano", 96, 8), ("yolo_nas_pico", 96, 8)]
)
def test_forward_unfused_block_fused_and_fused(name, side, batch):
    torch.manual_seed(0)
    model = yl.models.get(name)
    versions = {
        "unfused": model,
        "blocks fused": yl.models.fuse_blocks(model),
        "all fused": yl.models.reparameterize(model),
    }
    images = torch.rand(batch, 3, side, side)
    with torch.inference_mode():
        timings = time_side_by_side({n: lambda m=m: m(images) for n, m in versions.items()}, rounds=15)
    unfused, blocks, fused = timings.values()
    print(f"{name} at {side} px, batch {batch}:", *timings.values(), sep="\n  ")
    print(f"  all fused / blocks fused: {fused.median_ms / blocks.median_ms:.2f}")
    print(f"  unfused / all fused: {unfused.median_ms / fused.median_ms:.2f}")


def test_post_processing_of_8400_boxes_and_80_classes():
    torch.manual_seed(0)
    points, strides = yl.models.anchor_points([(80, 80), (40, 40), (20, 20)])
    half = torch.rand(8400, 2) * strides * 4
    boxes = torch.cat([points - half, points + half], dim=1)
    cases = {"every score above 0.01": torch.rand(8400, 80) * 0.99 + 0.01, "1 % of them": torch.rand(8400, 80) ** 460}
    timings = time_side_by_side({n: lambda s=s: postprocess(boxes, s, conf=0.01, top_k=1000) for n, s in cases.items()})
    print("post-processing, score 0.01, IoU 0.7:", *timings.values(), sep="\n  ")


def test_drawing_scenes():
    seeds = itertools.count()

    def write():
        with tempfile.TemporaryDirectory() as folder:
            yl.data.make_scenes(f"{folder}/scenes", train=100, val=0, image_size=96, seed=next(seeds))

    timing = time_side_by_side({"100 scenes of 96 px, as PNG and JSON": write}, rounds=5)
    for t in timing.values():
        print(f"{t}, {100 / t.median_ms * 1000:.0f} images/s")


def test_import():
    def seconds(code):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - start

    rounds = [(seconds("import torch"), seconds("import torch, yolonas_lab")) for _ in range(7)]
    extra = statistics.median(ours - torch_alone for torch_alone, ours in rounds)
    print(f"import torch: {statistics.median(t for t, _ in rounds):.2f} s; yolonas_lab on top of it: {extra:.2f} s")
