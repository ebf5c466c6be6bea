import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.colors import same_color

from yolonas_lab.experiments import Result
from yolonas_lab.teaching.figures import GROUND_TRUTH, MUTED, STUDENT, TEACHER
from yolonas_lab.teaching.lessons import nb08 as drawings

matplotlib.use("Agg")


@pytest.fixture
def ax():
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def heights(ax, color):
    return [bar.get_height() for bar in ax.patches if bar.get_fill() and same_color(bar.get_facecolor(), color)]


def test_teacher_and_student_stand_side_by_side(ax):
    student = torch.tensor([0.2, 0.5, 0.3], requires_grad=True)
    assert drawings.draw_two(ax, torch.tensor([0.1, 0.6, 0.3]), student, "abc", "title", [0, 0.75, 0.25]) is ax
    assert heights(ax, TEACHER) == pytest.approx([0.1, 0.6, 0.3])
    assert heights(ax, STUDENT) == pytest.approx([0.2, 0.5, 0.3])
    frames = [bar for bar in ax.patches if not bar.get_fill()]
    assert [bar.get_height() for bar in frames] == [0.75, 0.25]
    assert all(same_color(bar.get_edgecolor(), GROUND_TRUTH) for bar in frames)
    assert [label.get_text() for label in ax.get_xticklabels()] == list("abc") and ax.get_title() == "title"


def test_a_push_is_minus_the_gradient(ax):
    drawings.draw_push(ax, torch.tensor([0.2, -0.3, 0.0]), range(3))
    assert [bar.get_height() for bar in ax.patches] == pytest.approx([-0.2, 0.3, 0.0])
    assert heights(ax, TEACHER) == pytest.approx([0.3])


def test_sure_points_are_large_and_each_stride_has_a_color(ax):
    points, strides = torch.tensor([[4.0, 4.0], [12.0, 4.0], [8.0, 8.0]]), torch.tensor([[8.0], [8.0], [16.0]])
    drawings.draw_sureness(ax, torch.rand(3, 16, 16), points, strides, torch.tensor([0.0, 1.0, 0.5]))
    fine, coarse = ax.collections
    np.testing.assert_allclose(fine.get_offsets(), points[:2])
    np.testing.assert_allclose(fine.get_sizes(), [2, 162])
    np.testing.assert_allclose(coarse.get_sizes(), [82])
    assert not same_color(fine.get_facecolor()[0], coarse.get_facecolor()[0])


@pytest.fixture
def result():
    """Two seeds: alone 0.2 and 0.3, taught 0.4 and 0.6."""
    arms = {seed: {"alone": {"ap": 0.2 + 0.1 * seed}, "taught": {"ap": 0.4 + 0.2 * seed}} for seed in (0, 1)}
    return Result(
        claim="distillation", question="?", command="", git_revisions=(None,), data_digest="", machine="",
        torch_version="", settings={}, settings_digest="", budget=1.0, metrics=("ap",),
        comparisons=(("taught", "alone"),), arms=arms, seconds={0: 1.0, 1: 1.0},
    )  # fmt: skip


def test_a_line_for_each_seed_and_a_bar_at_each_mean(ax, result):
    drawings.draw_seeds(ax, result, {"alone": "alone", "taught": "with a teacher"})
    lines = [line for line in ax.lines if line.get_linestyle() == "-" and same_color(line.get_color(), MUTED)]
    assert [list(line.get_ydata()) for line in lines] == [pytest.approx([0.2, 0.4]), pytest.approx([0.3, 0.6])]
    means = [line.get_ydata()[0] for line in ax.lines if same_color(line.get_color(), "black")]
    assert means == pytest.approx([0.25, 0.5])
    assert [text.get_text() for text in ax.texts] == ["0.25", "0.50"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["alone", "with a teacher"]
    assert ax.get_ylim()[0] == 0 and ax.get_ylabel() == "AP"


def test_panels_that_share_an_axis_show_every_dot(result):
    import matplotlib.pyplot as plt

    fig, (low, high) = plt.subplots(1, 2, sharey=True)
    drawings.draw_seeds(low, result, {"alone": "alone"})
    drawings.draw_seeds(high, result, {"taught": "taught"})
    assert low.get_ylim()[1] > 0.6
    drawings.draw_seeds(low, result, {"alone": "alone"})
    assert low.get_ylim()[1] > 0.6
    plt.close(fig)


def test_differences_are_taken_seed_by_seed(ax, result):
    drawings.draw_differences(ax, result, {("taught", "alone"): "a teacher"})
    (dots,) = [line for line in ax.lines if same_color(line.get_color(), STUDENT)]
    np.testing.assert_allclose(dots.get_xdata(), [0.2, 0.3])
    (mean,) = [line for line in ax.lines if line.get_marker() == "D"]
    np.testing.assert_allclose(mean.get_xdata(), [0.25])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a teacher"]
