"""One door to every model: by name, with no weights, a checkpoint's, or Deci's COCO weights. Notebooks 00 and 04 use
it.
"""

import hashlib
import os
import urllib.error
from dataclasses import dataclass
from pathlib import Path

import torch

from yolonas_lab.common import unknown_name
from yolonas_lab.models.checkpoint import load_into, read_about, read_state_dict
from yolonas_lab.models.configs import CONFIGS
from yolonas_lab.models.official import is_official_layout, load_official
from yolonas_lab.models.yolo_nas import YoloNAS

# Fetching Deci's COCO weights on request: licence first, then a download with progress, checked before it is used.
#
# The weights are Deci's, under a non-commercial licence (super-gradients `LICENSE.YOLONAS.md`); this project neither
# ships nor mirrors them.

LICENSE_NAME = (
    "YOLO-NAS licence of Deci.AI (non-commercial use only; LICENSE.YOLONAS.md in the super-gradients repository)"
)
ACCEPT_VARIABLE = "YOLONAS_LAB_ACCEPT_LICENSE"


@dataclass(frozen=True)
class RemoteWeights:
    """Where a weights file lies, and its SHA-256 (hex) and size in bytes where they are known."""

    url: str
    sha256: str | None = None
    num_bytes: int | None = None


# The publisher gives no digests: fetch() prints nothing of its own, but checksum mismatches are caught wherever one
# is filled in.
COCO_WEIGHTS = {
    "yolo_nas_s": RemoteWeights("https://sg-hub-nv.s3.amazonaws.com/models/yolo_nas_s_coco.pth"),
    "yolo_nas_m": RemoteWeights("https://sg-hub-nv.s3.amazonaws.com/models/yolo_nas_m_coco.pth"),
    "yolo_nas_l": RemoteWeights("https://sg-hub-nv.s3.amazonaws.com/models/yolo_nas_l_coco.pth"),
}


def fetch_coco_weights(name: str, accept_license: bool = False, weights: RemoteWeights | None = None) -> Path:
    """Path of Deci's COCO weights for this size, fetched into torch's hub cache if they are not there yet.

    Raises PermissionError until the licence is accepted (argument, or environment variable
    YOLONAS_LAB_ACCEPT_LICENSE=1), ValueError for a size without official weights or a file that fails its check,
    ConnectionError when it cannot be fetched.
    """
    if name not in COCO_WEIGHTS:
        raise ValueError(f"'{name}' has no COCO weights; they exist for {', '.join(COCO_WEIGHTS)}.")
    remote = weights or COCO_WEIGHTS[name]
    if not (accept_license or os.environ.get(ACCEPT_VARIABLE) == "1"):
        raise PermissionError(
            f"The COCO weights of {name} are under the {LICENSE_NAME}; "
            f"if you accept it, pass accept_license=True or set {ACCEPT_VARIABLE}=1."
        )
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(remote.url).name
    if not path.is_file():
        _download(remote, path)
    check_file(path, remote)
    return path


def check_file(path: Path, remote: RemoteWeights) -> None:
    """Raise ValueError unless the file has the size and SHA-256 that are known for it."""
    size = path.stat().st_size
    if size == 0 or (remote.num_bytes is not None and size != remote.num_bytes):
        expected = "more" if remote.num_bytes is None else f"{remote.num_bytes:,}"
        raise ValueError(f"{path} has {size:,} bytes where {expected} were expected; delete it and fetch again.")
    if remote.sha256 is not None:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != remote.sha256:
            raise ValueError(
                f"{path} has SHA-256 {digest[:12]}…, expected {remote.sha256[:12]}…; delete it and fetch it again."
            )


def _download(remote: RemoteWeights, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:  # torch's helper shows a progress bar, writes to a temporary file and moves it into place
        torch.hub.download_url_to_file(remote.url, str(path), progress=True)
    except urllib.error.HTTPError as error:
        raise ConnectionError(
            f"{remote.url} answered {error.code}; the weights may have moved, fetch them by hand to {path}."
        ) from error
    except (OSError, RuntimeError) as error:
        raise ConnectionError(
            f"{remote.url} cannot be reached ({error}); connect to the internet, or put the file at {path}."
        ) from error


WEIGHTS_DIR = Path(__file__).parent.parent / "weights"


def get(
    name: str,
    num_classes: int | None = None,
    pretrained_weights: str | None = None,
    checkpoint_path: str | Path | None = None,
    class_names: list[str] | None = None,
    accept_license: bool = False,
) -> YoloNAS:
    """A YOLO-NAS by name, in eval mode: yolo_nas_s, yolo_nas_m, yolo_nas_l (official sizes), yolo_nas_pico,
    yolo_nas_nano (lab sizes), yolo_nas_pico_repvgg, yolo_nas_nano_repvgg (their twins with RepVGG blocks).

    `num_classes` defaults to the checkpoint's own, or 80 without a checkpoint; class names and image size are the
    checkpoint's where it has them. `pretrained_weights` is "coco" (Deci's, fetched once their non-commercial licence
    is accepted) or "scenes" (ours, shipped). `checkpoint_path` is a file in our layout or the official one. With
    another `num_classes` than the weights have, the class layers stay fresh and a warning names them;
    `model.load_report` lists what was loaded. Raises ValueError or FileNotFoundError saying what was wrong.
    """
    if name not in CONFIGS:
        raise ValueError(unknown_name("model", name, CONFIGS))
    if pretrained_weights is not None and checkpoint_path is not None:
        raise ValueError("Give pretrained_weights or checkpoint_path, not both.")
    if pretrained_weights == "coco":
        checkpoint_path = fetch_coco_weights(name, accept_license)
    elif pretrained_weights == "scenes":
        checkpoint_path = _scenes_weights(name)
    elif pretrained_weights is not None:
        raise ValueError(unknown_name("pretrained_weights", pretrained_weights, ("coco", "scenes")))
    if checkpoint_path is None:
        return YoloNAS(CONFIGS[name], 80 if num_classes is None else num_classes, class_names).eval()
    return _from_checkpoint(name, checkpoint_path, num_classes, class_names)


def _from_checkpoint(name: str, path: str | Path, num_classes: int | None, class_names: list[str] | None) -> YoloNAS:
    tensors, where = read_state_dict(path)
    if is_official_layout(tensors):
        return load_official(name, path, num_classes, class_names)
    class_bias = tensors.get("heads.levels.0.class_pred.bias")
    if class_bias is None:
        raise ValueError(f"{where} is not a YOLO-NAS checkpoint (no 'heads.levels.0.class_pred.bias'); check the file.")
    num_classes = len(class_bias) if num_classes is None else num_classes
    about = read_about(path)
    if class_names is None and num_classes == len(class_bias):
        class_names = about.get("class_names")
    model = YoloNAS(CONFIGS[name], num_classes, class_names)
    model.image_size = about.get("image_size", model.image_size)
    load_into(model, tensors, where, fresh_classes=num_classes != len(class_bias))
    return model.eval()


def _scenes_weights(name: str) -> Path:
    path = WEIGHTS_DIR / f"{name}_scenes.safetensors"
    if not path.is_file():
        ending = "_scenes.safetensors"
        shipped = sorted(file.name.removesuffix(ending) for file in WEIGHTS_DIR.glob(f"yolo_nas_*{ending}"))
        there = f"there are some for {', '.join(shipped)}" if shipped else "this version ships none yet"
        raise FileNotFoundError(f"There are no 'scenes' weights for {name}: {there}; use pretrained_weights=None.")
    return path
