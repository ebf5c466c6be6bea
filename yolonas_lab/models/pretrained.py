"""Fetching Deci's COCO weights on request: licence first, then a download with progress, checked before it is used.

The weights are Deci's, under a non-commercial licence (super-gradients `LICENSE.YOLONAS.md`); this project neither
ships nor mirrors them.
"""

import hashlib
import os
import urllib.error
from dataclasses import dataclass
from pathlib import Path

import torch

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
