"""What `make bench` prints of the loss: it and its assignment against the straightforward per-image version."""

import pytest
import torch
from cases import predictions
from per_image_loss import per_image_loss_vectorised_over_points

from yolonas_lab.common import machine_name, time_side_by_side
from yolonas_lab.losses import DetectionLoss, Targets


@pytest.mark.bench
def test_loss_and_assignment_of_16_images_at_640_px():
    torch.set_num_threads(1)
    raw, targets = predictions(b=16, side=640, k=80, bins=17, class_shift=-4.0), []
    for _ in range(16):
        center, size = torch.rand(2, 20, 2) * torch.tensor([640.0, 192.0])[:, None, None]
        boxes = torch.cat([center - size / 2 - 5, center + size / 2 + 5], dim=1).clamp(0, 640)
        targets.append(Targets(boxes, torch.randint(0, 80, (20,))))

    def both_ways(loss):
        return lambda: torch.autograd.grad(loss(raw, targets)[0], [raw.class_logits, raw.box_logits])

    versions = {"whole batch": DetectionLoss(80), "image by image": per_image_loss_vectorised_over_points}
    timings = time_side_by_side({name: both_ways(loss) for name, loss in versions.items()}, rounds=7, warmup=1)
    print(f"\n{machine_name()}\nloss and assignment, forward and backward:", *timings.values(), sep="\n  ")
