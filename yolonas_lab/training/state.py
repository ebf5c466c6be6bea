"""All that changes during a training, and how it is put into a checkpoint and taken out again. Notebook 06.

Nothing random is among it: the order of the data and its augmentation follow from the seed and the step.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from yolonas_lab.training.checkpoint import (
    BEST,
    CHECKPOINT,
    cannot_write,
    check_same_training,
    load_checkpoint,
    save_checkpoint,
)
from yolonas_lab.training.config import TrainConfig
from yolonas_lab.training.ema import WeightAverage
from yolonas_lab.training.files import write_atomically
from yolonas_lab.training.history import History


@dataclass
class TrainState:
    """A training at one moment, after `step` updates."""

    model: nn.Module  # the moving average, in eval mode
    network: nn.Module  # what is being trained
    optimizer: torch.optim.Optimizer
    average: WeightAverage  # makes `model` follow `network`
    history: History
    identity: dict[str, Any]  # the settings by which a checkpoint is known to be of this training
    step: int = 0
    total_steps: int = 0  # of the whole training


def identity(model: nn.Module, train_set: Any, config: TrainConfig, processes: int) -> dict[str, Any]:
    """Every setting that decides the weights: a checkpoint with other ones is of another training.

    config is settled. The usual order of pixels in memory goes without saying.
    """
    layout = {"channels_last": True} if config.channels_last else {}
    name = getattr(getattr(model, "config", None), "name", type(model).__name__)
    return {
        **config.decisive(),
        **layout,
        "model": f"{name} with {sum(p.numel() for p in model.parameters())} parameters",
        "classes": list(train_set.class_names),
        "training images": len(train_set),
        "processes": processes,
        **getattr(model, "identity", {}),  # what else decides this model's training
    }


def save(state: TrainState, out_dir: str | Path, image_size: int) -> None:
    """Write checkpoint.pt and, if the last evaluation was the best so far, best.safetensors.

    Raises OSError, with the previous files intact, where that is impossible.
    """
    folder = Path(out_dir)
    history = state.history
    if history.evaluations and history.evaluations[-1]["step"] == state.step and history.last_ap == history.best_ap:
        save_weights(folder / BEST, state.model, {"step": state.step, "ap": history.last_ap, "image_size": image_size})
    content = {
        "step": state.step,
        "net": state.network.state_dict(),
        "ema_net": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "history": history.to_dict(),
        "identity": state.identity,
        "class_names": state.identity["classes"],
        "image_size": image_size,
    }
    save_checkpoint(folder / CHECKPOINT, content)


def save_weights(path: Path, model: nn.Module, about: dict[str, Any]) -> None:
    """Write the weights alone, as safetensors with `about` and the class names as metadata; atomic."""
    from safetensors.torch import save as to_bytes

    text = json.dumps({**about, "class_names": getattr(model, "class_names", None)})
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    content = to_bytes(tensors, {"about": text})  # one entry: safetensors writes several in random order
    try:
        write_atomically(path, lambda file: file.write(content))
    except OSError as error:
        raise cannot_write(path, error, "the last good checkpoint is intact") from error


def restore(state: TrainState, out_dir: str | Path) -> None:
    """Go to where the checkpoint in out_dir was written, if there is one; makes the folder if there is none.

    Raises ValueError for a checkpoint of another training, naming the difference, or one that cannot be read.
    """
    path = Path(out_dir) / CHECKPOINT
    if not path.is_file():
        _make_folder(path.parent)
        return
    content = load_checkpoint(path)
    check_same_training(path, content["identity"], state.identity)
    state.network.load_state_dict(content["net"])
    state.model.load_state_dict(content["ema_net"])
    state.optimizer.load_state_dict(content["optimizer"])
    state.history.steps[:] = content["history"]["steps"]
    state.history.evaluations[:] = content["history"]["evaluations"]
    state.history.seconds = content["history"]["seconds"]
    state.step = content["step"]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise ValueError(f"out_dir {folder} is a file: give a folder.") from error
    except OSError as error:
        raise cannot_write(folder, error, "nothing was started") from error
