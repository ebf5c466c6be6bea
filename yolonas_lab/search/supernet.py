"""One training for a whole space: the largest network and parts of it, drawn anew in each step, share their weights.

Notebook 09. A supernet is a YoloNAS, the largest network of its space; a smaller one is its first channels and first
bottlenecks. Yu and Huang, "Universally Slimmable Networks", arXiv 1903.05134; Cai et al., "Once-for-All", arXiv
1908.09791, section 3; Yu et al., "BigNAS", arXiv 2003.11142.
"""

import copy
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from yolonas_lab.common import fingerprint
from yolonas_lab.data.coco import Batch
from yolonas_lab.data.loader import Loader
from yolonas_lab.evaluate import evaluate
from yolonas_lab.latency import CONVOLUTIONS, network_layers
from yolonas_lab.losses import DetectionLoss
from yolonas_lab.losses.distillation import DistillConfig, distillation_losses
from yolonas_lab.models.checkpoint import load_into, read_checkpoint
from yolonas_lab.models.configs import YOLO_NAS_NANO, YoloNASConfig
from yolonas_lab.models.get import WEIGHTS_DIR
from yolonas_lab.models.reparameterize import reparameterize
from yolonas_lab.models.yolo_nas import STRIDES, RawPredictions, YoloNAS
from yolonas_lab.search.space import LAB_SPACE, Space, choices_of, largest, sample, smallest, with_blocks_of
from yolonas_lab.training.checkpoint import TrainState
from yolonas_lab.training.config import TrainConfig
from yolonas_lab.training.fit import Hooks, fit
from yolonas_lab.training.history import History

Channels = dict[str, int]  # pieces of a map by name, in order, with their numbers of channels
Unit = tuple[Channels, Channels]  # one block of a network: the map that it writes and the one that it reads


def slice_state_dict(tensors: Mapping[str, Tensor], largest: YoloNASConfig, config: YoloNASConfig) -> dict[str, Tensor]:
    """The tensors of the network `config` by name, cut out of those of the network `largest` with shared weights.

    Of a concatenated map each piece keeps the columns that it has in the largest network. What is in one piece is a
    view; gradients reach the shared weights. Both a state dict and named parameters can be cut. Raises ValueError where
    config is no part of the largest network.
    """
    _check_part(largest, config)
    there, here = units_of(largest), units_of(config)
    cut = {}
    for name, tensor in tensors.items():
        unit = name
        while unit and unit not in here:
            unit = unit.rpartition(".")[0]
        if unit:  # bottlenecks that the smaller network lacks belong to none
            cut[name] = _cut(tensor, there[unit], here[unit])
    return cut


def _cut(tensor: Tensor, there: Unit, here: Unit) -> Tensor:
    """The first channels of each piece: rows (what is written) and columns (what is read) of a kernel or a vector."""
    for dim, (whole, part) in enumerate(zip(there, here)):
        if dim < tensor.ndim and whole != part:
            starts = dict(zip(whole, itertools.accumulate(whole.values(), initial=0)))
            parts = [tensor.narrow(dim, starts[piece], count) for piece, count in part.items()]
            tensor = parts[0] if len(parts) == 1 else torch.cat(parts, dim)
    return tensor


def _check_part(largest: YoloNASConfig, config: YoloNASConfig) -> None:
    most, own = ({"spp_kernels": c.spp_kernels, "reg_max": c.reg_max} | choices_of(c) for c in (largest, config))
    for decision, value in own.items():
        same = decision.endswith(("spp_kernels", "reg_max", "block"))  # of the others a part has less
        if value != most[decision] if same else value > most[decision]:
            limit = f"{most[decision]} there" if same else f"at most {most[decision]} there"
            raise ValueError(f"{config.name} is no part of {largest.name}: {decision} is {value}, and {limit}.")


def units_of(config: YoloNASConfig) -> dict[str, Unit]:
    """The blocks of a network by the names of their modules."""
    units: dict[str, Unit] = {}
    for name, layer in network_layers(config, STRIDES[-1]).items():
        if layer.kind in CONVOLUTIONS:
            units[name.removesuffix(".conv")] = {"map": layer.out_channels}, {"map": layer.in_channels}
        elif layer.kind == "add":
            units[f"{name}.alpha"] = {}, {}  # one number
    for name, pieces in _joined_maps(config).items():
        units[name] = units[name][0], pieces
    return units


def _joined_maps(config: YoloNASConfig) -> dict[str, Channels]:
    """The pieces of every concatenated map, by the name of the block that reads it."""
    half = config.backbone[-1].out_channels // 2
    maps = {"backbone.spp.conv2": {"map": half} | {f"maxima over {kernel}": half for kernel in config.spp_kernels}}
    up1, up2, down1, down2 = config.neck
    for name, stage in (("up1", up1), ("up2", up2)):
        maps[f"neck.{name}.reduce_concat"] = dict.fromkeys(("coarse", "skip", "fine skip"), stage.out_channels)
    for name, stage, up in (("down1", down1, up2), ("down2", down2, up1)):
        pieces = {"fine": stage.out_channels // 2, "skip": up.out_channels}
        maps |= {f"neck.{name}.csp.{conv}": pieces for conv in ("conv1", "conv2")}
    places = [*(f"backbone.stages.{i}" for i in range(4)), *(f"neck.{n}" for n in ("up1", "up2", "down1", "down2"))]
    for place, stage in zip(places, (*config.backbone, *config.neck), strict=True):
        steps = [f"after {count} bottlenecks" for count in range(stage.blocks + 1)]
        kept = steps if stage.concat else steps[-1:]
        maps[f"{place}.csp.conv3"] = dict.fromkeys([*kept, "around"], stage.hidden_channels)
    return maps


SUPERNET_SPACE = with_blocks_of(LAB_SPACE, YOLO_NAS_NANO)  # the networks that the shipped supernet holds
SUPERNET_WEIGHTS = WEIGHTS_DIR / "supernet_scenes.safetensors"
RANDOM_NETWORKS = 2  # in each step, beside the largest and the smallest


def load_supernet(path: str | Path = SUPERNET_WEIGHTS, space: Space = SUPERNET_SPACE) -> YoloNAS:
    """The supernet of a space from a weights file, in eval mode; by default the shipped one, trained on scenes. Raises
    FileNotFoundError, and ValueError for weights of another network than the largest of this space.
    """
    tensors, where, about = read_checkpoint(path)
    class_bias = tensors.get("heads.levels.0.class_pred.bias", [0])  # without it, load_into says what else is missing
    supernet = YoloNAS(largest(space), len(class_bias), about.get("class_names"))
    supernet.image_size = about.get("image_size", supernet.image_size)
    load_into(supernet, tensors, where)
    return supernet.eval()


def subnetwork(supernet: YoloNAS, config: YoloNASConfig) -> YoloNAS:
    """A network with a copy of the supernet's weights, in eval mode. Its BatchNorm statistics are its own only after
    `reestimate_batch_norm`. Raises ValueError where config is no part of the supernet.
    """
    tensors = slice_state_dict(supernet.state_dict(), supernet.config, config)
    network = YoloNAS(config, supernet.num_classes, supernet.class_names)
    network.load_state_dict(tensors)
    network.image_size = supernet.image_size
    return network.eval()


def forward_as(supernet: YoloNAS, config: YoloNASConfig, images: Tensor) -> RawPredictions:
    """What the network `config` predicts with the supernet's own weights: gradients reach these, nothing is copied.
    BatchNorm takes the statistics of these images (b, 3, h, w) and keeps none, in train and eval mode alike.
    """
    weights = slice_state_dict(dict(supernet.named_parameters()), supernet.config, config)
    return functional_call(_shell(supernet, config), weights, (images,))


class SandwichParts(NamedTuple):
    """The mean of a step's losses, that of the largest and the smallest network, and the mean of the random ones."""

    total: Tensor
    largest: Tensor
    smallest: Tensor
    random: Tensor


class SandwichLoss:
    """The loss of a supernet's step: largest, smallest and random networks on one batch.

    All learn from the boxes, and the smaller ones from the largest too, which is their teacher while it learns itself.
    Which random networks a step takes follows from the seed and the step alone. `start` is for `fit`'s hook on_start.
    """

    state: TrainState

    def __init__(self, space: Space, num_classes: int, seed: int = 0):
        self.space, self.seed = space, seed
        self.smallest = smallest(space)
        self.distillation = DistillConfig()
        self.detection = DetectionLoss(num_classes)

    def start(self, state: TrainState) -> None:
        """Remember whose weights are trained, and at which step the training is."""
        self.state = state

    def networks(self, step: int) -> list[YoloNASConfig]:
        """The random networks of a step."""
        rng = np.random.default_rng([self.seed, step])
        return [sample(self.space, rng) for _ in range(RANDOM_NETWORKS)]

    def __call__(self, raw: RawPredictions, batch: Batch) -> SandwichParts:
        largest_loss = self.detection(raw, batch.targets).total
        smaller = [self.smallest, *self.networks(self.state.step)]
        losses = torch.stack([self._loss_of(config, raw, batch) for config in smaller])
        total = (largest_loss + losses.sum()) / (1 + len(smaller))
        return SandwichParts(total, largest_loss, losses[0], losses[1:].mean())

    def _loss_of(self, config: YoloNASConfig, teacher: RawPredictions, batch: Batch) -> Tensor:
        raw = forward_as(self.state.network, config, batch.images)  # type: ignore[arg-type]
        return self.detection(raw, batch.targets).total + sum(distillation_losses(raw, teacher, self.distillation))


def train_supernet(
    supernet: YoloNAS, space: Space, train_set: Any, val_set: Any | None, config: TrainConfig
) -> History:
    """Train the largest network of a space, whose AP the history has, so that every part of it is a detector. Goes on
    where it was stopped. Raises ValueError for a supernet that is not the largest of the space, and as `fit`.
    """
    if supernet.config != largest(space):
        raise ValueError(f"{supernet.config.name} is not the largest network of {space.name}: make largest(space).")
    loss = SandwichLoss(space, supernet.num_classes, config.seed)
    supernet.fingerprint = {  # type: ignore[assignment]  (what a checkpoint must agree with, beside the config)
        "space": fingerprint(space.decisions, 16),
        "random networks": RANDOM_NETWORKS,
        **{f"distillation.{name}": value for name, value in loss.distillation.decisive().items()},
    }
    return fit(supernet, train_set, val_set, config, Hooks(compute_loss=loss, on_start=loss.start))


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


LEAST_CONFIDENCE = 0.05  # fainter boxes hardly move AP (1e-4 in the lab), but counting them takes half of the time


def score(supernet: YoloNAS, config: YoloNASConfig, calibration: Sequence[Tensor], val_set: Any) -> float:
    """AP in [0, 1] on val_set of the network `config` with the supernet's weights, in about a second, untrained.

    calibration: batches of images (b, 3, h, w) for BatchNorm, as `calibration_batches` makes them. Boxes of a
    confidence below 0.05 are left out. Raises ValueError where config is no part of the supernet, and as `evaluate`.
    """
    network = subnetwork(supernet, config)
    reestimate_batch_norm(network, calibration)
    return evaluate(reparameterize(network), val_set, conf=LEAST_CONFIDENCE, progress=False).ap


def reestimate_batch_norm(network: nn.Module, batches: Sequence[Tensor]) -> None:
    """Replace the running statistics of a network by the mean of those of these batches (b, 3, h, w), each weighted
    alike; the network is in eval mode then. A supernet's statistics belong to no part of it (Yu and Huang, section 3).
    """
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # PyTorch's word for the plain mean over all batches
    network.train()
    with torch.no_grad():
        for images in batches:
            network(images)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    network.eval()


def calibration_batches(
    dataset: Any, image_size: int, batches: int = 4, batch_size: int = 32, seed: int = 0
) -> list[Tensor]:
    """Batches of images (b, 3, s, s), chosen by the seed and not augmented. Raises ValueError for a small data set."""
    loader = Loader(dataset, batch_size, image_size, seed=seed)
    if not 1 <= batches <= len(loader):
        raise ValueError(f"batches is {batches}: the data set has 1 to {len(loader)} of {batch_size} images.")
    return [batch.images for batch, _ in zip(loader.batches(0), range(batches))]
