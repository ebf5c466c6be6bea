import itertools

import numpy as np
import pytest
from test_figures import VISION, lab

from yolonas_lab.teaching import published
from yolonas_lab.teaching.published import FAMILIES, YOLO_NAS, frontier


def test_rows_of_yolo_nas_and_the_loss_computed_from_them():
    rows = {row.name: (row.map, row.ms) for row in YOLO_NAS}
    assert rows["S FP16"] == (47.5, 3.21) and rows["L INT8"] == (52.1, 4.78) and len(rows) == 6
    losses = [round(rows[f"{size} FP16"][0] - rows[f"{size} INT8"][0], 2) for size in "SML"]
    assert losses == [0.47, 0.55, 0.12] != list(published.MAP_LOSS_IN_TEXT.values())


def test_each_network_is_there_once_and_larger_ones_are_slower_and_better():
    assert len({(row.family, row.size) for row in FAMILIES}) == len(FAMILIES) == 19
    for _, rows in itertools.groupby((*YOLO_NAS, *FAMILIES), key=lambda row: (row.family, row.number_format)):
        ms, ap = zip(*((row.ms, row.map) for row in rows))
        assert list(ms) == sorted(ms) and list(ap) == sorted(ap)


@pytest.mark.parametrize("rows", [YOLO_NAS, FAMILIES])
def test_a_frontier_is_what_none_of_the_rows_beats(rows):
    unbeaten = [r for r in rows if not any(o.map >= r.map and o.ms <= r.ms and o[3:5] != r[3:5] for o in rows)]
    assert frontier(rows) == sorted(unbeaten, key=lambda row: row.ms)


@pytest.mark.parametrize("vision", VISION)
def test_families_stay_apart_under_color_blindness(vision):
    for one, other in itertools.combinations(published.FAMILY_COLORS.values(), 2):
        assert np.linalg.norm(lab(one, vision) - lab(other, vision)) > 20, (one, other)
