"""What a teacher adds to a training step: its predictions for the same augmented batch, and the losses against them.

Notebook 08. The teacher runs without gradient, in eval mode and fused into plain convolutions, once per batch.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from yolonas_lab.data.targets import Batch
from yolonas_lab.losses import LossParts
from yolonas_lab.losses.distillation import DistillConfig, DistilledParts, distillation_losses
from yolonas_lab.models.heads import RawPredictions
from yolonas_lab.models.reparameterize import reparameterize
from yolonas_lab.training.digest import weights_digest
from yolonas_lab.training.processes import SharedNormalizer

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def with_teacher(
    compute_loss: Callable[[RawPredictions, Batch], LossParts],
    teacher: nn.Module,
    config: DistillConfig,
    fabric: "Fabric",
) -> Callable[[RawPredictions, Batch], DistilledParts]:
    """The loss with what a fused copy of the teacher adds to it; with several processes, that of the whole batch."""
    fused = reparameterize(teacher).to(fabric.device)
    normalizer = SharedNormalizer(fabric) if fabric.world_size > 1 else None

    def compute(raw: RawPredictions, batch: Batch) -> DistilledParts:
        parts = compute_loss(raw, batch)
        with torch.no_grad(), fabric.autocast():
            wanted = fused(batch.images)
        added = distillation_losses(raw, wanted, config, normalizer)
        return DistilledParts(parts.total + sum(added), *parts[1:], *added)

    return compute


def teacher_identity(teacher: nn.Module, config: DistillConfig) -> dict[str, Any]:
    """What a checkpoint remembers of a teacher: going on with another one would be another training."""
    name = getattr(getattr(teacher, "config", None), "name", type(teacher).__name__)
    return {"teacher": f"{name} {weights_digest(teacher)[:16]}", "distillation": asdict(config)}
