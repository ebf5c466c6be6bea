"""One door to every model: by name, with no weights, a checkpoint's, or Deci's COCO weights. Notebooks 00 and 04 use
it.

The COCO weights are Deci's, under a non-commercial licence (super-gradients `LICENSE.YOLONAS.md`): fetched on request
from where Deci publishes them, neither shipped nor mirrored here.
"""

import os
from pathlib import Path

import torch

from yolonas_lab.common import unknown_name
from yolonas_lab.data.download import download
from yolonas_lab.models.checkpoint import read_checkpoint
from yolonas_lab.models.configs import CONFIGS
from yolonas_lab.models.official import OFFICIAL_NAMES, model_from
from yolonas_lab.models.yolo_nas import YoloNAS

WEIGHTS_DIR = Path(__file__).parent.parent / "weights"
COCO_WEIGHTS = {name: f"https://sg-hub-nv.s3.amazonaws.com/models/{name}_coco.pth" for name in OFFICIAL_NAMES}
LICENSE_NAME = (
    "YOLO-NAS licence of Deci.AI (non-commercial use only; LICENSE.YOLONAS.md in the super-gradients repository)"
)
ACCEPT_VARIABLE = "YOLONAS_LAB_ACCEPT_LICENSE"


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

    >>> model = get("yolo_nas_pico", pretrained_weights="scenes")
    >>> model.num_classes, model.class_names[:2], model.image_size
    (6, ['airplane', 'umbrella'], 64)
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
    return model_from(name, read_checkpoint(checkpoint_path), num_classes, class_names)


def fetch_coco_weights(name: str, accept_license: bool = False) -> Path:
    """Path of Deci's COCO weights for this size, fetched into torch's hub cache if they are not there yet.

    Raises PermissionError until the licence is accepted (argument, or environment variable
    YOLONAS_LAB_ACCEPT_LICENSE=1), ValueError for a size without official weights, ConnectionError when they cannot be
    fetched.
    """
    if name not in COCO_WEIGHTS:
        raise ValueError(f"'{name}' has no COCO weights; they exist for {', '.join(COCO_WEIGHTS)}.")
    if not (accept_license or os.environ.get(ACCEPT_VARIABLE) == "1"):
        raise PermissionError(
            f"The COCO weights of {name} are under the {LICENSE_NAME}; "
            f"if you accept it, pass accept_license=True or set {ACCEPT_VARIABLE}=1."
        )
    path = Path(torch.hub.get_dir()) / "checkpoints" / COCO_WEIGHTS[name].rpartition("/")[2]
    try:
        return path if path.is_file() else download(COCO_WEIGHTS[name], path, pause=0.1)
    except ConnectionError as error:
        raise ConnectionError(f"{error} Or put the file at {path} by hand.") from error


def _scenes_weights(name: str) -> Path:
    path = WEIGHTS_DIR / f"{name}_scenes.safetensors"
    if not path.is_file():
        shipped = ", ".join(other for other in CONFIGS if (WEIGHTS_DIR / f"{other}_scenes.safetensors").is_file())
        raise FileNotFoundError(f"There are no 'scenes' weights for {name}, only for {shipped}.")
    return path
