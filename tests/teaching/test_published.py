import itertools

import numpy as np
import pytest
from test_figures import VISION, lab

from yolonas_lab.teaching import published
from yolonas_lab.teaching.published import PUBLISHED, YOLO_NAS, frontier


def test_rows_of_yolo_nas_and_the_loss_computed_from_them():
    rows = {row.name: (row.map, row.ms) for row in YOLO_NAS}
    assert rows["S FP16"] == (47.5, 3.21) and rows["L INT8"] == (52.1, 4.78) and len(rows) == 6
    losses = [round(rows[f"{size} FP16"][0] - rows[f"{size} INT8"][0], 2) for size in "SML"]
    assert losses == [0.47, 0.55, 0.12] != list(published.MAP_LOSS_IN_TEXT.values())


def test_every_row_says_where_and_how_and_is_there_once():
    for row in PUBLISHED:
        assert all(row.source) and row.source.conditions.endswith(("with NMS", "without NMS", "NMS not stated"))
        assert row.family in published.FAMILY_COLORS and row.number_format in published.MARKERS
        assert 25 < row.map < 55 and 0.8 < row.ms < 25
    assert len({(row.source, row.family, row.name) for row in PUBLISHED}) == len(PUBLISHED) == 74


def test_images_a_second_are_turned_into_milliseconds():
    ms = {(row.source, row.family, row.name): round(row.ms, 2) for row in PUBLISHED}
    assert ms[published.RT_DETR, "YOLOv8", "X FP16"] == 20.0 and ms[published.RT_DETR, "YOLOv5", "S FP16"] == 13.51
    assert ms[published.YOLOV6, "YOLOv6", "S INT8"] == 1.62 and ms[published.YOLOV6, "YOLOv6", "S FP16"] == 2.65


def test_larger_sizes_of_a_family_are_slower_and_better():
    for _, rows in itertools.groupby(PUBLISHED, key=lambda row: (row.source, row.family, row.number_format)):
        ms, ap = zip(*((row.ms, row.map) for row in rows))
        assert list(ms) == sorted(ms) and list(ap) == sorted(ap)


def test_nms_costs_time_and_no_accuracy_in_the_table_that_has_both():
    without, with_nms = ([r for r in PUBLISHED if r.source == s] for s in (published.LW_DETR, published.LW_DETR_NMS))
    for one, other in zip(without, with_nms, strict=True):
        assert (one.family, one.size, one.map) == (other.family, other.size, other.map) and one.ms < other.ms


@pytest.mark.parametrize("source", sorted({row.source for row in PUBLISHED}), ids=lambda source: source.document)
def test_a_frontier_is_what_none_of_the_rows_beats(source):
    rows = [row for row in PUBLISHED if row.source == source]
    unbeaten = [r for r in rows if not any(o.map >= r.map and o.ms <= r.ms and o[3:5] != r[3:5] for o in rows)]
    assert frontier(rows) == sorted(unbeaten, key=lambda row: row.ms)


@pytest.mark.parametrize("vision", VISION)
def test_families_stay_apart_under_color_blindness(vision):
    for one, other in itertools.combinations(published.FAMILY_COLORS.values(), 2):
        assert np.linalg.norm(lab(one, vision) - lab(other, vision)) > 20, (one, other)
