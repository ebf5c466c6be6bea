"""A detector from an exported file alone: onnxruntime computes, everything around it is as with a model of ours.

Notebook 12 compares the two. The file's metadata names the classes, the image size and the preparation.
"""

from __future__ import annotations

import copy
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from yolonas_lab.deployment.engine_report import check_gpu, check_version, read_card, read_plan
from yolonas_lab.deployment.export import read_info
from yolonas_lab.deployment.graph_passes import one_hot_scores, undecode
from yolonas_lab.deployment.onnx_graph import load_onnx
from yolonas_lab.deployment.tensorrt import find_tensorrt, load_engine
from yolonas_lab.models.yolo_nas import RawPredictions, check_images


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


# A detector from an exported file, computed by OpenVINO: the same file, another engine for CPUs. Notebook 12.


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


# One TensorRT engine on one GPU: torch tensors in and out by name, on a stream of its own, as a CUDA graph if wanted.
#
# Notebook 13. The calls are the same in version 10, 11 and for RTX: set_input_shape, set_tensor_address,
# execute_async_v3.


class EngineRunner:
    """Runs an engine with one input. Tensors keep their place in GPU memory for as long as the shape stays.

    cuda_graph records the launches of all kernels once per shape and replays them, which saves the CPU's part of the
    time; it shows with small images and batches.
    """

    def __init__(
        self,
        trt: ModuleType,
        engine: Any,
        device: torch.device | str = "cuda",
        cuda_graph: bool = False,
    ):
        self._trt, self._engine, self.device = trt, engine, torch.device(device)
        self._context = engine.create_execution_context()
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        is_input = {name: engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        if sum(is_input.values()) != 1:
            raise ValueError(f"The engine must have one input, but has {sum(is_input.values())} among {names}.")
        [self.input_name] = [name for name in names if is_input[name]]
        self.output_names = [name for name in names if not is_input[name]]
        self._stream = torch.cuda.Stream(self.device)  # the default stream would make TensorRT wait after each run
        self._use_graph = cuda_graph
        self._graph: Any = None  # a torch.cuda.CUDAGraph of the last shape
        self._buffers: dict[str, Tensor] = {}

    def shape_range(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The smallest and the largest input shape that the engine was built for."""
        if -1 not in (fixed := _dims(self._engine.get_tensor_shape(self.input_name))):
            return fixed, fixed
        smallest, _, largest = self._engine.get_tensor_profile_shape(self.input_name, 0)
        return _dims(smallest), _dims(largest)

    def input_dtype(self) -> torch.dtype:
        """The type that the engine's input has."""
        return self._dtype(self.input_name)

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """The outputs by name, on the GPU, for an input of the engine's type and a shape that it was built for.

        Raises ValueError for another shape.
        """
        self._check_shape(tuple(images.shape))
        if not self._buffers or self._buffers[self.input_name].shape != images.shape:
            self._prepare(tuple(images.shape))
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            self._buffers[self.input_name].copy_(images, non_blocking=True)
            self._launch()
        torch.cuda.current_stream(self.device).wait_stream(self._stream)
        return {name: self._buffers[name].clone() for name in self.output_names}  # the next run overwrites its own

    def _prepare(self, shape: tuple[int, ...]) -> None:
        """Tell the engine this input shape, and give all tensors their places."""
        self._graph = None
        self._context.set_input_shape(self.input_name, shape)
        for name in (self.input_name, *self.output_names):
            dims = _dims(self._context.get_tensor_shape(name))
            self._buffers[name] = torch.empty(dims, dtype=self._dtype(name), device=self.device)
            self._context.set_tensor_address(name, self._buffers[name].data_ptr())

    def _launch(self) -> None:
        if not self._use_graph:
            self._execute()
            return
        if self._graph is None:
            self._graph = self._record()
        self._graph.replay()

    def _record(self) -> Any:
        self._execute()  # once outside: TensorRT finishes its preparations for a new shape in the first run
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            self._execute()
        return graph

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._stream.cuda_stream):
            raise RuntimeError("TensorRT could not start the engine; its log above says why.")

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        smallest, largest = self.shape_range()
        fits = len(shape) == len(smallest) and all(a <= n <= b for a, n, b in zip(smallest, shape, largest))
        if not fits:
            span = f"{smallest}" if smallest == largest else f"{smallest} to {largest}"
            raise ValueError(
                f"The engine was built for images of shape {span}, not {shape}: build it with a profile that reaches "
                "there, or leave image_size out."
            )

    def _dtype(self, name: str) -> torch.dtype:
        import numpy as np

        return torch.from_numpy(np.empty(0, self._trt.nptype(self._engine.get_tensor_dtype(name)))).dtype


def _dims(shape: Any) -> tuple[int, ...]:
    """TensorRT's Dims as a tuple."""
    return tuple(shape[axis] for axis in range(len(shape)))


# A detector from a TensorRT plan alone: TensorRT computes, everything around it is as with a model of ours.
#
# Notebook 13. The card beside the plan (plan.json) names the classes, the image size and the preparation.


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
