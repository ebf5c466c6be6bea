import matplotlib
import pytest
import torch
from matplotlib.colors import same_color

from yolonas_lab.teaching import figures
from yolonas_lab.teaching.lessons import nb01 as box_figures

matplotlib.use("Agg")


@pytest.fixture
def ax():
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def _filled(ax, color):
    return [p.get_bbox().bounds for p in ax.patches if p.get_fill() and same_color(p.get_facecolor()[:3], color)]


def test_grid_paper_has_y_downwards(ax):
    assert box_figures.grid_paper(ax, 5, 3) is ax
    assert ax.get_xlim() == (0, 5) and ax.get_ylim() == (3, 0)
    assert list(ax.get_xticks()) == [0, 1, 2, 3, 4, 5]


def test_a_pair_shades_the_intersection_where_there_is_one(ax):
    assert box_figures.draw_pair(ax, (1, 1, 6, 5), (4, 3, 9, 6)) is ax
    assert _filled(ax, figures.HIGHLIGHT) == [(4, 3, 2, 2)]
    assert _filled(ax, figures.MUTED) == [(1, 1, 8, 5)]  # the hull
    labels = [text for text in ax.get_legend_handles_labels()[1]]
    assert sorted(labels) == ["hull", "intersection", "prediction B", "target A"]


def test_boxes_apart_have_no_shaded_intersection_and_the_hull_can_be_left_out(ax):
    box_figures.draw_pair(ax, (0, 0, 1, 1), (5, 5, 6, 6), hull=False)
    assert _filled(ax, figures.HIGHLIGHT) == [(0, 0, 0, 0)] and _filled(ax, figures.MUTED) == []


def test_cells_are_counted_shared_ones_first(ax):
    box_figures.count_cells(ax, (1, 1, 6, 5), (4, 3, 9, 6))
    numbers = {text.get_position(): int(text.get_text()) for text in ax.texts}
    assert sorted(numbers.values()) == list(range(1, 32))
    assert sorted(numbers[x + 0.5, y + 0.5] for x in (4, 5) for y in (3, 4)) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("xyxy", ["(2, 3)", "(8, 7)"]),
        ("cxcywh", ["(5, 5)", "w = 6", "h = 4"]),
        ("xywh", ["(2, 3)", "w = 6", "h = 4"]),
    ],
)
def test_a_format_shows_its_four_numbers(ax, name, words):
    assert box_figures.draw_format(ax, (2, 3, 8, 7), name) is ax
    assert [text.get_text() for text in ax.texts if text.get_text()] == words


def test_an_unknown_format_is_refused(ax):
    with pytest.raises(ValueError, match='"xyxy", "cxcywh" or "xywh"'):
        box_figures.draw_format(ax, (2, 3, 8, 7), "yxyx")


def test_kept_boxes_are_solid_and_dropped_ones_dashed(ax):
    boxes = torch.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2]])
    box_figures.draw_kept(ax, boxes, [1], "AB", [figures.FP32, figures.INT8])
    dropped, kept = ax.patches
    assert dropped.get_linestyle() == "--" and kept.get_linestyle() in ("-", "solid")
    assert same_color(kept.get_edgecolor(), figures.INT8)


def test_the_funnel_starts_on_top_and_names_its_numbers(ax):
    assert box_figures.draw_funnel(ax, {"all": 50_400, "after NMS": 5}) is ax
    assert [text.get_text() for text in ax.texts] == ["50,400", "5"]
    bottom, top = ax.get_ylim()
    assert bottom > top and ax.get_xscale() == "log"
