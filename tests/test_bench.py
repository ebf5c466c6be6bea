"""What `make bench` prints: medians and ratios taken side by side on this machine. Nothing here asserts a time."""

import subprocess
import sys
import time

import pytest
import torch

import yolonas_lab as yl
from tests.losses.cases import predictions
from tests.losses.per_image_loss import per_image_loss_vectorised_over_points
from yolonas_lab.common import machine_name, time_side_by_side
from yolonas_lab.detect import postprocess

pytestmark = pytest.mark.bench


def show(title, ways, rounds=15):
    torch.set_num_threads(1)
    with torch.set_grad_enabled("backward" in title):
        timings = time_side_by_side(ways, rounds=rounds)
    print(f"\n{machine_name()}\n{title}:", *timings.values(), sep="\n  ")


@pytest.mark.parametrize(("name", "side"), [("yolo_nas_s", 640), ("yolo_nas_pico", 96)])
def test_forward_unfused_block_fused_and_fused(name, side):
    model, images = yl.models.get(name), torch.rand(1, 3, side, side)
    ways = {"unfused": model, "blocks fused": yl.models.fuse_blocks(model), "fused": yl.models.reparameterize(model)}
    show(f"{name} at {side} px", {way: lambda m=m: m(images) for way, m in ways.items()})


def test_post_processing_of_8400_boxes_and_80_classes():
    corner, scores = torch.rand(8400, 2) * 600, torch.rand(8400, 80)
    boxes = torch.cat([corner, corner + 40], dim=1)
    cases = {"every score above 0.01": scores * 0.99 + 0.01, "1 % of them": scores**460}
    show("post-processing", {n: lambda s=s: postprocess(boxes, s, conf=0.01, top_k=1000) for n, s in cases.items()})


def test_drawing_scenes():
    show("scenes", {"100 of 96 px": lambda: [yl.data.draw_scene(seed, image_size=96) for seed in range(100)]}, rounds=5)


def test_loss_and_assignment_of_16_images_at_640_px():
    raw, targets = predictions(b=16, side=640, k=80, bins=17, class_shift=-4.0), []
    for _ in range(16):
        corner, size = torch.rand(2, 20, 2) * torch.tensor([500.0, 140.0])[:, None, None]
        targets.append(yl.losses.Targets(torch.cat([corner, corner + size], dim=1), torch.randint(0, 80, (20,))))
    ways = {"whole batch": yl.losses.DetectionLoss(80), "image by image": per_image_loss_vectorised_over_points}
    logits = [raw.class_logits, raw.box_logits]
    both = {way: lambda loss=loss: torch.autograd.grad(loss(raw, targets)[0], logits) for way, loss in ways.items()}
    show("loss and assignment, forward and backward", both, rounds=7)


def test_import():
    def seconds(code):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - start

    extra = sorted(seconds("import torch, yolonas_lab") - seconds("import torch") for _ in range(7))[3]
    print(f"import yolonas_lab on top of torch: {extra:.2f} s")
