"""One training for a whole space: the largest network and parts of it, drawn anew in each step, share their weights.

Notebook 09. Sandwich rule and in-place distillation: Yu and Huang, "Universally Slimmable Networks", arXiv 1903.05134,
section 3; Yu et al., "BigNAS", arXiv 2003.11142. A supernet is a YoloNAS: the largest network of its space.
"""

import copy
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from yolonas_lab.data.targets import Batch
from yolonas_lab.losses import DetectionLoss
from yolonas_lab.losses.distillation import DistillConfig, distillation_losses
from yolonas_lab.models.checkpoint import load_into, read_about, read_state_dict
from yolonas_lab.models.configs import YOLO_NAS_NANO, YoloNASConfig
from yolonas_lab.models.get import WEIGHTS_DIR
from yolonas_lab.models.heads import RawPredictions
from yolonas_lab.models.yolo_nas import YoloNAS
from yolonas_lab.search.slices import slice_state_dict
from yolonas_lab.search.space import Space, largest, sample, smallest, with_blocks_of
from yolonas_lab.search.spaces import LAB_SPACE
from yolonas_lab.training.config import TrainConfig
from yolonas_lab.training.fit import fit
from yolonas_lab.training.history import History
from yolonas_lab.training.state import TrainState

SUPERNET_SPACE = with_blocks_of(LAB_SPACE, YOLO_NAS_NANO)  # the networks that the shipped supernet holds
SUPERNET_WEIGHTS = WEIGHTS_DIR / "supernet_scenes.safetensors"
RANDOM_NETWORKS = 2  # in each step, beside the largest and the smallest


def load_supernet(path: str | Path = SUPERNET_WEIGHTS, space: Space = SUPERNET_SPACE) -> YoloNAS:
    """The supernet of a space from a weights file, in eval mode; by default the shipped one, trained on scenes.

    Raises FileNotFoundError, and ValueError for weights of another network than the largest of this space.
    """
    tensors, where = read_state_dict(path)
    about = read_about(path)
    class_bias = tensors.get("heads.levels.0.class_pred.bias")
    if class_bias is None:
        raise ValueError(f"{where} is no supernet (it has no 'heads.levels.0.class_pred.bias'); check the file.")
    supernet = YoloNAS(largest(space), len(class_bias), about.get("class_names"))
    supernet.image_size = about.get("image_size", supernet.image_size)
    load_into(supernet, tensors, where)
    return supernet.eval()


def subnetwork(supernet: YoloNAS, config: YoloNASConfig) -> YoloNAS:
    """A network with a copy of the supernet's weights, in eval mode. Its BatchNorm statistics are not its own yet.

    `scoring.reestimate_batch_norm` makes them so. Raises ValueError where config is no part of the supernet.
    """
    tensors = slice_state_dict(supernet.state_dict(), supernet.config, config)
    network = YoloNAS(config, supernet.num_classes, supernet.class_names)
    network.load_state_dict(tensors)
    network.image_size = supernet.image_size
    return network.eval()


def forward_as(supernet: YoloNAS, config: YoloNASConfig, images: Tensor) -> RawPredictions:
    """What the network `config` predicts with the supernet's own weights: gradients reach these, nothing is copied.

    BatchNorm takes the statistics of these images (b, 3, h, w) and keeps none, in train and eval mode alike. Raises
    ValueError where config is no part of the supernet.
    """
    weights = slice_state_dict(dict(supernet.named_parameters()), supernet.config, config)
    return functional_call(_shell(supernet, config), weights, (images,))


class SandwichParts(NamedTuple):
    """The mean of the losses of all networks of a step, and these losses: of the largest and the smallest network, and
    the mean of the random ones. Scalars.
    """

    total: Tensor
    largest: Tensor
    smallest: Tensor
    random: Tensor


class SandwichLoss:
    """The loss of a supernet's step: largest, smallest and random networks on one batch.

    All learn from the boxes, and the smaller ones from the largest too, which is their teacher while it learns itself.
    Which random networks a step takes follows from the seed and the step alone. Give `fit` its `start` as on_start.
    """

    def __init__(self, space: Space, num_classes: int, seed: int = 0, distillation: DistillConfig | None = None):
        self.space, self.seed = space, seed
        self.smallest = smallest(space)
        self.distillation = distillation or DistillConfig()
        self.detection = DetectionLoss(num_classes)
        self.state: TrainState | None = None

    def start(self, state: TrainState) -> None:
        """Remember whose weights are trained, and at which step the training is."""
        self.state = state

    def networks(self, step: int) -> list[YoloNASConfig]:
        """The random networks of a step."""
        rng = np.random.default_rng([self.seed, step])
        return [sample(self.space, rng) for _ in range(RANDOM_NETWORKS)]

    def __call__(self, raw: RawPredictions, batch: Batch) -> SandwichParts:
        assert self.state is not None, "fit calls `start` before the first step"
        largest_loss = self.detection(raw, batch.targets).total
        smaller = [self.smallest, *self.networks(self.state.step)]
        losses = torch.stack([self._loss_of(config, raw, batch) for config in smaller])
        total = (largest_loss + losses.sum()) / (1 + len(smaller))
        return SandwichParts(total, largest_loss, losses[0], losses[1:].mean())

    def _loss_of(self, config: YoloNASConfig, teacher: RawPredictions, batch: Batch) -> Tensor:
        assert self.state is not None
        raw = forward_as(self.state.network, config, batch.images)  # type: ignore[arg-type]
        return self.detection(raw, batch.targets).total + sum(distillation_losses(raw, teacher, self.distillation))


def train_supernet(
    supernet: YoloNAS, space: Space, train_set: Any, val_set: Any | None, config: TrainConfig
) -> History:
    """Train the largest network of a space so that every part of it is a detector; on_start and AP are as in `fit`.

    The AP of the history is that of the largest. A training that was stopped goes on where it was, as in `fit`. Raises
    ValueError for a supernet that is not the largest network of the space, and as `fit`.
    """
    if supernet.config != largest(space):
        raise ValueError(
            f"{supernet.config.name} is not the largest network of {space.name}: make it with "
            f"YoloNAS(largest(space), num_classes)."
        )
    loss = SandwichLoss(space, supernet.num_classes, config.seed)
    supernet.identity = {  # type: ignore[assignment]  (what a checkpoint must agree with, beside the config)
        "space": _digest(space),
        "random networks": RANDOM_NETWORKS,
        **{f"distillation.{name}": value for name, value in asdict(loss.distillation).items()},
    }
    return fit(supernet, train_set, val_set, config, compute_loss=loss, on_start=loss.start)


def _shell(supernet: YoloNAS, config: YoloNASConfig) -> YoloNAS:
    """The supernet's modules, not copied but put together as in the network `config`."""
    shell = _same_layers(supernet)
    stages = [*shell.backbone.stages, shell.neck.up1, shell.neck.up2, shell.neck.down1, shell.neck.down2]
    for stage, chosen in zip(stages, [*config.backbone, *config.neck], strict=True):
        csp = stage.csp
        csp.bottlenecks, csp.concat = csp.bottlenecks[: chosen.blocks], chosen.concat  # type: ignore[index]
    return shell


def _same_layers(module: Any) -> Any:
    """A module with the same parameters, whose children can be exchanged without touching the original's.

    It costs a tenth of what building a network does. BatchNorm neither reads nor writes running statistics in it.
    """
    twin = copy.copy(module)
    twin._modules = {name: child if child is None else _same_layers(child) for name, child in module._modules.items()}
    if isinstance(twin, _BatchNorm):
        twin.training, twin.track_running_stats = True, False
    return twin


def _digest(space: Space) -> str:
    return hashlib.sha256(json.dumps(space.decisions, sort_keys=True).encode()).hexdigest()[:16]
