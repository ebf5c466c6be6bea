"""One training step as a function to time, alone or with a teacher: notebook 08 reports what a teacher costs.

What `fit` does in a step, on one prepared batch, so that reading images does not count.
"""

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import nn

from yolonas_lab.data import CocoDataset, Loader
from yolonas_lab.data.targets import Batch
from yolonas_lab.losses import DetectionLoss, DistillConfig, LossParts
from yolonas_lab.losses.distillation import DistilledParts
from yolonas_lab.models import RawPredictions
from yolonas_lab.training import LAB, TrainConfig, WeightAverage, make_optimizer
from yolonas_lab.training.distill import with_teacher
from yolonas_lab.training.processes import connect

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def training_step(
    model: nn.Module,
    dataset: CocoDataset,
    teacher: nn.Module | None = None,
    distillation: DistillConfig | None = None,
    config: TrainConfig = LAB,
) -> Callable[[], object]:
    """A function that trains a copy of the model for one more step each time it is called; the model stays as it is."""
    loader = Loader(dataset, config.batch_size, config.image_size, config.augmentation, config.seed)
    batch = next(iter(loader.batches(0)))
    average, network = copy.deepcopy(model).eval(), copy.deepcopy(model).train()
    ema = WeightAverage(average, network, config.ema_decay)
    optimizer = make_optimizer(network, config.lr, config.weight_decay)
    compute_loss = _loss(len(dataset.class_names), teacher, distillation, connect(config))

    def step() -> None:
        compute_loss(network(batch.images), batch).total.backward()
        if config.grad_clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), config.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
        ema.update(1000)

    return step


def _loss(
    num_classes: int, teacher: nn.Module | None, distillation: DistillConfig | None, fabric: "Fabric"
) -> Callable[[RawPredictions, Batch], LossParts | DistilledParts]:
    loss = DetectionLoss(num_classes)

    def alone(raw: RawPredictions, batch: Batch) -> LossParts:
        return loss(raw, batch.targets)

    return alone if teacher is None else with_teacher(alone, teacher, distillation or DistillConfig(), fabric)
