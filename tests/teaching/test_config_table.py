import pytest

from yolonas_lab.models import CONFIGS
from yolonas_lab.teaching.config_table import config_rows, config_table

SIZES = [CONFIGS["yolo_nas_s"], CONFIGS["yolo_nas_m"], CONFIGS["yolo_nas_l"]]


def test_rows_hold_the_numbers_of_each_config():
    rows = dict(config_rows(SIZES))
    assert rows["stage 3: hidden channels"] == ["96", "256", "256"]
    assert rows["stage 4: concat all"] == ["no", "no", "yes"]
    assert rows["neck up 1: hidden channels"] == ["64", "192", "128"]
    assert rows["neck down 2: bottlenecks"] == ["2", "3", "4"]
    assert rows["head channels"] == ["64, 128, 256", "96, 192, 384", "128, 256, 512"]
    assert [name for name, _ in config_rows(SIZES)][16:19] == [
        "stage 4: concat all",
        "SPP windows",
        "neck up 1: output channels",
    ]


def test_only_rows_that_differ_are_marked():
    table = config_table(SIZES)
    assert "<td><b>96</b></td><td><b>256</b></td><td><b>256</b></td>" in table
    assert "<td>48</td><td>48</td><td>48</td>" in table
    assert "<b>" not in config_table([SIZES[0], SIZES[0]])
    differing = sum(len(set(values)) > 1 for _, values in config_rows(SIZES))
    assert table.count("<tr style=") == differing


def test_no_config_is_refused():
    with pytest.raises(ValueError, match="no config was given"):
        config_table([])
