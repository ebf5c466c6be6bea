import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.colors import same_color

from yolonas_lab.quantization import Frontier, FrontierPoint, Histogram, Sensitivity
from yolonas_lab.teaching.figures import FP32, HIGHLIGHT, INT8, WRONG
from yolonas_lab.teaching.lessons import nb10 as drawings

matplotlib.use("Agg")


@pytest.fixture
def ax():
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def _texts(ax):
    return [text.get_text() for text in ax.texts]


def _dots(ax, color):
    return [float(line.get_xdata()[0]) for line in ax.lines if same_color(line.get_color(), color)]


def test_number_line_sends_each_value_to_its_grid_point_and_marks_clipped_ones(ax):
    values = torch.tensor([-0.7, 0.1, 1.3])
    assert drawings.draw_number_line(ax, values, torch.tensor(0.3), torch.tensor(0), -4, 3) is ax
    targets = [text.xy[0] for text in ax.texts if hasattr(text, "xy")]
    assert targets == pytest.approx([-0.6, 0, 0.9])
    assert _dots(ax, WRONG) == pytest.approx([1.3]) and _dots(ax, FP32) == pytest.approx([-0.7, 0.1])
    assert [t for t in _texts(ax) if t] == ["-4", "-3", "-2", "-1", "0", "1", "2", "3"]


def test_number_line_with_a_zero_point_begins_left_of_zero(ax):
    drawings.draw_number_line(ax, torch.tensor([0.0]), torch.tensor(0.5), torch.tensor(2), 0, 3)
    labels = {text.get_text(): text.get_position()[0] for text in ax.texts if text.get_text()}
    assert labels == {"0": -1.0, "1": -0.5, "2": 0.0, "3": 0.5}


@pytest.mark.parametrize(("low", "high", "origin", "shown"), [(-128, 127, 0, [-128, 0, 127]), (0, 255, 0, [0, 255])])
def test_a_long_grid_has_labels_at_its_ends_and_at_zero_only(low, high, origin, shown):
    assert drawings._labeled(low, high, origin) == shown


def test_channels_are_sorted_with_the_reach_and_the_half_step(ax):
    weight = torch.tensor([[0.1, -0.2], [0.7, 0.3], [0.0, 0.5]])[:, :, None, None]
    assert drawings.draw_channels(ax, weight, bits=3) is ax
    assert [bar.get_height() for bar in ax.patches] == pytest.approx([0.7, 0.5, 0.2])
    assert [line.get_ydata()[0] for line in ax.lines] == pytest.approx([0.7, 0.7 / 3 / 2])


def test_histogram_counts_what_was_seen_and_names_the_limits(ax):
    seen = Histogram()
    seen.observe(torch.tensor([0.0, 0.0, 0.5, 0.5, 2.0]))
    drawings.draw_histogram(ax, seen, {"max": 2.0, "mse": 1.25})
    assert sum(bar.get_height() for bar in ax.patches) == 3
    assert [line.get_xdata()[0] for line in ax.lines] == [2.0, 1.25]
    assert ax.get_legend_handles_labels()[1] == ["max: 2.00", "mse: 1.25"]


def test_error_parts_mark_the_lowest_sum(ax):
    drawings.draw_error_parts(ax, [1, 2, 3], [4, 1, 0.5], [0.5, 1, 4], limit=2.5)
    lines = {line.get_label(): line for line in ax.lines}
    assert list(lines["sum"].get_ydata()) == [4.5, 2, 4.5]
    (lowest,) = [line for line in ax.lines if line.get_marker() == "o"]
    assert list(lowest.get_xydata()[0]) == [2, 2]
    assert _dots(ax, HIGHLIGHT) == [2.5]


def test_sensitivity_marks_the_worst_layers_in_their_places(ax):
    values = {"backbone.stem.conv": 0.01, "neck.up1.reduce.conv": 0.04, "heads.levels.0.stem.conv": 0.02}
    drawings.draw_sensitivity(ax, Sensitivity("cheap", values), marked=2)
    marked = [bar for bar in ax.patches if same_color(bar.get_facecolor(), HIGHLIGHT)]
    assert [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in marked] == [(1, 4), (2, 2)]
    assert "1  neck.up1.reduce\n2  levels.0.stem" in _texts(ax)


def test_short_names_leave_out_what_all_share():
    assert drawings.short_name("backbone.stages.0.csp.bottlenecks.1.block1.conv") == "stages.0.csp.1.block1"
    assert drawings.short_name("neck.up1.upsample") == "neck.up1.upsample"


def test_frontier_rings_the_chosen_point_and_counts_float_layers(ax):
    points = FrontierPoint((), 0.3, 1.0), FrontierPoint(("a",), 0.5, 2.0), FrontierPoint(("a", "b"), 0.52, 3.0)
    found = Frontier(points)
    other = Frontier((points[0], FrontierPoint(("b",), 0.2, 1.5), points[2]))
    drawings.draw_frontier(ax, found, {"random": other}, 0.05, found.fastest(0.47))
    ring = [line for line in ax.lines if line.get_fillstyle() == "none"]
    assert [list(line.get_xydata()[0]) for line in ring] == [[2.0, 0.5]]
    assert _texts(ax) == ["0", "1", "2"]
    (band,) = ax.patches
    assert band.get_y() == pytest.approx(0.47)
    assert ax.get_ylim()[0] < 0.2 and np.isfinite(ax.get_ylim()).all()
    assert any(same_color(line.get_color(), INT8) for line in ax.lines)
