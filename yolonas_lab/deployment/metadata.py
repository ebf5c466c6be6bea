"""What an exported file says about itself, so that whoever runs it needs nothing else: classes, size, preparation.

Notebook 12 reads it. It is stored as JSON in the ONNX file's metadata; the preparation is spelled out for readers in
other languages, because most accuracy lost after an export is lost in another resize, color order or scaling.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING

from yolonas_lab.detect import PAD_VALUE

if TYPE_CHECKING:
    from onnx import ModelProto

KEY = "yolonas_lab"


@dataclass(frozen=True)
class ExportInfo:
    """What is known about an exported detector besides its graph.

    image_size is the side in px of the square that images are fitted into. images is the input's layout,
    "float_nchw" (0 … 1) or "uint8_nhwc" (0 … 255); outputs is "boxes_and_scores" or, after NMS, "detections".
    precision is that of the float part; activations is "float", "int8" or "uint8". source_sha256 identifies the
    weights exported.
    """

    model: str
    num_classes: int
    class_names: tuple[str, ...] | None
    image_size: int
    images: str
    outputs: str
    precision: str
    activations: str
    source_sha256: str


def write_info(proto: ModelProto, info: ExportInfo) -> None:
    """Store info in the model's metadata, and how an image becomes its input."""
    content = asdict(info) | {"preparation": preparation(info.image_size)}
    entry = proto.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(content, ensure_ascii=False)


def preparation(image_size: int) -> dict[str, object]:
    """How an image is fitted into the input: what `detect.prepare` does, in words for a machine."""
    return {
        "color": "RGB",
        "longest_side_px": round(image_size * 636 / 640),
        "interpolation": "bilinear",
        "padding": "center",
        "padding_value": PAD_VALUE,
        "float_input_is": "pixel / 255",
    }


def read_info(metadata: Mapping[str, str], where: str) -> ExportInfo:
    """The ExportInfo in a file's metadata; `where` names the file. Raises ValueError where there is none of ours."""
    advice = "export it with yolonas_lab.deployment.export_onnx."
    if KEY not in metadata:
        raise ValueError(f"{where} has no '{KEY}' metadata (class names, image size, preparation): {advice}")
    try:
        content = json.loads(metadata[KEY])
        known = {field.name: content[field.name] for field in fields(ExportInfo)}
        info = ExportInfo(**known)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"The '{KEY}' metadata of {where} cannot be read ({error!r}): {advice}") from error
    return replace(info, class_names=tuple(info.class_names) if info.class_names is not None else None)
