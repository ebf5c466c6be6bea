"""How much slower a fake-quantized model is than the fused float model, and how long calibration takes."""

import time

import pytest
import torch

import yolonas_lab as yl
from yolonas_lab.common import machine_name, time_side_by_side
from yolonas_lab.quantization import QuantPolicy, calibrate, quantize
from yolonas_lab.quantization.calibrators import METHODS

pytestmark = pytest.mark.bench


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    print(f"\n{machine_name()}")


@pytest.mark.parametrize(("name", "side", "batch"), [("yolo_nas_nano", 64, 8), ("yolo_nas_s", 320, 1)])
def test_forward_of_a_fake_quantized_model(name, side, batch):
    torch.manual_seed(0)
    model, images = yl.models.get(name), torch.rand(batch, 3, side, side)
    versions = {"float, fused": yl.models.reparameterize(model)}
    for policy in ("tensorrt", "cpu"):
        versions[policy] = calibrate(quantize(model, getattr(QuantPolicy, policy)()), images)
    with torch.inference_mode():
        timings = time_side_by_side({n: lambda m=m: m(images) for n, m in versions.items()}, rounds=15)
    plain = timings["float, fused"].median_ms
    for timing in timings.values():
        print(f"{name}, {side} px, batch {batch}, {timing}, {timing.median_ms / plain:.2f} of float")


def test_calibration_of_nano_on_256_images():
    model = quantize(yl.models.get("yolo_nas_nano", pretrained_weights="scenes"))
    batches = list(torch.rand(256, 3, 64, 64).split(16))
    for method in METHODS:
        start = time.process_time()
        calibrate(model, batches, method=method)
        print(f"nano, 256 images of 64 px, {method}: {time.process_time() - start:.1f} s of CPU")
