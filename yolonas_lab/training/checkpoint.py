"""Checkpoints: everything that a training needs to go on as if it had never stopped. Notebook 06.

The weights being trained ("net") and their average ("ema_net") are kept apart: going on from the average would be
another training. `models.get(name, checkpoint_path=…)` reads the average.
"""

import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from yolonas_lab.common import write_atomically
from yolonas_lab.training.config import TrainConfig
from yolonas_lab.training.history import History
from yolonas_lab.training.optim import WeightAverage

CHECKPOINT, BEST, LOG = "checkpoint.pt", "best.safetensors", "log.jsonl"
FORMAT = 1


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically; `content` holds tensors, numbers, strings, lists and dicts.

    Raises OSError saying that the last good checkpoint is intact, where the disk is full or cannot be written.
    """
    try:
        write_atomically(path, lambda file: torch.save({"format": FORMAT, **content}, file))
    except (OSError, RuntimeError) as error:  # torch turns some failed writes into a RuntimeError
        raise cannot_write(path, error, "the last good checkpoint is intact") from error


def cannot_write(path: Path, error: Exception, consequence: str) -> OSError:
    """The error to raise where a file of a training could not be written."""
    reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
    answer = OSError(f"{path} could not be written ({reason}): make room, then run again to go on; {consequence}.")
    answer.errno = getattr(error, "errno", None)
    return answer


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without running any code in it. Raises ValueError for a file that is none."""
    unreadable = f"{path} is not a readable checkpoint: delete it to start anew, or give another out_dir."
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):  # torch would take it for a pickle of old, and stumble anywhere
            raise ValueError(unreadable)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(unreadable) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(
            f"{path} is not a checkpoint of this version: delete it to start anew, or give another out_dir."
        )
    return content


def check_same_training(path: Path, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise ValueError naming each setting in which the training of a checkpoint differs from the one asked for."""
    names = [name for name in {**wanted, **saved} if saved.get(name) != wanted.get(name)]
    if names:
        changes = ", ".join(
            f"{name} ({_short(saved.get(name))} there, {_short(wanted.get(name))} now)" for name in names
        )
        raise ValueError(
            f"{path} is of another training, which differs in {changes}: go on with its settings, give another "
            f"out_dir, or delete it to start anew."
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


# All that changes during a training, and how it is put into a checkpoint and taken out again. Notebook 06.
#
# Nothing random is among it: the order of the data and its augmentation follow from the seed and the step.


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
