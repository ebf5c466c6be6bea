"""Exports of lab models, made once per test run: tracing a model takes seconds."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

import torch

import yolonas_lab as yl
from yolonas_lab.deployment import export_onnx
from yolonas_lab.quantization import calibrate, quantize


@cache
def folder() -> Path:
    path = tempfile.mkdtemp(prefix="yolonas_lab_exports_")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return Path(path)


@cache
def pico():
    return yl.models.get("yolo_nas_pico", pretrained_weights="scenes")


@cache
def open_pico() -> Path:
    """yolo_nas_pico in float32 with open batch and size."""
    return export_onnx(pico(), folder() / "open.onnx", batch=None, dynamic_size=True)


@cache
def int8_pico() -> Path:
    """yolo_nas_pico with symmetric Q/DQ for one image of 64 px; its ranges come from noise."""
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return export_onnx(calibrate(quantize(pico()), [images], method="max"), folder() / "int8.onnx")


@cache
def float_pico() -> Path:
    """yolo_nas_pico in float32 for one image of 64 px."""
    return export_onnx(pico(), folder() / "float32.onnx")
