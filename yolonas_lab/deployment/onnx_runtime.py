"""A detector from an exported file alone: onnxruntime computes, everything around it is as with a model of ours.

Notebook 12 compares the two. The file's metadata names the classes, the image size and the preparation.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from yolonas_lab.deployment.graph import load_onnx
from yolonas_lab.deployment.metadata import read_info
from yolonas_lab.deployment.outputs import one_hot_scores, undecode
from yolonas_lab.models.heads import RawPredictions
from yolonas_lab.models.yolo_nas import check_images


class OnnxDetector(nn.Module):
    """A file of `export_onnx` as a detector: predict, and whatever else takes a model, such as `evaluate`.

    `info` is what the file says about itself. threads is the number of CPU threads (default: onnxruntime's choice),
    providers are onnxruntime's names of the devices to use, in order. optimize=None lets onnxruntime fuse and rewrite
    the graph, except where its activations are symmetric int8: onnxruntime's int8 kernels may overflow on those on a
    CPU, so that graph is computed as it is written. Raises FileNotFoundError, or ValueError for a file that is not
    ONNX, of an unknown opset, or not exported by this library.
    """

    def __init__(
        self,
        path: str | Path,
        threads: int | None = None,
        optimize: bool | None = None,
        providers: tuple[str, ...] = ("CPUExecutionProvider",),
    ):
        super().__init__()
        self.path = Path(path)
        proto = load_onnx(self.path)
        self.info = read_info({entry.key: entry.value for entry in proto.metadata_props}, str(self.path))
        self.class_names = list(self.info.class_names) if self.info.class_names is not None else None
        self.num_classes = self.info.num_classes
        self.image_size = self.info.image_size
        self.iou = 0.7  # threshold of the NMS in the graph, where there is one
        optimize = self.info.activations != "int8" if optimize is None else optimize
        self.session = _session(self.path, threads, optimize, providers)

    def predict(self, source: Any, conf: float = 0.25, iou: float = 0.7, **options: Any):
        """As a model's own: see `detect.predict`."""
        from yolonas_lab.detect import predict

        detector = copy.copy(self)
        detector.iou = iou
        return predict(detector, source, conf=conf, iou=iou, **options)

    def forward(self, images: Tensor) -> RawPredictions:
        """Images (b, 3, h, w) in [0, 1] -> RawPredictions that `decode` turns into what the graph answered.

        After NMS in the graph that is its detections of any score, suppressed at `self.iou`: another NMS at the same
        threshold changes nothing.
        """
        return undecode(*self.boxes_and_scores(images))

    def boxes_and_scores(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (b, 3, h, w) in [0, 1] -> boxes (b, a, 4) xyxy px, scores (b, a, k), for any b.

        A graph with a fixed batch is run as often as needed. After NMS in the graph a is the number of its slots, and
        each box has a score for its own class only. Raises ValueError for images that do not fit the graph.
        """
        check_images(images)
        self._check_size(images)
        batch = self.session.get_inputs()[0].shape[0]
        batch = batch if isinstance(batch, int) else max(1, len(images))
        answers = [self._run(chunk, batch) for chunk in images.split(batch)]
        boxes, scores = (torch.cat(parts) for parts in zip(*answers))
        return boxes, scores

    def _run(self, images: Tensor, batch: int) -> tuple[Tensor, Tensor]:
        """One call of the graph: up to `batch` images, filled up with the last one to exactly as many."""
        n = len(images)
        images = torch.cat([images, images[-1:].expand(batch - n, -1, -1, -1)])  # (batch, 3, h, w)
        feed = {"images": self._input(images)}
        if self.info.outputs == "boxes_and_scores":
            boxes, scores = map(torch.from_numpy, self.session.run(["boxes", "scores"], feed))
        else:
            feed |= {"conf": np.zeros(1, np.float32), "iou": np.full(1, self.iou, np.float32)}
            boxes, scores, labels = map(torch.from_numpy, self.session.run(["boxes", "scores", "labels"], feed))
            scores = one_hot_scores(scores, labels, self.num_classes)
        return boxes[:n], scores[:n]

    def _input(self, images: Tensor) -> np.ndarray:
        """Images in the layout and type that the graph wants."""
        images = images.detach().cpu().float()
        if self.info.images == "uint8_nhwc":
            images = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
        return images.contiguous().numpy()

    def _check_size(self, images: Tensor) -> None:
        shape = self.session.get_inputs()[0].shape
        fixed = shape[1:3] if self.info.images == "uint8_nhwc" else shape[2:4]
        given = list(images.shape[2:])
        if any(isinstance(want, int) and want != have for want, have in zip(fixed, given)):
            raise ValueError(
                f"{self.path} takes images of {fixed[0]}×{fixed[1]} px only, got {given[0]}×{given[1]}: leave "
                f"image_size out, or export it with dynamic_size=True."
            )


def _session(path: Path, threads: int | None, optimize: bool, providers: tuple[str, ...]) -> Any:
    """An onnxruntime session; its own error messages become a ValueError naming the file."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors  # pyright: ignore[reportAttributeAccessIssue]

    unknown = set(providers) - set(onnxruntime.get_available_providers())
    if unknown:
        raise ValueError(
            f"onnxruntime has no {', '.join(sorted(unknown))} here; it has "
            f"{', '.join(onnxruntime.get_available_providers())}."
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; thresholds that may be left out are worth a warning to it
    if threads is not None:
        options.intra_op_num_threads = threads
    level = "ORT_ENABLE_ALL" if optimize else "ORT_DISABLE_ALL"
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=list(providers))
    except (ort_errors.Fail, ort_errors.InvalidGraph, ort_errors.NotImplemented, ort_errors.InvalidArgument) as error:
        raise ValueError(f"onnxruntime cannot run {path} ({error}); export it again.") from error
