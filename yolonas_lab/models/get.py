"""One door to every model: by name, with no weights, a checkpoint's, or Deci's COCO weights. Notebooks 00 and 04 use
it.
"""

from pathlib import Path

from yolonas_lab.models.checkpoint import load_into, read_about, read_state_dict
from yolonas_lab.models.configs import CONFIGS
from yolonas_lab.models.official import is_official_layout, load_official
from yolonas_lab.models.pretrained import fetch_coco_weights
from yolonas_lab.models.yolo_nas import YoloNAS
from yolonas_lab.suggest import unknown_name

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
