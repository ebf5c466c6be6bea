"""Seeded loss cases: predictions and targets of the kinds that break assigners; and the case of super-gradients."""

from pathlib import Path

import numpy as np
import torch

from yolonas_lab.boxes import cxcywh_to_xyxy
from yolonas_lab.data.coco import Targets
from yolonas_lab.models.yolo_nas import RawPredictions, anchor_points


def predictions(b=2, side=64, k=3, bins=9, seed=0, class_shift=-2.0) -> RawPredictions:
    """Random logits; bins decay so that boxes have object size; a leaf tensor each, to ask for gradients."""
    generator = torch.Generator().manual_seed(seed)
    points, strides = anchor_points([(side // s, side // s) for s in (8, 16, 32)])
    class_logits = torch.randn(b, len(points), k, generator=generator) + class_shift
    box_logits = torch.randn(b, len(points), 4, bins, generator=generator) - 0.5 * torch.arange(bins)
    return RawPredictions(class_logits.requires_grad_(), box_logits.requires_grad_(), points, strides)


def reference() -> tuple[dict[str, torch.Tensor], RawPredictions, list[Targets]]:
    """What super-gradients computed, by name, and of which predictions and targets of three images."""
    path = Path(__file__).parent.parent / "data" / "loss_reference.npz"
    ref = {key: torch.from_numpy(value) for key, value in np.load(path).items()}
    logits = ref["class_logits"].requires_grad_(), ref["box_logits"].unflatten(2, (4, 17)).requires_grad_()
    rows = [ref["targets"][ref["targets"][:, 0] == i] for i in range(3)]  # image, label, center and size
    targets = [Targets(cxcywh_to_xyxy(of_image[:, 2:]), of_image[:, 1].long()) for of_image in rows]
    return ref, RawPredictions(*logits, ref["anchor_points"], ref["strides"]), targets


def objects(*rows) -> Targets:
    """Rows (x1, y1, x2, y2, label)."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)
    return Targets(table[:, :4], table[:, 4].long())


CASES = {
    "ordinary": [objects((4, 4, 30, 40, 0), (20, 10, 60, 50, 2)), objects((10, 20, 40, 60, 1))],
    "one box": [objects((8, 8, 40, 40, 1)), objects()],
    "no boxes at all": [objects(), objects()],
    "no anchor point inside": [objects((5, 5, 7, 7, 0)), objects((0.5, 0.5, 3, 3, 1), (8, 8, 40, 40, 2))],
    "two nearly equal boxes of different class": [
        objects((8, 8, 40, 40, 0), (8, 8, 40.5, 40, 2)),
        objects((0, 0, 64, 64, 1)),
    ],
    "crowded": [
        objects(*[(i, 2 * i, i + 20, 2 * i + 24, i % 3) for i in range(0, 20, 2)]),
        objects((30, 30, 50, 50, 0)),
    ],
    "beyond the bins": [objects((0, 0, 330, 64, 0)), objects((1, 1, 63, 63, 2), (20, 20, 30, 30, 1))],
}
