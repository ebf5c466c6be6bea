"""Deterministic stand-in weights for the official layout, and super-gradients' outputs for them.

Every tensor is a function of its name and shape: standard normal numbers from a generator seeded with the CRC-32 of
the name, scaled by the kind of tensor so that activations stay of order one. `tests/data/yolo_nas_s_reference.npz`
holds what super-gradients 3.7.1 predicts with these weights for `reference_images()` at 100 anchor points ("rows"):
boxes px, scores, and the fused model's.
"""

import zlib
from pathlib import Path

import numpy as np
import torch

from yolonas_lab.models import official_layout

REFERENCE = Path(__file__).parent.parent / "data" / "yolo_nas_s_reference.npz"


SPREADS = {".cv2.post_bn": 12.0, ".cv2.bn": 12.0, ".post_bn": 3.0, ".blocks.conv3.bn": 2.0}


def reference_state_dict(name: str) -> dict[str, torch.Tensor]:
    layout = official_layout(name)
    return {key: torch.from_numpy(_values(key, shape, layout)) for key, shape in layout.items()}


def reference_images() -> torch.Tensor:
    pixels = np.random.RandomState(1234).random_sample((1, 3, 320, 320))
    return torch.from_numpy(pixels.astype(np.float32))


def _values(key: str, shape: tuple[int, ...], layout: dict) -> np.ndarray:
    module, _, leaf = key.rpartition(".")
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    normal = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    if leaf == "running_var":
        spread = next((s for end, s in SPREADS.items() if module.endswith(end)), 1.0)
        values = spread * (1 + 0.2 * np.abs(normal))
    elif leaf == "weight" and len(shape) == 4:
        fan_in = shape[0] if module.endswith("upsample") else int(np.prod(shape[1:]))
        values = np.sqrt(2 / fan_in) * normal * (3 if module.endswith("_pred") else 1)
    elif leaf == "alpha" or (leaf == "weight" and f"{module}.running_mean" in layout):
        values = 1 + 0.1 * normal
    else:  # biases and running means
        values = 0.1 * normal - (2 if key.endswith("cls_pred.bias") else 0)
    return values.astype(np.float32)
