"""Checkpoints: everything that a training needs to go on as if it had never stopped. Notebook 06.

The weights being trained ("net") and their average ("ema_net") are kept apart: going on from the average would be
another training. `models.get(name, checkpoint_path=…)` reads the average.
"""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from yolonas_lab.training.files import write_atomically

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
