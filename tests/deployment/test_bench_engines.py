"""What `make bench` prints of deployment: every engine here on yolo_nas_s at 640 px, one thread. Asserts no times."""

import numpy as np
import pytest
import torch

import yolonas_lab as yl
from yolonas_lab.deployment.benchmark import benchmark, engines_for, missing_kinds

pytestmark = pytest.mark.bench


def test_s_at_640_px(tmp_path):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    kinds = tuple(kind for kind, reason in missing_kinds().items() if not reason)
    engines = engines_for(yl.models.get("yolo_nas_s"), image, 640, tmp_path, threads=1, kinds=kinds)
    result = benchmark(engines, image, 640)
    print(f"\n{result}")
    print(f"onnxruntime float / torch unfused: {result.ratio('onnxruntime', to='torch'):.2f}")
    for name in ("onnxruntime, INT8", "OpenVINO, INT8"):
        if name in engines:
            print(f"{name} / onnxruntime float: {result.ratio(name, to='onnxruntime'):.2f}")
