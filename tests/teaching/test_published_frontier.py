import itertools

import matplotlib
import numpy as np
import pytest
from test_figures import VISION, lab

from yolonas_lab.teaching import published
from yolonas_lab.teaching.figures import MUTED
from yolonas_lab.teaching.published import YOLO_NAS

matplotlib.use("Agg")

SOURCE_IDS = [f"{source.name} {source.nms}" for source in published.SOURCES]


@pytest.fixture
def ax():
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(7.0, 4.6), layout="constrained")
    yield ax
    plt.close(figure)


@pytest.fixture(scope="module")
def panels():
    import matplotlib.pyplot as plt

    axes = published.plot_sources()
    yield axes.ravel()
    plt.close(axes.ravel()[0].figure)


def rows_of(source):
    return [row for row in published.PUBLISHED if row.source == source]


def test_every_row_has_a_source_that_says_where_and_how():
    for row in published.PUBLISHED:
        assert all((row.source.name, row.source.document, row.source.engine, row.source.batch, row.source.nms))
        assert row.source.nms in {"with NMS", "without NMS", "NMS not stated"}
        assert row.family in published.FAMILY_COLORS and row.precision in published.MARKERS
        assert 25 < row.map < 55 and 0.8 < row.ms < 25


def test_no_source_names_a_network_twice():
    keys = [(row.source, row.family, row.name, row.precision) for row in published.PUBLISHED]
    assert len(set(keys)) == len(keys)


def test_rows_of_yolo_nas_by_deci_are_those_of_notebook_00():
    rows = [(row.name, row.precision, row.map, row.ms) for row in rows_of(published.DECI)]
    assert rows == [(row.size, row.number_format, row.map, row.ms) for row in YOLO_NAS]


def test_images_a_second_are_turned_into_milliseconds():
    assert published.ms_of_fps(1000) == 1 and published.ms_of_fps(54) == pytest.approx(18.5185, abs=1e-4)
    rt_detr = {f"{row.family} {row.name}": round(row.ms, 2) for row in rows_of(published.RT_DETR)}
    assert rt_detr["YOLOv8 X"] == 20.0 and rt_detr["YOLOv5 S"] == 13.51
    yolov6 = {f"{row.name} {row.precision}": round(row.ms, 2) for row in rows_of(published.YOLOV6)}
    assert yolov6["S INT8"] == 1.62 and yolov6["S FP16"] == 2.65


@pytest.mark.parametrize("fps", [0, -3, float("nan")])
def test_no_images_a_second_are_refused(fps):
    with pytest.raises(ValueError, match="fps must be larger than 0"):
        published.ms_of_fps(fps)


@pytest.mark.parametrize("source", published.SOURCES, ids=SOURCE_IDS)
def test_frontier_of_a_source_is_what_none_of_its_rows_beats(source):
    own = rows_of(source)
    unbeaten = [
        row
        for row in own
        if not any(
            other.map >= row.map and other.ms <= row.ms and (other.map, other.ms) != (row.map, row.ms) for other in own
        )
    ]
    assert published.frontier_of(source) == sorted(unbeaten, key=lambda row: row.ms)


def test_networks_are_compared_within_a_source_only():
    slow, fast = (published.Source(name, "d", "e", "b", "n") for name in ("slow", "fast"))
    rows = [
        published.PublishedNetwork("YOLOv5", "S", 40.0, 9.0, "FP16", slow),
        published.PublishedNetwork("YOLOv8", "S", 50.0, 1.0, "FP16", fast),
    ]
    assert published.frontier_of(slow, rows) == rows[:1]


def test_larger_sizes_of_a_family_are_slower_and_better():
    key = lambda row: (row.source.document, row.family, row.precision)  # noqa: E731
    for _, rows in itertools.groupby(published.PUBLISHED, key=key):
        pairs = [(row.ms, row.map) for row in rows]
        assert pairs == sorted(pairs) and [ap for _, ap in pairs] == sorted(ap for _, ap in pairs)


def test_nms_costs_time_and_no_accuracy_in_the_table_that_has_both():
    without, with_nms = rows_of(published.LW_DETR), rows_of(published.LW_DETR_NMS)
    for one, other in zip(without, with_nms, strict=True):
        assert (one.family, one.name, one.map) == (other.family, other.name, other.map) and one.ms < other.ms


def test_a_source_without_rows_is_refused(ax):
    nobody = published.Source("nobody", "nowhere", "e", "b", "n")
    with pytest.raises(ValueError, match=r"no row of nobody \(nowhere\)"):
        published.frontier_of(nobody)
    with pytest.raises(ValueError, match="no row of nobody"):
        published.plot_published_frontier(ax, nobody)


def test_the_picture_shows_all_five_families_and_the_frontier(ax):
    assert published.plot_published_frontier(ax) is ax
    rows = rows_of(published.ULTRALYTICS)
    assert {row.family for row in rows} == set(published.FAMILY_COLORS)
    assert sorted(text.get_text() for text in ax.texts) == sorted(row.name for row in rows)
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert sorted((d.get_xdata()[0], d.get_ydata()[0]) for d in dots) == sorted((row.ms, row.map) for row in rows)
    filled = sorted(d.get_xdata()[0] for d in dots if d.get_markerfacecolor() != "white")
    assert filled == [row.ms for row in published.frontier_of(published.ULTRALYTICS)]
    stairs = next(line for line in ax.lines if line.get_color() == MUTED)
    assert list(stairs.get_xdata())[:-1] == filled and stairs.get_drawstyle() == "steps-post"
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == [*published.FAMILY_COLORS, "FP16", "beaten", "frontier of this source"]


def test_each_panel_says_who_measured_how(panels):
    for ax, source in zip(panels, published.SOURCES, strict=False):
        title = ax.get_title(loc="left") or ax.get_title()
        assert title == f"{source.name}\n{source.conditions}"
        markers = {line.get_marker() for line in ax.lines} - {"None"}
        assert markers == {published.MARKERS[row.precision] for row in rows_of(source)}
    assert "INT8" in [text.get_text() for text in panels[-1].get_legend().get_texts()]


def test_sizes_stand_apart_and_inside_their_panel(ax, panels):
    published.plot_published_frontier(ax)
    ax.figure.draw_without_rendering()
    panels[0].figure.draw_without_rendering()
    for panel in (ax, *panels[:-1]):
        boxes = [text.get_window_extent() for text in panel.texts]
        for one, other in itertools.combinations(boxes, 2):
            across = min(one.x1, other.x1) - max(one.x0, other.x0)
            down = min(one.y1, other.y1) - max(one.y0, other.y0)
            # The box of a letter is a line high, the letter itself two thirds of it.
            assert across <= 1 or down <= one.height / 3, panel.get_title(loc="left")
        frame = panel.get_window_extent()
        assert all(frame.x0 <= (b.x0 + b.x1) / 2 <= frame.x1 and frame.y0 <= b.y0 <= b.y1 <= frame.y1 for b in boxes)


def test_panels_must_be_as_many_as_sources_and_a_legend(ax):
    with pytest.raises(ValueError, match="axes must be 8, one a source and one for the legend, not 1"):
        published.plot_sources(np.array([ax]))


@pytest.mark.parametrize("vision", VISION)
def test_families_stay_apart_under_color_blindness(vision):
    for one, other in itertools.combinations(published.FAMILY_COLORS.values(), 2):
        assert np.linalg.norm(lab(one, vision) - lab(other, vision)) > 20, (one, other)
