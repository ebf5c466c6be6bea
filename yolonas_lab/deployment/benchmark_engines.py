"""Everything on this machine that can run a model, made ready for `benchmark`: torch, onnxruntime, OpenVINO, TensorRT.

Notebooks 12 and 13. What is not installed is left out, and said so.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn

from yolonas_lab.deployment.export import export_onnx
from yolonas_lab.deployment.onnx_runtime import OnnxDetector
from yolonas_lab.deployment.openvino_runtime import OpenVinoDetector
from yolonas_lab.deployment.tensorrt import build_engine, find_tensorrt
from yolonas_lab.deployment.tensorrt_detector import TensorRTDetector
from yolonas_lab.detect import prepare
from yolonas_lab.models.reparameterize import reparameterize
from yolonas_lab.models.yolo_nas import YoloNAS
from yolonas_lab.quantization import QuantPolicy, calibrate, quantize

KINDS = ("torch", "onnxruntime", "openvino", "tensorrt")


def missing_kinds() -> dict[str, str]:
    """Each of KINDS, and why it cannot be timed here ("" if it can)."""
    reasons: dict[str, str] = dict.fromkeys(KINDS, "")
    if find_spec("openvino") is None:
        reasons["openvino"] = "not installed: pip install 'yolonas-lab[openvino]'"
    if not torch.cuda.is_available():
        reasons["tensorrt"] = "no NVIDIA GPU that torch can use: plans can be built here, but not timed"
    elif find_spec("tensorrt") is None and find_spec("tensorrt_rtx") is None:
        reasons["tensorrt"] = "not installed: pip install 'yolonas-lab[tensorrt]'"
    return reasons


def engines_for(
    model: YoloNAS, image: np.ndarray, image_size: int, folder: Path, threads: int, kinds: tuple[str, ...] = KINDS
) -> dict[str, nn.Module]:
    """The model as it is, fused, and exported in float and INT8 to `folder`, ready to run at image_size px, by name.

    INT8 is calibrated with the one image (h, w, 3), which is enough to time it and far too little to use it.
    """
    engines: dict[str, nn.Module] = {}
    if "torch" in kinds:
        engines |= {"torch": model, "torch, fused": reparameterize(model)}
    if {"onnxruntime", "openvino"}.intersection(kinds):
        plain = export_onnx(model, folder / "float32.onnx", image_size)
        cpu_int8 = export_onnx(_quantized(model, image, image_size, QuantPolicy.cpu()), folder / "cpu.onnx", image_size)
        if "onnxruntime" in kinds:
            engines["onnxruntime"] = OnnxDetector(plain, threads)
            engines["onnxruntime, INT8"] = OnnxDetector(cpu_int8, threads)
        if "openvino" in kinds:
            engines["OpenVINO"] = OpenVinoDetector(plain, threads)
            engines["OpenVINO, INT8"] = OpenVinoDetector(cpu_int8, threads)
    if "tensorrt" in kinds:
        engines |= _tensorrt_engines(model, image, image_size, folder)
    return engines


def _tensorrt_engines(model: YoloNAS, image: np.ndarray, image_size: int, folder: Path) -> dict[str, nn.Module]:
    trt = find_tensorrt()
    int8 = _quantized(model, image, image_size, QuantPolicy.tensorrt())
    files = {
        "TensorRT, half": export_onnx(model, folder / "half.onnx", image_size, precision="float16"),
        "TensorRT, INT8": export_onnx(int8, folder / "int8.onnx", image_size, precision="float16"),
    }
    engines: dict[str, nn.Module] = {"torch, fused, on the GPU": reparameterize(model).cuda()}
    for name, file in files.items():
        plan = file.with_suffix(".plan")
        build_engine(file, plan, trt)
        engines[name] = TensorRTDetector(plan, trt)
        engines[f"{name}, CUDA graph"] = TensorRTDetector(plan, trt, cuda_graph=True)
    return engines


def _quantized(model: YoloNAS, image: np.ndarray, image_size: int, policy: QuantPolicy) -> YoloNAS:
    inputs, _ = prepare([image], image_size)
    return calibrate(quantize(model, policy), [inputs], method="max")


def file_detector(path: Path, threads: int) -> OnnxDetector | TensorRTDetector:
    """The detector for an exported file: onnxruntime for .onnx, TensorRT for .plan. Raises ValueError for others."""
    if path.suffix == ".onnx":
        return OnnxDetector(path, threads)
    if path.suffix == ".plan":
        return TensorRTDetector(path)
    raise ValueError(f"{path} is neither an .onnx file nor a .plan: give files of `export` and `build-engine`.")
