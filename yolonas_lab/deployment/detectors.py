"""Detectors from exported files alone: onnxruntime, OpenVINO or TensorRT computes, the rest is as with a model.

Notebooks 12 and 13 compare them. What the file, or the card beside a plan, says about itself names the classes, the
image size and the preparation.
"""

from __future__ import annotations

import copy
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolonas_lab.deployment.engine_report import check_plan, read_plan
from yolonas_lab.deployment.export import ExportInfo, read_info
from yolonas_lab.deployment.onnx_graph import load_onnx, metadata_of, shape_of
from yolonas_lab.deployment.tensorrt import find_tensorrt, load_engine
from yolonas_lab.models.yolo_nas import check_images

Shape = tuple[int, ...]
Range = tuple[Shape, Shape]  # the smallest and the largest shape of an input
ANY = 2**31 - 1  # the largest size where the graph leaves it open


class ExportedDetector(nn.Module):
    """An exported network that predicts, and goes wherever a model goes, such as into `evaluate`.

    `info` is what the file says about itself. A subclass loads the file and computes; `ranges` are the shapes that the
    graph takes, in the order of its own axes: one range, or one per optimization profile.
    """

    remedy: str  # for images of another size

    def __init__(self, path: str | Path, info: ExportInfo, ranges: list[Range], device: str | torch.device = "cpu"):
        super().__init__()
        self.path, self.info, self.ranges, self.device = Path(path), info, ranges, torch.device(device)
        self.class_names = list(info.class_names) if info.class_names is not None else None
        self.num_classes, self.image_size = info.num_classes, info.image_size
        self.iou = 0.7  # threshold of the NMS in the graph, where there is one

    def _compute(self, inputs: Tensor) -> dict[str, Tensor]:
        """The graph's outputs by name, for inputs of a shape within a range, on the detector's device."""
        raise NotImplementedError

    def predict(self, source: Any, conf: float = 0.25, iou: float = 0.7, **options: Any):
        """As a model's own: see `detect.predict`."""
        from yolonas_lab.detect import predict

        detector = copy.copy(self)
        detector.iou = iou
        return predict(detector, source, conf=conf, iou=iou, **options)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (b, 3, h, w) in [0, 1] -> boxes (b, a, 4) xyxy px, scores (b, a, k), for any b, on its device.

        The graph runs as often as its batch needs. After NMS in the graph a is the number of its slots, and each box
        has a score for its own class only; boxes of any score are there, suppressed at `self.iou`: another NMS at the
        same threshold changes nothing. Raises ValueError for images of a size that the graph does not take.
        """
        check_images(images)
        inputs = self._inputs(images)
        batches = [(low[0], high[0]) for low, high in self.ranges if fits(inputs.shape[1:], low[1:], high[1:])]
        if not batches:
            sizes, given = " or ".join(map(self._sizes, self.ranges)), "×".join(map(str, images.shape[2:]))
            raise ValueError(
                f"{self.path} takes images of {sizes} px only, got {given}: leave image_size out, or {self.remedy}."
            )
        answers = [self._run(chunk, batches) for chunk in inputs.split(max(most for _, most in batches))]
        boxes, scores = map(torch.cat, zip(*answers))
        return boxes, scores

    def _inputs(self, images: Tensor) -> Tensor:
        """Images in the layout and type that the graph wants, on its device."""
        images = images.detach().to(self.device, torch.float32)
        if self.info.images == "uint8_nhwc":
            images = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1)  # (b, h, w, 3)
        return images.contiguous()

    def _sizes(self, shapes: Range) -> str:
        axes = slice(1, 3) if self.info.images == "uint8_nhwc" else slice(2, 4)
        smallest, largest = ("×".join(map(str, shape[axes])) for shape in shapes)
        return smallest if smallest == largest else f"{smallest} to {largest}"

    def _run(self, inputs: Tensor, batches: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """One call of the graph, filled up with the last image to the nearest batch that it takes."""
        n = len(inputs)
        batch = min(max(n, fewest) for fewest, most in batches if n <= most)
        found = self._compute(torch.cat([inputs, inputs[-1:].expand(batch - n, -1, -1, -1)]))
        boxes, scores = found["boxes"][:n].float(), found["scores"][:n].float()
        if "labels" in found:
            scores = scores[..., None] * F.one_hot(found["labels"][:n], self.num_classes)  # (b, a, k)
        return boxes, scores


def fits(shape: Shape, smallest: Shape, largest: Shape) -> bool:
    """True where no dimension lies outside."""
    return all(a <= n <= b for a, n, b in zip(smallest, shape, largest, strict=True))


class OnnxDetector(ExportedDetector):
    """A file of `export_onnx` that onnxruntime computes.

    threads is the number of CPU threads (default: onnxruntime's choice), providers are onnxruntime's names of the
    devices to use, in order. optimize=None lets onnxruntime fuse and rewrite the graph, except where its activations
    are symmetric int8: onnxruntime's int8 kernels may overflow on those on a CPU, so that graph is computed as it is
    written. Raises FileNotFoundError, or ValueError for a file that is not ONNX, of an unknown opset, or not exported
    by this library.
    """

    remedy = "export it with dynamic_size=True"

    def __init__(
        self,
        path: str | Path,
        threads: int | None = None,
        optimize: bool | None = None,
        providers: tuple[str, ...] = ("CPUExecutionProvider",),
    ):
        import onnxruntime

        info, shape = _read(path)
        smallest, largest = (tuple(other if size < 0 else size for size in shape) for other in (1, ANY))
        super().__init__(path, info, [(smallest, largest)])
        settings, levels = onnxruntime.SessionOptions(), onnxruntime.GraphOptimizationLevel
        settings.log_severity_level = 3  # errors; thresholds that may be left out are worth a warning to it
        settings.intra_op_num_threads = threads or 0  # 0: as it likes
        optimize = info.activations != "int8" if optimize is None else optimize
        settings.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
        self.session = onnxruntime.InferenceSession(str(path), settings, providers=list(providers))

    def _compute(self, inputs: Tensor) -> dict[str, Tensor]:
        names, feed = ["boxes", "scores"], {"images": inputs.numpy()}
        if self.info.outputs == "detections":
            names.append("labels")
            feed |= {"conf": np.zeros(1, np.float32), "iou": np.full(1, self.iou, np.float32)}
        return dict(zip(names, map(torch.from_numpy, self.session.run(names, feed))))


def _read(path: str | Path) -> tuple[ExportInfo, Shape]:
    """What an ONNX file says about itself, and the shape of its input, -1 where it is open."""
    proto = load_onnx(path)
    return read_info(metadata_of(proto), str(path)), shape_of(proto.graph.input[0])


class OpenVinoDetector(ExportedDetector):
    """A file of `export_onnx` (fixed batch and size, no NMS) that OpenVINO computes.

    It takes floats or an INT8 export for CPUs; the symmetric one for TensorRT is refused, because OpenVINO computes
    its Concats on one scale and is wrong there. threads is the number of CPU threads (default: OpenVINO's choice).
    Raises ImportError where OpenVINO is missing, FileNotFoundError or ValueError for a file that does not fit.
    """

    remedy = "export it for that size"

    def __init__(self, path: str | Path, threads: int | None = None):
        info, shape = _read(path)
        if (info.images, info.outputs) != ("float_nchw", "boxes_and_scores") or -1 in shape:
            raise ValueError(f"{path} has NMS, preprocessing or open sizes in it: export it without for OpenVINO.")
        if info.activations == "int8":
            raise ValueError(f"{path} is quantized for TensorRT: export one with QuantPolicy.cpu() for OpenVINO.")
        try:
            import openvino
        except ImportError as error:
            raise ImportError("OpenVINO is not installed: pip install 'yolonas-lab[openvino]'.") from error
        super().__init__(path, info, [(shape, shape)])
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        settings |= {"INFERENCE_NUM_THREADS": threads} if threads is not None else {}
        self.compiled: Any = openvino.compile_model(str(path), "CPU", settings)

    def _compute(self, inputs: Tensor) -> dict[str, Tensor]:
        found = self.compiled(inputs.numpy())  # arrays that the next call overwrites
        return {name: torch.from_numpy(found[name].copy()) for name in ("boxes", "scores")}


class TensorRTDetector(ExportedDetector):
    """A plan of `build_engine` that TensorRT computes; boxes and scores stay on the GPU.

    trt is the module to use (default: the one that wrote the plan). cuda_graph records the launches of all kernels once
    per shape and replays them, which saves the CPU's part of the time and pays at batch 1. Tensors keep their place in
    GPU memory for as long as the shape stays. Raises ImportError for a missing package, ValueError for a plan that is
    damaged, of another version or for another GPU, and where there is no GPU.
    """

    remedy = "build it with a profile that reaches there"

    def __init__(self, plan: str | Path, trt: ModuleType | None = None, cuda_graph: bool = False, device: str = "cuda"):
        content, writer, version, card = read_plan(plan)
        trt = trt or find_tensorrt(writer)
        check_plan(plan, writer, version, card, trt)
        engine: Any = load_engine(trt, plan, content)
        fixed = _dims(engine.get_tensor_shape("images"))
        profiles = range(engine.num_optimization_profiles if -1 in fixed else 0)
        shapes = [engine.get_tensor_profile_shape("images", index) for index in profiles]
        ranges = [(_dims(smallest), _dims(largest)) for smallest, _, largest in shapes] or [(fixed, fixed)]
        super().__init__(plan, read_info(card.metadata, str(plan)), ranges, device)
        self._trt, self._engine, self._context = trt, engine, engine.create_execution_context()
        self._tensors = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        self._profile = 0  # the one that a new context has
        self._stream = torch.cuda.Stream(self.device)  # the default stream would make TensorRT wait after each run
        self._use_graph = cuda_graph
        self._graph: Any = None  # a torch.cuda.CUDAGraph of the last shape
        self._buffers: dict[str, Tensor] = {}

    def _compute(self, inputs: Tensor) -> dict[str, Tensor]:
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        if not self._buffers or self._buffers["images"].shape != inputs.shape:
            self._prepare(tuple(inputs.shape))
        with torch.cuda.stream(self._stream):
            self._buffers["images"].copy_(inputs, non_blocking=True)
            self._launch()
        torch.cuda.current_stream(self.device).wait_stream(self._stream)
        return {name: self._buffers[name].clone() for name in ("boxes", "scores")}  # the next run overwrites its own

    def _prepare(self, shape: Shape) -> None:
        """Tell the engine this input shape, in a profile that holds it, and give all tensors their places."""
        self._graph = None
        profiles = [index for index, (low, high) in enumerate(self.ranges) if fits(shape, low, high)]
        if self._profile not in profiles:
            if not self._context.set_optimization_profile_async(profiles[0], self._stream.cuda_stream):
                raise RuntimeError(f"TensorRT could not switch to optimization profile {profiles[0]}.")
            self._profile = profiles[0]
        self._context.set_input_shape("images", shape)
        for name in self._tensors:
            dims, dtype = _dims(self._context.get_tensor_shape(name)), self._engine.get_tensor_dtype(name)
            empty = torch.from_numpy(np.empty(0, self._trt.nptype(dtype)))
            self._buffers[name] = torch.empty(dims, dtype=empty.dtype, device=self.device)
            self._context.set_tensor_address(name, self._buffers[name].data_ptr())

    def _launch(self) -> None:
        if self._use_graph and self._graph is None:
            self._execute()  # once outside: TensorRT finishes its preparations for a new shape in the first run
            self._stream.synchronize()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._execute()
        if self._use_graph:
            self._graph.replay()
        else:
            self._execute()

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._stream.cuda_stream):
            raise RuntimeError("TensorRT could not start the engine; its log above says why.")


def _dims(shape: Any) -> Shape:
    """TensorRT's Dims as a tuple; they have a length and an index, and do not promise to be iterable."""
    return tuple(shape[axis] for axis in range(len(shape)))
