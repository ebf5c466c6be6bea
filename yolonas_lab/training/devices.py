"""Where a training runs: one device, or under torchrun one of several processes that share the work. Notebook 06.

Lightning Fabric picks the device and averages gradients (Li et al., "PyTorch Distributed", arXiv 2006.15704).
"""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from yolonas_lab.training.config import TrainConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# On a processor channels_last saves a tenth to a quarter of a step and sums BatchNorm's statistics less exactly. Lab
# models on small images go without: what it saves there is not worth other bits.
CHANNELS_LAST_FROM = 256  # px
WIDE = 5_000_000  # parameters


def resolve_device(config: TrainConfig, model: nn.Module) -> TrainConfig:
    """The config with precision and channels_last decided for this machine and model; ValueError for an accelerator
    that this machine does not have.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    device = config.accelerator if config.accelerator != "auto" else next(name for name in there if there[name])
    if not there[device]:
        lacks = "which this machine or this build of torch does not have"
        raise ValueError(f"accelerator is {device!r}, {lacks}: give 'cpu' or 'auto'.")
    precision = config.precision
    if precision == "auto":
        has_bf16 = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16" if has_bf16 else "32"
    channels_last = config.channels_last
    if channels_last is None:
        much = config.image_size >= CHANNELS_LAST_FROM and sum(p.numel() for p in model.parameters()) >= WIDE
        tensor_cores = device == "cuda" and precision == "bf16"  # they compute in this layout
        channels_last = tensor_cores or (device == "cpu" and much)
    return replace(config, precision=precision, channels_last=channels_last)


def make_fabric(config: TrainConfig) -> "Fabric":
    """Fabric for this process: DistributedDataParallel where torchrun started it, a single device elsewhere."""
    from lightning_fabric import Fabric

    under_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    local, world = (int(os.environ[n]) if under_torchrun else 1 for n in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    fabric = Fabric(
        accelerator=config.accelerator,
        devices=local,
        num_nodes=world // local,
        strategy="ddp" if world > 1 else "auto",
        precision="bf16-mixed" if config.precision == "bf16" else "32-true",
    )
    fabric.launch()
    return fabric


def shared_normalizer(fabric: "Fabric") -> Callable[[Tensor], Tensor] | None:
    """With several processes, what to divide this one's sum of losses by, given its quality.

    The average of n processes' gradients is 1/n Σ gradient(sum_i / divisor), and should be that of the whole batch, Σ
    gradient(sum_i) / Σ quality_i. Dividing each by its own quality would count objects in poor batches more.
    """

    def share(total_quality: Tensor) -> Tensor:
        return torch.as_tensor(fabric.all_reduce(total_quality, reduce_op="sum")).clamp(min=1) / fabric.world_size

    return share if fabric.world_size > 1 else None
