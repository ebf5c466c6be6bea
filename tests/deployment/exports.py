"""Exports of lab models, made once per test run, whichever of its processes needs them first: tracing takes seconds."""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

import yolonas_lab as yl
from yolonas_lab.data import CocoDataset
from yolonas_lab.deployment import export_onnx
from yolonas_lab.models import YoloNAS
from yolonas_lab.quantization import QuantPolicy, calibrate, quantize


def folder() -> Path:
    """What the processes of this test run share; tests/conftest.py makes and removes it."""
    return Path(os.environ["YOLONAS_LAB_TEST_EXPORTS"])


def once(name: str, export: Callable[[Path], Path]) -> Path:
    """The file of that name in the folder, written by `export` where it is not there yet.

    Two processes that need it at once both write it: export_onnx replaces a file as a whole, by the same bytes.
    """
    path = folder() / name
    return path if path.exists() else export(path)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@cache
def pico() -> YoloNAS:
    return yl.models.get("yolo_nas_pico", pretrained_weights="scenes")


@cache
def nano() -> YoloNAS:
    return yl.models.get("yolo_nas_nano", pretrained_weights="scenes")


@cache
def open_pico() -> Path:
    """yolo_nas_pico in float32 with open batch and size."""
    return once("open.onnx", lambda path: export_onnx(pico(), path, batch=None, dynamic_size=True))


@cache
def int8_pico() -> Path:
    """yolo_nas_pico with symmetric Q/DQ for one image of 64 px; its ranges come from noise."""
    model = calibrate(quantize(pico()), [noise(2, 3, 64, 64)], method="max")
    return once("int8.onnx", lambda path: export_onnx(model, path))


@cache
def float_pico() -> Path:
    """yolo_nas_pico in float32 for one image of 64 px."""
    return once("float32.onnx", lambda path: export_onnx(pico(), path))


@cache
def all_ends_pico() -> Path:
    """yolo_nas_pico in float16 for two uint8 images, with NMS."""
    ends = {"precision": "float16", "batch": 2, "nms": True, "preprocess": True}
    return once("all_ends.onnx", lambda path: export_onnx(pico(), path, **ends))


@cache
def float_nano() -> Path:
    """yolo_nas_nano in float32 for two images of 64 px."""
    return once("float_nano.onnx", lambda path: export_onnx(nano(), path, batch=2))


@cache
def int8_nano() -> Path:
    """For TensorRT: symmetric int8."""
    return once("int8_nano.onnx", lambda path: export_onnx(quantized_nano(QuantPolicy()), path, batch=8))


@cache
def cpu_nano() -> Path:
    """For CPUs: uint8 activations, 7-bit weights."""
    return once("cpu_nano.onnx", lambda path: export_onnx(quantized_nano(QuantPolicy.cpu()), path, batch=8))


@cache
def quantized_nano(policy: QuantPolicy) -> YoloNAS:
    return calibrate(quantize(nano(), policy), [scene_images()], method="max")


@cache
def scenes() -> CocoDataset:
    here = folder() / f"scenes_{os.getpid()}"  # drawing is not done in one step: each process draws its own
    made = yl.data.make_scenes(here, train=0, val=64, image_size=64, seed=5, difficulty=0.5)
    return CocoDataset(made.images_dir("val"), made.annotations("val"))


@cache
def scene_images() -> Tensor:
    """Eight scenes as the network takes them, (8, 3, 64, 64)."""
    images = [torch.from_numpy(scenes()[index].image).permute(2, 0, 1) / 255 for index in range(8)]
    return torch.stack(images)
