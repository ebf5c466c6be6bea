"""What a training leaves to the machine it runs on: the number format and the order of the pixels in memory.

Notebook 06. Both change the last bits of the weights, so a checkpoint remembers what was decided.
"""

from dataclasses import replace

import torch
from torch import nn

from yolonas_lab.training.config import TrainConfig

# On a processor channels_last saves a tenth to a quarter of a step and sums BatchNorm's statistics less exactly. Lab
# models on small images go without: what it saves there is not worth other bits.
CHANNELS_LAST_FROM = 256  # px
WIDE = 5_000_000  # parameters


def settle(config: TrainConfig, model: nn.Module) -> TrainConfig:
    """The config with precision and channels_last decided for this machine and model.

    Raises ValueError for an accelerator that this machine does not have, and for bf16 on a GPU that does not have it.
    """
    device = device_type(config.accelerator)
    has_bf16 = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if has_bf16 else "32"
    if precision == "bf16" and device == "cuda" and not has_bf16:
        raise ValueError(f"{torch.cuda.get_device_name()} has no bfloat16: give precision='32' or 'auto'.")
    channels_last = config.channels_last
    if channels_last is None:
        channels_last = _channels_last_is_faster(device, precision, config.image_size, model)
    return replace(config, precision=precision, channels_last=channels_last)


def device_type(accelerator: str) -> str:
    """'cpu', 'cuda' or 'mps' for the name of one of them or 'auto'; ValueError for one that is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if accelerator == "auto":
        return next(name for name, available in there.items() if available)
    if not there[accelerator]:
        raise ValueError(
            f"accelerator is {accelerator!r}, which this machine or this build of torch does not have: give 'cpu' or "
            f"'auto'."
        )
    return accelerator


def _channels_last_is_faster(device: str, precision: str, image_size: int, model: nn.Module) -> bool:
    """True on a GPU with autocast, whose tensor cores want it, and on a processor where there is much to compute."""
    if device == "cpu":
        return image_size >= CHANNELS_LAST_FROM and sum(p.numel() for p in model.parameters()) >= WIDE
    return device == "cuda" and precision == "bf16"
