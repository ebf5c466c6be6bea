import pytest
import torch

import yolonas_lab as yl
from yolonas_lab.latency import network_layers
from yolonas_lab.models import CONFIGS
from yolonas_lab.teaching.lessons.nb04 import by_part, time_parts


def test_parts_add_up():
    layers = network_layers(CONFIGS["yolo_nas_s"], 64)
    parts = by_part(layers)
    assert parts["stem"] == (9 * 3 * 48 + 48, 9 * 3 * 48 * 32 * 32)
    assert sum(p for p, _ in parts.values()) == sum(layer.parameters for layer in layers.values())
    assert sum(m for _, m in parts.values()) == sum(layer.macs for layer in layers.values())


def test_times_are_positive_and_hooks_are_taken_off_also_after_an_error():
    model = yl.models.reparameterize(yl.models.get("yolo_nas_pico"))
    times = time_parts(model, torch.rand(1, 3, 32, 32), rounds=3)
    assert list(times) == ["stem", "stages", "SPP", "neck", "heads"]
    assert all(len(values) == 3 and sum(values) > 0 for values in times.values())
    with pytest.raises(ValueError, match="multiples of 32"):
        time_parts(model, torch.rand(1, 3, 33, 32), rounds=1)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
