"""Reading weights safely: from a file or a dict, into a model, with a report of what was loaded and what was not.

Notebook 04 uses it. Files are opened with `weights_only=True` (PyTorch) or as safetensors, so that a pickle cannot
run code.
"""

import contextlib
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

CLASS_LAYERS = ".class_pred."
# Part of the network -> how its tensors' names begin; what a transfer to other classes keeps is all but the last.
PARTS = {
    "backbone": r"backbone\.",
    "neck": r"neck\.",
    "head stems": r"heads\.levels\.\d+\.stem\.",
    "box branch": r"heads\.levels\.\d+\.box_",
    "class branch": r"heads\.levels\.\d+\.class_conv\.",
    "class layers": r"heads\.levels\.\d+\.class_pred\.",
}


@dataclass(frozen=True)
class LoadReport:
    """Which tensors came from the checkpoint and which are freshly initialised; `print` counts them by part."""

    source: str
    loaded: tuple[str, ...]
    fresh: tuple[str, ...]

    def by_part(self) -> dict[str, tuple[list[str], list[str]]]:
        """The names of the loaded and of the fresh tensors of each part of the network, the parts in order."""
        parts: dict[str, tuple[list[str], list[str]]] = {part: ([], []) for part in [*PARTS, "other"]}
        for column, names in enumerate((self.loaded, self.fresh)):
            for name in names:
                part = next((part for part, beginning in PARTS.items() if re.match(beginning, name)), "other")
                parts[part][column].append(name)
        return {part: columns for part, columns in parts.items() if any(columns)}

    def __str__(self) -> str:
        lines = [f"{self.source}, tensors by part:", f"{'':<12} {'loaded':>7} {'fresh':>7}"]
        for part, (loaded, fresh) in {**self.by_part(), "together": (self.loaded, self.fresh)}.items():
            lines.append(f"{part:<12} {len(loaded):>7} {len(fresh):>7}")
        return "\n".join(lines)


class Checkpoint(NamedTuple):
    """What was read from a checkpoint."""

    tensors: dict[str, Tensor]  # by name, wrappers and prefixes removed
    where: str  # words that say where they came from
    about: dict[str, Any]  # what a file of ours says about itself: "class_names", "image_size" (px) and more


def read_checkpoint(checkpoint: str | Path | Mapping) -> Checkpoint:
    """Read a file (.pt, .pth, .safetensors) or a dict: a bare state dict, or one that holds it under "ema_net"
    (preferred) or "net"; keys may be prefixed "module." or "net.".

    Raises FileNotFoundError or ValueError naming the file and what is wrong with it.
    """
    if isinstance(checkpoint, Mapping):
        content, about, where = checkpoint, {}, "The given state dict"
    else:
        (content, about), where = _read_file(Path(checkpoint)), f"Checkpoint {checkpoint}"
    for wrapper in ("ema_net", "net", "model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not tensors:
        raise ValueError(f"{where} holds no tensors; expected a state dict, or one under 'ema_net' or 'net'.")
    for prefix in ("module.", "net.", "module."):  # DDP and EMA wrappers add these, sometimes both
        if all(k.startswith(prefix) for k in tensors):
            tensors = {k.removeprefix(prefix): v for k, v in tensors.items()}
    return Checkpoint(tensors, where, about)


def load_into(model: nn.Module, tensors: Mapping[str, Tensor], where: str, fresh_classes: bool = False) -> LoadReport:
    """Copy tensors into the model strictly: every name must match, and every shape.

    With `fresh_classes` the class prediction layers are left as they are, and a warning names them. The report is
    returned and kept as `model.load_report`. Raises ValueError naming the first missing, unknown or misshapen
    tensors; the model is then unchanged.
    """
    own = model.state_dict()
    fresh = tuple(k for k in own if CLASS_LAYERS in k) if fresh_classes else ()
    wanted = {k: v for k, v in own.items() if k not in fresh}
    given = {k: v for k, v in tensors.items() if k not in fresh}
    for k in given.keys() & wanted.keys():
        if given[k].shape == (1,) and wanted[k].ndim == 0:
            given[k] = given[k].reshape(())  # some writers store a scalar (BatchNorm's counter) so; PyTorch accepts it
    both = sorted(wanted.keys() & given.keys())
    shapes = [f"{k}: {tuple(given[k].shape)}, model {tuple(wanted[k].shape)}" for k in both]
    misshapen = [text for k, text in zip(both, shapes) if wanted[k].shape != given[k].shape]
    missing, unknown = wanted.keys() - given.keys(), given.keys() - wanted.keys()
    differing = {"missing": missing, "unknown": unknown}
    problems = [f"{len(names)} {what} ({_some(names)})" for what, names in differing.items() if names]
    problems += [f"{len(misshapen)} of another shape ({misshapen[0]})"] if misshapen else []
    if problems:
        raise ValueError(
            f"{where} does not fit this model: tensors {', '.join(problems)}; is it of another size or class count?"
        )
    broken = [k for k in wanted if given[k].is_floating_point() and not torch.isfinite(given[k]).all()]
    if broken:
        raise ValueError(f"{where} holds NaN or infinite values ({_some(broken)}); use an earlier checkpoint.")
    model.load_state_dict({**given, **{k: own[k] for k in fresh}}, strict=True)
    report = LoadReport(where, tuple(wanted), fresh)
    model.load_report = report  # type: ignore[assignment]  (YoloNAS declares it)
    if fresh:
        warnings.warn(
            f"Freshly initialised for the new classes, train them before use: {', '.join(fresh)}.", stacklevel=4
        )
    return report


def _read_file(path: Path) -> tuple[Any, dict[str, Any]]:
    """The content of a file, and what it says about itself."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"Checkpoint {path} does not exist; check the path.")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}
                return tensors, _about((file.metadata() or {}).get("about", "{}"))
        content = torch.load(path, map_location="cpu", weights_only=True)
        return content, dict(content) if isinstance(content, Mapping) else {}
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"Checkpoint {path} was refused: it is not a plain file of tensors, and unpickling anything else could "
            f"run code ({_first_line(error)}); save its state dict with torch.save or as safetensors."
        ) from error
    except (RuntimeError, EOFError, zipfile.BadZipFile, ValueError, KeyError, OSError, SafetensorError) as error:
        raise ValueError(
            f"Checkpoint {path} cannot be read ({_first_line(error)}); it may be incomplete, fetch or save it again."
        ) from error


def _about(text: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError):  # somebody else's metadata
        about = json.loads(text)
        return about if isinstance(about, dict) else {}
    return {}


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
