"""A detector from an exported file, computed by OpenVINO: the same file, another engine for CPUs. Notebook 12."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from yolonas_lab.deployment.graph import load_onnx
from yolonas_lab.deployment.metadata import read_info
from yolonas_lab.deployment.outputs import undecode
from yolonas_lab.models.heads import RawPredictions
from yolonas_lab.models.yolo_nas import check_images


class OpenVinoDetector(nn.Module):
    """A file of `export_onnx` (fixed batch and size, no NMS) as a detector that OpenVINO computes.

    It takes floats or an INT8 export for CPUs; the symmetric one for TensorRT is refused, because OpenVINO computes
    its Concats on one scale and is wrong there. threads is the number of CPU threads (default: OpenVINO's choice).
    Raises ImportError where OpenVINO is missing, FileNotFoundError or ValueError for a file that does not fit.
    """

    def __init__(self, path: str | Path, threads: int | None = None):
        super().__init__()
        self.path = Path(path)
        proto = load_onnx(self.path)
        self.info = read_info({entry.key: entry.value for entry in proto.metadata_props}, str(self.path))
        if (self.info.images, self.info.outputs) != ("float_nchw", "boxes_and_scores") or _is_open(proto):
            raise ValueError(f"{self.path} has NMS, preprocessing or open sizes in it: export it without for OpenVINO.")
        if self.info.activations == "int8":
            raise ValueError(f"{self.path} is quantized for TensorRT: export one with QuantPolicy.cpu() for OpenVINO.")
        self.class_names = list(self.info.class_names) if self.info.class_names is not None else None
        self.num_classes = self.info.num_classes
        self.image_size = self.info.image_size
        self._batch: int = proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value
        self._network = _compiled(self.path, threads)

    def predict(self, source: Any, conf: float = 0.25, iou: float = 0.7, **options: Any):
        """As a model's own: see `detect.predict`."""
        from yolonas_lab.detect import predict

        return predict(self, source, conf=conf, iou=iou, **options)

    def forward(self, images: Tensor) -> RawPredictions:
        """Images (b, 3, h, w) in [0, 1] -> RawPredictions that `decode` turns into the graph's boxes and scores."""
        return undecode(*self.boxes_and_scores(images))

    def boxes_and_scores(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (b, 3, h, w) in [0, 1] -> boxes (b, a, 4) xyxy px, scores (b, a, k), for any b: the last part is
        filled up to the file's batch.
        """
        check_images(images)
        if images.shape[2:] != (self.image_size, self.image_size):
            raise ValueError(f"{self.path} takes images of {self.image_size} px only, got {tuple(images.shape)}.")
        parts = []
        for chunk in images.split(self._batch):
            n = len(chunk)
            chunk = torch.cat([chunk, chunk[-1:].expand(self._batch - n, -1, -1, -1)])  # (batch, 3, h, w)
            found = self._network(chunk.detach().cpu().float().numpy())
            parts.append([torch.from_numpy(found[name][:n].copy()) for name in ("boxes", "scores")])
        boxes, scores = (torch.cat(tensors) for tensors in zip(*parts))
        return boxes, scores


def _is_open(proto: Any) -> bool:
    return any(dim.dim_value < 1 for dim in proto.graph.input[0].type.tensor_type.shape.dim)


def _compiled(path: Path, threads: int | None) -> Any:
    try:
        import openvino
    except ImportError as error:
        raise ImportError("OpenVINO is not installed: pip install 'yolonas-lab[openvino]'.") from error
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    return openvino.compile_model(str(path), "CPU", settings)
