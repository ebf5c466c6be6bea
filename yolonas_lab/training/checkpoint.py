"""Checkpoints: everything that a training needs to go on as if it had never stopped. Notebook 06.

The weights being trained ("net") and their average ("ema_net") are kept apart: going on from the average would be
another training. `models.get(name, checkpoint_path=…)` reads the average. Nothing random is in a checkpoint: the order
of the data and its augmentation follow from the seed and the step.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from yolonas_lab.common import changes, weights_digest, write_atomically, write_bytes
from yolonas_lab.losses.distillation import DistillConfig
from yolonas_lab.training.config import TrainConfig
from yolonas_lab.training.history import History
from yolonas_lab.training.optim import WeightAverage

CHECKPOINT = "checkpoint.pt"
FORMAT = 1


@dataclass
class TrainState:
    """A training at one moment, after `step` updates."""

    model: nn.Module  # the moving average, in eval mode
    network: nn.Module  # what is being trained
    optimizer: torch.optim.Optimizer
    average: WeightAverage  # makes `model` follow `network`
    history: History
    fingerprint: dict[str, Any]  # the settings by which a checkpoint is known to be of this training
    step: int = 0
    total_steps: int = 0  # of the whole training


def fingerprint_of(
    model: nn.Module,
    train_set: Any,
    config: TrainConfig,
    processes: int,
    teacher: nn.Module | None = None,
    distillation: DistillConfig | None = None,
) -> dict[str, Any]:
    """Every setting that decides the weights, config resolved: a checkpoint with other ones is of another training.

    What was not always a setting (memory layout, teacher) is named only where it is used: old checkpoints stay valid.
    """
    settings = {
        **config.decisive(),
        "model": f"{_name(model)} with {sum(p.numel() for p in model.parameters())} parameters",
        "classes": list(train_set.class_names),
        "training images": len(train_set),
        "processes": processes,
        **getattr(model, "fingerprint", {}),  # what else decides this model's training
    }
    if config.channels_last:
        settings["channels_last"] = True
    if teacher is not None:
        settings["teacher"] = f"{_name(teacher)} {weights_digest(teacher)[:16]}"
        settings["distillation"] = (distillation or DistillConfig()).decisive()
    return settings


def _name(model: nn.Module) -> str:
    return getattr(getattr(model, "config", None), "name", type(model).__name__)


def save(state: TrainState, out_dir: str | Path, image_size: int) -> None:
    """Write checkpoint.pt and, if the last evaluation was the best so far, best.safetensors.

    Raises OSError, with the previous files intact, where that is impossible.
    """
    path, history = Path(out_dir) / CHECKPOINT, state.history
    if history.evaluations and history.evaluations[-1]["step"] == state.step and history.last_ap == history.best_ap:
        about = {"step": state.step, "ap": history.last_ap, "image_size": image_size}
        save_weights(path.with_name("best.safetensors"), state.model, about)
    content = {
        "format": FORMAT,
        "step": state.step,
        "net": state.network.state_dict(),
        "ema_net": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "history": vars(history),
        "identity": state.fingerprint,
        "class_names": state.fingerprint["classes"],
        "image_size": image_size,
    }
    with _writing(path):
        write_atomically(path, lambda file: torch.save(content, file))


def save_weights(path: Path, model: nn.Module, about: dict[str, Any]) -> None:
    """Write the weights alone, as safetensors with `about` and the class names as metadata; atomic."""
    from safetensors.torch import save as to_bytes

    text = json.dumps({**about, "class_names": getattr(model, "class_names", None)})
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with _writing(path):  # one entry of metadata: safetensors writes several in random order
        write_bytes(path, to_bytes(tensors, {"about": text}))


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Inside, a failed write becomes an OSError with the path, the reason and what to do."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch turns some failed writes into a RuntimeError
        reason = getattr(error, "strerror", error)
        raise OSError(f"{path} could not be written ({reason}): make room, then run again to go on.") from error


def restore(state: TrainState, out_dir: str | Path) -> None:
    """Go to where the checkpoint in out_dir was written, if there is one; makes the folder if there is none.

    Raises ValueError for a checkpoint of another training, naming the difference, or one that cannot be read.
    """
    path = Path(out_dir) / CHECKPOINT
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        return
    content = load_checkpoint(path)
    if found := changes(content["identity"], state.fingerprint):
        raise ValueError(f"{path} is of another training, which differs in {found}: delete it or give another out_dir.")
    state.network.load_state_dict(content["net"])
    state.model.load_state_dict(content["ema_net"])
    state.optimizer.load_state_dict(content["optimizer"])
    state.history = History(**content["history"])
    state.step = content["step"]


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without running any code in it. Raises ValueError for a file that is none."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch takes anything else than its archives for an old pickle, and stumbles anywhere
        content = None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path} is not a readable checkpoint of this version: delete it or give another out_dir.")
    return content
