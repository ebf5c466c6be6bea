"""Official YOLO-NAS checkpoints: super-gradients' tensor names mapped to ours, and loaded strictly.

Notebook 04 proves the mapping key by key. Layout: super-gradients 3.7.1 (Apache-2.0). The weights themselves are
Deci's, under a non-commercial licence (see get.py).
"""

import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from yolonas_lab.common import unknown_name
from yolonas_lab.models.checkpoint import Checkpoint, load_into, read_checkpoint
from yolonas_lab.models.configs import CONFIGS
from yolonas_lab.models.yolo_nas import YoloNAS

# Their name -> our name, applied in this order to each dotted key.
RENAMES: tuple[tuple[str, str], ...] = (
    (r"^backbone\.stem\.conv\.", "backbone.stem."),
    *((rf"^backbone\.stage{i + 1}\.", f"backbone.stages.{i}.") for i in range(4)),
    (r"^backbone\.context_module\.cv", "backbone.spp.conv"),
    (r"^neck\.neck([12])\.reduce_skip1\.", r"neck.up\1.reduce_skip."),
    (r"^neck\.neck([12])\.reduce_skip2\.", r"neck.up\1.reduce_fine_skip."),
    (r"^neck\.neck([12])\.downsample\.", r"neck.up\1.downsample_fine_skip."),
    (r"^neck\.neck([12])\.conv\.", r"neck.up\1.reduce."),
    (r"^neck\.neck([12])\.reduce_after_concat\.", r"neck.up\1.reduce_concat."),
    (r"^neck\.neck([12])\.", r"neck.up\1."),
    *((rf"^neck\.neck{i + 2}\.conv\.", f"neck.down{i}.downsample.") for i in (1, 2)),
    *((rf"^neck\.neck{i + 2}\.", f"neck.down{i}.") for i in (1, 2)),
    (r"\.blocks\.", ".csp."),
    (r"\.cv([12])\.", r".block\1."),
    (r"\.branch_3x3\.", ".branch3x3."),
    (r"\.branch_1x1\.", ".branch1x1."),
    (r"\.post_bn\.", ".bn."),
    *((rf"^heads\.head{i + 1}\.", f"heads.levels.{i}.") for i in range(3)),
    (r"\.stem\.seq\.", ".stem."),
    (r"\.cls_convs\.0\.seq\.", ".class_conv."),
    (r"\.reg_convs\.0\.seq\.", ".box_conv."),
    (r"\.cls_pred\.", ".class_pred."),
    (r"\.reg_pred\.", ".box_pred."),
)
FUSED_PLACEHOLDER = ".rbr_reparam."  # the fused kernel's place in each block; rewritten by fusion, so never read
OFFICIAL_NAMES = ("yolo_nas_s", "yolo_nas_m", "yolo_nas_l")


@functools.cache
def official_layout(name: str) -> dict[str, tuple[int, ...]]:
    """Every tensor name and shape of an official checkpoint of this size, fused-kernel placeholders included."""
    if name not in OFFICIAL_NAMES:
        raise ValueError(unknown_name("official model", name, OFFICIAL_NAMES))
    layouts = json.loads((Path(__file__).parent / "official_layouts.json").read_text())
    return {key: tuple(shape) for key, shape in layouts[name].items()}


def our_key(official_key: str) -> str:
    """Our name for a tensor of the official layout: "neck.neck3.conv.bn.bias" -> "neck.down1.downsample.bn.bias"."""
    key = official_key
    for pattern, replacement in RENAMES:
        key = re.sub(pattern, replacement, key)
    return key


def is_official_layout(state_dict: Mapping[str, Tensor]) -> bool:
    """True where the tensor names are those of super-gradients rather than ours."""
    return any(key.startswith(("backbone.stage1.", "heads.head1.")) for key in state_dict)


def convert(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An official-layout state dict under our names, without the fused-kernel placeholders."""
    return {our_key(key): value for key, value in state_dict.items() if FUSED_PLACEHOLDER not in key}


def load_official(
    name: str, checkpoint: str | Path | Mapping, num_classes: int | None = None, class_names: list[str] | None = None
) -> YoloNAS:
    """A model of this official size with the weights of an official-layout checkpoint, in eval mode.

    `checkpoint` is a file or a dict, see `read_checkpoint`. Loading is strict: every tensor of the model must be there
    with its shape, and nothing else. With `num_classes` other than the checkpoint's, the class prediction layers stay
    freshly initialised, a warning names them, and `model.load_report` lists what was loaded. Raises ValueError for a
    checkpoint of another size, layout or content.
    """
    official_layout(name)  # refuses another name
    read = read_checkpoint(checkpoint)
    if not is_official_layout(read.tensors):
        raise ValueError(
            f"{read.where} is not in the official YOLO-NAS layout (no 'backbone.stage1.…' tensors); "
            "pass it to models.get(checkpoint_path=…)."
        )
    return model_from(name, read, num_classes, class_names)


def model_from(name: str, read: Checkpoint, num_classes: int | None, class_names: list[str] | None) -> YoloNAS:
    """A model of this size, in eval mode, with the weights of a checkpoint in our layout or the official one.

    Class count, class names and image size are the checkpoint's unless given; with another class count the class
    layers stay fresh, and names are not taken over. Raises ValueError for a checkpoint that does not fit.
    """
    is_official = is_official_layout(read.tensors)
    tensors = convert(read.tensors) if is_official else read.tensors
    class_bias = tensors.get("heads.levels.0.class_pred.bias")
    if class_bias is None:
        raise ValueError(
            f"{read.where} is not a YOLO-NAS checkpoint (no 'heads.levels.0.class_pred.bias'); check the file."
        )
    known_classes = len(class_bias)
    num_classes = known_classes if num_classes is None else num_classes
    if class_names is None and num_classes == known_classes:
        is_coco = is_official and known_classes == len(COCO_CLASS_NAMES)
        class_names = list(COCO_CLASS_NAMES) if is_coco else read.about.get("class_names")
    model = YoloNAS(CONFIGS[name], num_classes, class_names)
    model.image_size = read.about.get("image_size", model.image_size)
    load_into(model, tensors, read.where, fresh_classes=num_classes != known_classes)
    return model.eval()


COCO_CLASS_NAMES = tuple(
    (
        "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop "
        "sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, "
        "umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball "
        "glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, "
        "apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, "
        "dining table, toilet, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, "
        "refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush"
    ).split(", ")
)
