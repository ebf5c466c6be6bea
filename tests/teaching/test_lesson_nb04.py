import pytest

from yolonas_lab.models import CONFIGS
from yolonas_lab.teaching.lessons.nb04 import config_rows, config_table, draw_network

SIZES = [CONFIGS["yolo_nas_s"], CONFIGS["yolo_nas_m"], CONFIGS["yolo_nas_l"]]


def test_rows_hold_the_numbers_of_each_config():
    rows = dict(config_rows(SIZES))
    stage_3 = [" ".join(words).strip() for words in rows["stage 3"]]
    assert stage_3 == ["384 ch: 5 × 96", "384 ch: 5 × 256 concat", "384 ch: 5 × 256 concat"]
    assert rows["neck up 1"][1] == ("192 ch:", "2 ×", "192", "")
    assert rows["neck down 2"][2] == ("384 ch:", "4 ×", "256 plain", "")
    assert rows["heads, strides 8, 16, 32"] == [("64, 128, 256 ch",), ("96, 192, 384 ch",), ("128, 256, 512 ch",)]
    assert list(rows)[4:7] == ["stage 4", "SPP windows", "neck up 1"]


def test_only_what_differs_is_marked():
    table = config_table(SIZES)
    assert "<td>384 ch: 5 × <b>96</b></td><td>384 ch: 5 × <b>256</b> <b>concat</b></td>" in table
    assert "<td>48 ch</td><td>48 ch</td><td>48 ch</td>" in table
    assert "<b>" not in config_table([SIZES[0], SIZES[0]])
    assert table.count("<tr style=") == sum(len(set(cells)) > 1 for _, cells in config_rows(SIZES)) == 9


def test_no_config_and_a_size_off_the_grid_are_refused():
    with pytest.raises(ValueError, match="no config was given"):
        config_table([])
    with pytest.raises(ValueError, match="100"):
        draw_network(SIZES[0], image_size=100)
