import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import same_color

from yolonas_lab.teaching.figures import CORRECT, GROUND_TRUTH, HIGHLIGHT, PREDICTION, WRONG
from yolonas_lab.teaching.lessons.nb02 import (
    draw_found,
    draw_precision_recall,
    draw_verdicts,
    number_objects,
    verdict_legend,
)

IMAGE = np.zeros((20, 30, 3), np.uint8)
BOXES = np.array([[1, 2, 10, 12], [5, 5, 25, 15.0]])


@pytest.fixture
def ax():
    figure, axis = plt.subplots()
    yield axis
    plt.close(figure)


def test_each_verdict_has_its_color_and_the_missed_object_is_dashed(ax):
    assert draw_verdicts(ax, IMAGE, BOXES, [True, False], [[20, 1, 28, 9]], ["a", "b"]) is ax
    frames = {tuple(np.round([*p.get_xy(), p.get_width(), p.get_height()], 3)): p for p in ax.patches}
    assert same_color(frames[1, 2, 9, 10].get_edgecolor(), CORRECT)
    assert same_color(frames[5, 5, 20, 10].get_edgecolor(), WRONG)
    assert same_color(frames[20, 1, 8, 8].get_edgecolor(), HIGHLIGHT) and frames[20, 1, 8, 8].get_linestyle() == "--"
    assert [text.get_text() for text in ax.texts] == ["b", "a"]


def test_an_image_without_boxes_is_drawn_too(ax):
    draw_verdicts(ax, IMAGE, np.zeros((0, 4)), [], [])
    assert not ax.patches and ax.images


def test_verdicts_must_be_as_many_as_boxes(ax):
    with pytest.raises(ValueError, match="2 boxes, 1 verdicts"):
        draw_verdicts(ax, IMAGE, BOXES, [True], [])
    with pytest.raises(ValueError, match="1 texts"):
        draw_verdicts(ax, IMAGE, BOXES, [True, True], [], ["a"])


def test_the_legend_says_the_counts(ax):
    verdict_legend(ax.figure, 3, 2, 1)
    texts = [text.get_text() for text in ax.figure.legends[0].get_texts()]
    assert texts == ["3 true positives", "2 false positives", "1 false negatives"]


def test_the_curve_holds_what_it_was_given(ax):
    draw_precision_recall(ax, [1, 0.5], [0.5, 0.5], np.linspace(1, 0, 101))
    assert ax.lines[0].get_ydata().tolist() == [1, 0.5]
    assert len(ax.lines[1].get_xdata()) == 101 and ax.lines[1].get_xdata()[-1] == 1


def test_ground_truth_and_detections_have_their_colors_and_scores(ax):
    assert draw_found(ax, IMAGE, BOXES[:1], BOXES[1:], [0.25]) is ax
    assert [same_color(p.get_edgecolor(), c) for p, c in zip(ax.patches, (GROUND_TRUTH, PREDICTION), strict=True)] == [
        True
    ] * 2
    assert [text.get_text() for text in ax.texts] == ["0.25"]


def test_objects_are_numbered_inside_their_boxes(ax):
    number_objects(ax, BOXES)
    assert [text.get_text() for text in ax.texts] == ["1", "2"]
    for text, (x1, y1, x2, y2) in zip(ax.texts, BOXES, strict=True):
        x, y = text.get_position()
        assert x1 < x < x2 and y1 < y < y2
