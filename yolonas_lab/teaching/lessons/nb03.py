"""Two small classifiers that differ only in their block type, to compare what fusion does to weights (notebook 03).

The task, to name the glyph in a 32 px crop, is learned in seconds, so the reader can repeat it over seeds.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolonas_lab.models.blocks import Block

CROP = 32  # px
CLASSES = 6  # of the scenes domain
STEPS = 200


def glyph_crops(scenes: int, split: str) -> tuple[Tensor, Tensor]:
    """Crops around every object of a split's first scenes: images (n, 3, 32, 32) in [0, 1] and labels (n,) int64."""
    from yolonas_lab.data.scenes import draw_scene

    side = 2 * CROP
    images, labels = [], []
    for index in range(scenes):
        scene = draw_scene(index, image_size=side, split=split, difficulty=0.5)
        centers = (scene.boxes[:, :2] + scene.boxes[:, 2:]) / 2  # (n, 2) x, y px
        for (x, y), label in zip((centers - CROP / 2).clip(0, side - CROP).astype(int), scene.labels, strict=True):
            images.append(torch.from_numpy(scene.image[y : y + CROP, x : x + CROP].copy()))
            labels.append(int(label))
    return torch.stack(images).permute(0, 3, 1, 2).float() / 255, torch.tensor(labels)


def glyph_classifier(block: Block, seed: int) -> nn.Sequential:
    """Seven blocks of one type, global average pooling and a linear layer: (b, 3, 32, 32) -> class logits (b, 6)."""
    torch.manual_seed(seed)
    return nn.Sequential(
        block(3, 16, stride=2),  # (b, 16, 16, 16)
        block(16, 16),
        block(16, 32, stride=2),  # (b, 32, 8, 8)
        *(block(32, 32) for _ in range(4)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, CLASSES),
    )


def train_classifier(model: nn.Module, images: Tensor, labels: Tensor, seed: int) -> nn.Module:
    """Train with AdamW and a one-cycle schedule on random batches of 64, half of them mirrored; returns it to use."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=STEPS)
    model.train()
    for _ in range(STEPS):
        batch = torch.randint(len(images), (64,), generator=generator)
        mirrored = torch.rand((), generator=generator) < 0.5
        x = images[batch].flip(3) if mirrored else images[batch]
        loss = F.cross_entropy(model(x), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.inference_mode()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images whose class the model names right, in [0, 1]."""
    return (model(images).argmax(dim=1) == labels).float().mean().item()
