"""Export: a trained model to one ONNX file, float32, float16 or INT8 with Q/DQ, that says itself how it is used.

Notebook 12 exports and reads it. torch's exporter follows the tensors through the model; what is added here are
readable names, the optional first and last mile (uint8 images, NMS), and metadata: classes, size and preparation,
because most accuracy lost after an export is lost in another resize, color order or scaling.
"""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from yolonas_lab.common import check_image_size, unknown_name, weights_digest, write_bytes
from yolonas_lab.deployment.graph_passes import append_nms, prepend_preprocessing, requantize_moved_values, to_float16
from yolonas_lab.deployment.onnx_graph import OPSET, name_nodes
from yolonas_lab.detect import PAD_VALUE
from yolonas_lab.models.reparameterize import reparameterize
from yolonas_lab.models.yolo_nas import STRIDES, RawPredictions, YoloNAS, decode
from yolonas_lab.quantization.insert import for_export
from yolonas_lab.quantization.layers import activation_quantizers, is_quantized

if TYPE_CHECKING:
    from onnx import ModelProto

PRECISIONS = ("float32", "float16")
KEY = "yolonas_lab"  # of the metadata


@dataclass(frozen=True)
class ExportInfo:
    """What is known about an exported detector besides its graph; stored as JSON in the file's metadata.

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
    """Store info in the model's metadata, with how an image becomes its input: what `detect.prepare` does, spelled out
    for readers in other languages.
    """
    preparation = {
        "color": "RGB",
        "longest_side_px": round(info.image_size * 636 / 640),
        "interpolation": "bilinear",
        "padding": "center",
        "padding_value": PAD_VALUE,
        "float_input_is": "pixel / 255",
    }
    text = json.dumps(asdict(info) | {"preparation": preparation}, ensure_ascii=False)
    proto.metadata_props.add(key=KEY, value=text)


def read_info(metadata: Mapping[str, str], where: str) -> ExportInfo:
    """The ExportInfo in a file's metadata; `where` names the file. Raises ValueError where there is none of ours."""
    advice = "export it with yolonas_lab.deployment.export_onnx."
    if KEY not in metadata:
        raise ValueError(f"{where} has no '{KEY}' metadata (class names, image size, preparation): {advice}")
    try:
        content = json.loads(metadata[KEY])
        info = ExportInfo(**{field.name: content[field.name] for field in fields(ExportInfo)})
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"The '{KEY}' metadata of {where} cannot be read ({error!r}): {advice}") from error
    return replace(info, class_names=tuple(info.class_names) if info.class_names is not None else None)


def export_onnx(
    model: YoloNAS,
    path: str | Path,
    image_size: int | None = None,
    precision: str = "float32",
    batch: int | None = 1,
    dynamic_size: bool = False,
    nms: bool = False,
    preprocess: bool = False,
) -> Path:
    """Write the model as one ONNX file (opset 20) and return its path; every block and BatchNorm is fused first.

    The input "images" is (batch, 3, image_size, image_size) float32 RGB in [0, 1], or with preprocess
    (batch, image_size, image_size, 3) uint8; batch=None leaves the batch open, dynamic_size height and width, which
    stay multiples of 32. The outputs are "boxes" (b, a, 4) xyxy px of the input and "scores" (b, a, k); with nms
    those of `graph_passes.append_nms`. A quantized model is written with QuantizeLinear and DequantizeLinear, for
    TensorRT where its activations are symmetric, for CPUs where they are affine (`QuantPolicy.cpu`). precision
    "float16" computes the float part of the network in half; inputs, outputs and the boxes' decoding stay
    float32. The model is left as it is. Raises ValueError for settings out of range, FileNotFoundError for a missing
    folder.
    """
    import onnx

    path = Path(path)
    image_size = check_image_size(model.image_size if image_size is None else image_size)
    if precision not in PRECISIONS:
        raise ValueError(unknown_name("precision", precision, PRECISIONS))
    if batch is not None and batch < 1:
        raise ValueError(f"batch must be at least 1, or None to leave it open, but is {batch}.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"Cannot write {path}: the folder {path.parent} does not exist; make it first.")
    proto = _trace(_deployable(model), image_size, batch, dynamic_size)
    name_nodes(proto)
    activations = _activations(proto)
    if activations == "uint8":
        requantize_moved_values(proto)
    if precision == "float16":
        to_float16(proto)
    if preprocess:
        proto = prepend_preprocessing(proto)
    if nms:
        proto = append_nms(proto)
    info = ExportInfo(
        model=model.config.name,
        num_classes=model.num_classes,
        class_names=tuple(model.class_names) if model.class_names is not None else None,
        image_size=image_size,
        images="uint8_nhwc" if preprocess else "float_nchw",
        outputs="detections" if nms else "boxes_and_scores",
        precision=precision,
        activations=activations,
        source_sha256=weights_digest(model),
    )
    write_info(proto, info)
    onnx.checker.check_model(proto, full_check=True)
    return write_bytes(path, proto.SerializeToString(deterministic=True))


class _Detector(nn.Module):
    """What is exported: images (b, 3, h, w) -> boxes (b, a, 4), scores (b, a, k)."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.decode = _Decode()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.decode(self.network(images))


class _Decode(nn.Module):
    """`decode` as a module, so that its nodes carry its name."""

    def forward(self, raw: RawPredictions) -> tuple[Tensor, Tensor]:
        return decode(raw)


def _deployable(model: YoloNAS) -> nn.Module:
    """A float32 CPU copy in eval mode without BatchNorm; of a quantized model, with its weights as integers."""
    model = copy.deepcopy(model).float().cpu()
    if not is_quantized(model):
        return reparameterize(model)
    for quantizer in activation_quantizers(model):
        if quantizer.wanted and not quantizer.calibrated:
            raise ValueError(f"The activations of {quantizer.name} have no scale yet: calibrate the model first.")
        if quantizer.wanted and quantizer.bits != 8:
            raise ValueError(
                f"The activations of {quantizer.name} have {quantizer.bits} bits, but ONNX rounds to 8: quantize with "
                f"activation_bits=8 to export (weights may have fewer)."
            )
    return for_export(model)


def _trace(network: nn.Module, image_size: int, batch: int | None, dynamic_size: bool) -> ModelProto:
    """The network and its decoding as torch's exporter writes them; open dimensions are called batch, height, …"""
    from torch.export import Dim

    dynamic: dict[int, object] = {0: Dim("batch", min=1)} if batch is None else {}
    height = width = image_size
    if dynamic_size:
        dynamic |= {axis: STRIDES[-1] * Dim(name, min=1) for axis, name in ((2, "h32"), (3, "w32"))}
        # Open dimensions must differ and exceed 1 while tracing, or the exporter takes them for one, or for constant.
        height, width = 2 * STRIDES[-1], 3 * STRIDES[-1]
    example = torch.zeros(2 if batch is None else batch, 3, height, width)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # not the notes about operators of packages that are not installed
    try:
        with warnings.catch_warnings(category=FutureWarning, action="ignore"), torch.no_grad():
            program = torch.onnx.export(
                _Detector(network).eval(),
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["images"],
                output_names=["boxes", "scores"],
                dynamic_shapes=(dynamic,) if dynamic else None,
                external_data=False,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    assert program is not None
    proto = program.model_proto
    for value in (*proto.graph.input, *proto.graph.output):
        sizes = (None, "height", "width") if value.name == "images" else ("anchors",)
        names = ("batch" if batch is None else None, *(sizes if dynamic_size else ()))
        for dim, name in zip(value.type.tensor_type.shape.dim, names):
            if name is not None:
                dim.dim_param = name
    return proto


def _activations(proto: ModelProto) -> str:
    """The type of the quantized activations, "float" where there are none."""
    from onnx import TensorProto

    types = {i.name: i.data_type for i in proto.graph.initializer}
    points = [types.get(node.input[2]) for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    return "float" if not points else "int8" if points[0] == TensorProto.INT8 else "uint8"
