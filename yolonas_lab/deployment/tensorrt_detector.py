"""A detector from a TensorRT plan alone: TensorRT computes, everything around it is as with a model of ours.

Notebook 13. The card beside the plan (plan.json) names the classes, the image size and the preparation.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from yolonas_lab.deployment.engine_runner import EngineRunner
from yolonas_lab.deployment.metadata import read_info
from yolonas_lab.deployment.outputs import undecode
from yolonas_lab.deployment.plan_file import check_gpu, check_version, read_card, read_plan
from yolonas_lab.deployment.tensorrt import find_tensorrt, load_engine
from yolonas_lab.models.heads import RawPredictions
from yolonas_lab.models.yolo_nas import check_images


class TensorRTDetector(nn.Module):
    """A plan of `build_engine` as a detector: predict, and whatever else takes a model, such as `evaluate`.

    `info` is what the exported file said about itself. trt is the module to use (default: the one that wrote the
    plan). cuda_graph replays recorded kernel launches, which pays at batch 1. Raises ImportError for a missing
    package, ValueError for a plan that is damaged, of another version or for another GPU, and where there is no GPU.
    """

    def __init__(self, plan: str | Path, trt: ModuleType | None = None, cuda_graph: bool = False):
        super().__init__()
        self.path = Path(plan)
        content, header = read_plan(self.path)
        trt = trt or find_tensorrt(header.module)
        check_version(self.path, header, trt.__name__, trt.__version__)
        card = read_card(self.path)
        self.info = read_info(card.metadata, str(self.path))
        check_gpu(self.path, card)
        self.class_names = list(self.info.class_names) if self.info.class_names is not None else None
        self.num_classes = self.info.num_classes
        self.image_size = self.info.image_size
        self._runner = EngineRunner(trt, load_engine(trt, self.path, content), cuda_graph=cuda_graph)
        self.device = self._runner.device
        missing = {"boxes", "scores"} - set(self._runner.output_names)
        if missing:
            raise ValueError(
                f"{self.path} has no output {' and '.join(sorted(missing))}, only {self._runner.output_names}: "
                "build it from a file of export_onnx without nms."
            )

    def predict(self, source: Any, conf: float = 0.25, iou: float = 0.7, **options: Any):
        """As a model's own: see `detect.predict`."""
        from yolonas_lab.detect import predict

        return predict(self, source, conf=conf, iou=iou, **options)

    def forward(self, images: Tensor) -> RawPredictions:
        """Images (b, 3, h, w) in [0, 1] -> RawPredictions that `decode` turns into the engine's boxes and scores."""
        return undecode(*self.boxes_and_scores(images))

    def boxes_and_scores(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (b, 3, h, w) in [0, 1], on any device -> boxes (b, a, 4) xyxy px, scores (b, a, k) on the GPU.

        Any b: the engine runs as often as needed, on parts filled up to the smallest batch that it was built for.
        """
        check_images(images)
        (fewest, *_), (most, *_) = self._runner.shape_range()
        parts = []
        for chunk in images.split(most):
            n = len(chunk)
            chunk = torch.cat([chunk, chunk[-1:].expand(max(fewest - n, 0), -1, -1, -1)])
            found = self._runner(self._input(chunk))
            parts.append((found["boxes"][:n].float(), found["scores"][:n].float()))
        boxes, scores = (torch.cat(tensors) for tensors in zip(*parts))
        return boxes, scores

    def _input(self, images: Tensor) -> Tensor:
        """Images in the layout and type that the engine wants, on its device."""
        images = images.to(self._runner.device)
        if self.info.images == "uint8_nhwc":
            images = (images * 255).round().permute(0, 2, 3, 1)  # (b, h, w, 3)
        return images.to(self._runner.input_dtype())
