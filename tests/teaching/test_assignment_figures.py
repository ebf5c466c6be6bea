"""Drawings of distributions and assignments: the right shapes in the right places, in the colors of their meaning."""

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.colors import same_color, to_rgba
from matplotlib.patches import Rectangle

from yolonas_lab.teaching.figures import CLASS_COLORS, GROUND_TRUTH, PREDICTION
from yolonas_lab.teaching.lessons import nb05 as af

matplotlib.use("Agg")


@pytest.fixture
def ax():
    """Fresh axes; afterwards no other figure and no changed setting may be left."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    before = dict(matplotlib.rcParams)
    yield ax
    figure.canvas.draw()
    assert plt.get_fignums() == [figure.number] and dict(matplotlib.rcParams) == before
    plt.close(figure)


def heights(patches):
    return [patch.get_height() for patch in patches]


P = [0.1, 0.2, 0.4, 0.3]


@pytest.mark.parametrize("values", [P, torch.tensor(P, requires_grad=True)])
def test_a_distribution_is_bars_with_its_expectation(ax, values):
    assert af.draw_bins(ax, values, "left") is ax
    assert heights(ax.patches) == pytest.approx(P)
    assert all(same_color(bar.get_facecolor(), PREDICTION) for bar in ax.patches)
    [line] = ax.get_lines()
    assert line.get_xdata()[0] == pytest.approx(1.9)  # 0.2 + 2 · 0.4 + 3 · 0.3
    assert line.get_label() == "expectation 1.90"
    assert ax.get_ylim() == (0, 1) and list(ax.get_xticks()) == [0, 1, 2, 3]
    assert ax.get_xlabel() == "bin (strides)" and ax.get_title() == "left"


def test_the_target_is_outlined_in_the_color_of_the_truth(ax):
    af.draw_bins(ax, P, target=[0, 0.75, 0.25, 0], expectation=False)
    outlines = ax.patches[4:]
    shown = {bar.get_x() + 0.4: bar.get_height() for bar in outlines}  # none without height: it would look like a dash
    assert shown == pytest.approx({1: 0.75, 2: 0.25}) and ax.get_lines()[:] == []
    assert all(not bar.get_fill() and same_color(bar.get_edgecolor(), GROUND_TRUTH) for bar in outlines)
    assert ax.get_legend_handles_labels()[1] == ["predicted", "target"]


def test_four_sides_are_named_and_measured_from_the_point(ax):
    assert af.draw_sides(ax, (20, 12), (4, 8, 44, 40)) is ax
    assert [text.get_text() for text in ax.texts if text.get_text()] == [
        "left\n16 px", "top\n4 px", "right\n24 px", "bottom\n28 px",
    ]  # fmt: skip
    arrows = [text for text in ax.texts if not text.get_text()]
    assert [arrow.xy for arrow in arrows] == [(4, 12), (20, 8), (44, 12), (20, 40)]
    [box] = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    assert list(box.get_bbox().extents) == [4, 8, 44, 40]
    assert same_color(box.get_edgecolor(), PREDICTION) and not box.get_fill()
    assert [line.get_xydata().tolist() for line in ax.get_lines()] == [[[20, 12]]]


POINTS = np.array([[4.0, 4], [12, 4], [4, 12], [12, 12], [8, 8]])
STRIDES = np.array([[8.0], [8], [8], [8], [16]])
OWNER = np.array([0, -1, 1, 0, 1])
QUALITY = np.array([1.0, 0.0, 0.5, 0.25, 0.75])
BOXES = np.array([[0.0, 0, 14, 14], [2, 6, 10, 16]])


def test_points_have_the_color_of_their_object_size_of_their_stride_and_opacity_of_their_quality(ax):
    image = torch.zeros(3, 16, 16)
    assert af.draw_assignment(ax, image, POINTS, STRIDES, torch.tensor(OWNER), QUALITY, BOXES, "owners") is ax
    background, first, second = ax.collections
    assert background.get_offsets().tolist() == [[12, 4]] and len(background.get_facecolor()) == 0
    assert same_color(background.get_edgecolor()[0], af.BACKGROUND)
    assert first.get_offsets().tolist() == [[4, 4], [12, 12]]
    assert second.get_offsets().tolist() == [[4, 12], [8, 8]] and second.get_sizes().tolist() == [72, 144]
    for marks, color in ((first, CLASS_COLORS[0]), (second, CLASS_COLORS[1])):
        assert marks.get_facecolor()[:, :3] == pytest.approx(np.array([to_rgba(color)[:3]] * 2))
    alphas = [*first.get_facecolor()[:, 3], *second.get_facecolor()[:, 3]]  # of qualities 1, 0.25, 0.5, 0.75
    assert alphas[0] == 1 and 0.1 < alphas[1] < 0.5 < alphas[2] < alphas[3] < 1
    outlines = [p for p in ax.patches if not same_color(p.get_edgecolor(), "white")]
    assert [list(p.get_bbox().extents) for p in outlines] == BOXES.tolist()
    assert [same_color(p.get_edgecolor(), c) for p, c in zip(outlines, CLASS_COLORS)] == [True, True]
    assert ax.get_title() == "owners" and ax.get_xlim() == (0, 16) and ax.get_ylim() == (16, 0)


def test_no_object_and_an_object_without_points_can_be_drawn(ax):
    nobody, nothing = np.full(5, -1), np.zeros(5)
    af.draw_assignment(ax, np.zeros((16, 16, 3), np.uint8), POINTS, STRIDES, nobody, nothing, np.zeros((0, 4)))
    af.draw_assignment(ax, np.zeros((16, 16, 3), np.uint8), POINTS, STRIDES, nobody, nothing, BOXES)
    assert len(ax.collections[0].get_offsets()) == 5
    assert af.draw_qualities(ax, nobody, nothing, ["ship"]) is ax


def test_qualities_are_sorted_bars_object_by_object(ax):
    assert af.draw_qualities(ax, torch.tensor(OWNER), torch.tensor(QUALITY), ["ship", "star"]) is ax
    assert heights(ax.patches) == [1.0, 0.25, 0.75, 0.5]
    centers = [bar.get_x() + bar.get_width() / 2 for bar in ax.patches]
    assert centers == pytest.approx([0, 1, 3, 4])  # a gap between the objects
    colors = [CLASS_COLORS[0]] * 2 + [CLASS_COLORS[1]] * 2
    assert all(same_color(bar.get_facecolor(), color) for bar, color in zip(ax.patches, colors))
    assert [label.get_text() for label in ax.get_xticklabels()] == ["ship: 2 points", "star: 2 points"]
    assert list(ax.get_xticks()) == [0.5, 3.5]
    assert ax.get_ylim() == (0, 1) and ax.get_ylabel() == "quality: the score to learn"


def test_cells_outside_are_hatched_and_their_numbers_made_readable(ax):
    inside = np.array([[True, False], [True, True]])
    ax.imshow(np.zeros((2, 2)))
    for row, column in np.ndindex(2, 2):
        ax.text(column, row, "0", color="white")
    assert af.hatch_outside(ax, torch.tensor(inside)) is ax
    assert {patch.get_bbox().bounds for patch in ax.patches} == {(0.5, -0.5, 1, 1)}
    assert [bool(patch.get_hatch()) for patch in ax.patches] == [False, True]
    assert [same_color(text.get_color(), "white") for text in ax.texts] == [True, False, True, True]
