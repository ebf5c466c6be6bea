import pytest
import torch

import yolonas_lab as yl
from yolonas_lab.latency import network_layers
from yolonas_lab.models import CONFIGS
from yolonas_lab.teaching.lessons.nb04 import by_part, config_rows, config_table, time_parts

SIZES = [CONFIGS["yolo_nas_s"], CONFIGS["yolo_nas_m"], CONFIGS["yolo_nas_l"]]


def test_rows_hold_the_numbers_of_each_config():
    rows = config_rows(SIZES)
    stage_3 = [" ".join(words).strip() for words in rows["stage 3"]]
    assert stage_3 == ["384 ch: 5 × 96", "384 ch: 5 × 256 concat", "384 ch: 5 × 256 concat"]
    assert rows["neck up 1"][1] == ("192 ch:", "2 ×", "192", "")
    assert rows["neck down 2"][2] == ("384 ch:", "4 ×", "256 plain", "")
    assert rows["heads, strides 8, 16, 32"] == [("64, 128, 256 ch",), ("96, 192, 384 ch",), ("128, 256, 512 ch",)]


def test_only_what_differs_is_marked():
    table = config_table(SIZES)
    assert "<td>384 ch: 5 × <b>96</b></td><td>384 ch: 5 × <b>256</b> <b>concat</b></td>" in table
    assert "<td>48 ch</td><td>48 ch</td><td>48 ch</td>" in table
    assert "<b>" not in config_table([SIZES[0], SIZES[0]])
    assert table.count("<tr style=") == sum(len(set(cells)) > 1 for cells in config_rows(SIZES).values()) == 9


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
