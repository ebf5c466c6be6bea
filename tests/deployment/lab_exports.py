"""Exports of lab models, made once per test run, whichever of its processes needs them first: tracing takes seconds."""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

import yolonas_lab as yl
from yolonas_lab.deployment import export_onnx
from yolonas_lab.quantization import calibrate, quantize


def folder() -> Path:
    """What the processes of this test run share; tests/conftest.py makes and removes it."""
    return Path(os.environ["YOLONAS_LAB_TEST_EXPORTS"])


def once(name: str, export: Callable[[Path], Path]) -> Path:
    """The file of that name in the folder, written by `export` where it is not there yet.

    Two processes that need it at once both write it: export_onnx replaces a file as a whole, by the same bytes.
    """
    path = folder() / name
    return path if path.exists() else export(path)


@cache
def pico():
    return yl.models.get("yolo_nas_pico", pretrained_weights="scenes")


@cache
def open_pico() -> Path:
    """yolo_nas_pico in float32 with open batch and size."""
    return once("open.onnx", lambda path: export_onnx(pico(), path, batch=None, dynamic_size=True))


@cache
def int8_pico() -> Path:
    """yolo_nas_pico with symmetric Q/DQ for one image of 64 px; its ranges come from noise."""
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return once("int8.onnx", lambda path: export_onnx(calibrate(quantize(pico()), [images], method="max"), path))


@cache
def float_pico() -> Path:
    """yolo_nas_pico in float32 for one image of 64 px."""
    return once("float32.onnx", lambda path: export_onnx(pico(), path))
