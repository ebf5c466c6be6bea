"""A TensorRT plan on disk: which TensorRT wrote it (its first bytes tell), and beside it a JSON with what a detector
needs: class names, preprocessing, the GPU it was built on, the precision of each convolution.

A plan itself has no room for such things, and it runs only on the version, and mostly the GPU, that it was built for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from yolonas_lab.training.files import write_atomically

# The header as NVIDIA's trtexec reads it (--getPlanVersionOnly): a tag, then the version in bytes 24 to 27.
TAGS = {b"ftrt": "tensorrt", b"vtrt": "tensorrt_rtx"}
HEADER_BYTES = 28
VERSION_AT = 24


@dataclass(frozen=True)
class PlanHeader:
    """The module that wrote a plan ("tensorrt" or "tensorrt_rtx") and its version, such as "10.13.0.35"."""

    module: str
    version: str


@dataclass(frozen=True)
class PlanCard:
    """What stands beside a plan: its size in bytes and origin, the metadata of the ONNX file, and precisions by
    convolution.
    """

    plan_bytes: int
    gpu: str  # "" for a plan that was built without one
    compute_capability: str  # such as "9.0", or ""
    metadata: dict[str, str]  # of the ONNX file
    convolutions: dict[str, str]


def card_path(plan: str | Path) -> Path:
    """Where the JSON of a plan lies: model.plan -> model.plan.json."""
    return Path(f"{plan}.json")


def write_plan(plan: Path, content: bytes, card: PlanCard) -> None:
    """Write a plan and its card, each whole or not at all; the plan last, so that it never lies there without one."""
    text = json.dumps(vars(card), indent=1, ensure_ascii=False)
    write_atomically(card_path(plan), lambda file: file.write(text.encode()))
    write_atomically(plan, lambda file: file.write(content))


def read_plan(plan: str | Path) -> tuple[bytes, PlanHeader]:
    """A plan's bytes and header. Raises ValueError for a file that is missing, no plan, or cut short."""
    path = Path(plan)
    if not path.is_file():
        raise ValueError(f"There is no plan {path}: build it with build_engine.")
    content = path.read_bytes()
    if content[:4] not in TAGS or len(content) < HEADER_BYTES:
        raise ValueError(f"{path} is not a TensorRT plan; build one from an ONNX file with build_engine.")
    version = ".".join(str(byte) for byte in content[VERSION_AT:HEADER_BYTES])
    if card_path(path).is_file() and (expected := read_card(path).plan_bytes) != len(content):
        raise ValueError(
            f"{path} is damaged: it has {len(content)} bytes, and had {expected} when it was built; "
            "copy it again, or build it again with build_engine."
        )
    return content, PlanHeader(TAGS[content[:4]], version)


def read_card(plan: str | Path) -> PlanCard:
    """The card beside a plan. Raises ValueError where it is missing or not one."""
    path = card_path(plan)
    if not path.is_file():
        raise ValueError(f"There is no {path}: copy it together with the plan, or build again with build_engine.")
    try:
        return PlanCard(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is not what build_engine writes beside a plan: build again. ({error})") from error


def check_version(plan: str | Path, header: PlanHeader, module: str, version: str) -> None:
    """Raise ValueError unless a plan with this header is meant for this module and version."""
    if header.module != module:
        raise ValueError(
            f"{plan} was built by {header.module} and cannot be loaded by {module}: "
            f"install {header.module.replace('_', '-')}, or build it again with {module}."
        )
    if header.version.split(".") != [*version.split("."), "0", "0"][:4]:
        raise ValueError(
            f"{plan} was built by {module} {header.version}, and {version} is installed: plans belong to one version; "
            "build it again from the ONNX file, or install that version."
        )


def check_gpu(plan: str | Path, card: PlanCard) -> None:
    """Raise ValueError where torch has no NVIDIA GPU, or another kind than the one that the plan was built on."""
    import torch

    if not torch.cuda.is_available():
        raise ValueError(
            f"{plan} runs only on an NVIDIA GPU that torch can use, and there is none here: `doctor` says what is; "
            "on a CPU run the ONNX file with OnnxDetector."
        )
    here = ".".join(map(str, torch.cuda.get_device_capability()))
    if card.compute_capability and card.compute_capability != here:
        raise ValueError(
            f"{plan} was built on {card.gpu} (compute capability {card.compute_capability}), and this GPU is "
            f"{torch.cuda.get_device_name()} ({here}): build it again on this machine."
        )
