import matplotlib
import numpy as np
import pytest
from matplotlib.colors import same_color

from yolonas_lab.experiments import Result
from yolonas_lab.teaching.figures import FP32, INT8, MUTED
from yolonas_lab.teaching.lessons import nb11 as drawings

matplotlib.use("Agg")


@pytest.fixture
def axes():
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2)
    yield axes
    plt.close(fig)


def lines(ax, color):
    return [line for line in ax.lines if same_color(line.get_color(), color)]


@pytest.mark.parametrize("bits", [2, 3, 5])
def test_a_staircase_has_a_step_per_integer_and_a_slope_of_0_or_1(axes, bits):
    value, slope = axes
    drawings.draw_staircase(value, slope, bits, scale=0.05)
    (stairs,), (straight,) = lines(value, INT8), lines(slope, INT8)
    assert len(np.unique(stairs.get_ydata())) == 2**bits
    x, gradient = np.asarray(straight.get_xdata()), np.asarray(straight.get_ydata())
    assert set(gradient) == {0.0, 1.0}
    low, high = x[gradient == 1].min(), x[gradient == 1].max()
    assert low == pytest.approx(-(2 ** (bits - 1) + 0.5) * 0.05, abs=0.003)
    assert high == pytest.approx((2 ** (bits - 1) - 0.5) * 0.05, abs=0.003)


def test_weights_stand_beside_their_grid_points(axes):
    ax = drawings.draw_weights_on_grid(axes[0], [[0.7, 0.2], [0.76, 0.1], [0.8, 0.3]], 0.5, ["u", "v"])
    by_label = {line.get_label(): np.asarray(line.get_ydata()) for line in ax.lines}
    np.testing.assert_allclose(by_label["u, float"], [0.7, 0.76, 0.8])
    np.testing.assert_allclose(by_label["u, on the grid"], [0.5, 1.0, 1.0])
    np.testing.assert_allclose(by_label["v, on the grid"], [0.0, 0.0, 0.5])
    edges = [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == ":"]
    assert edges == pytest.approx([0.25, 0.75])
    assert ax.get_legend() is not None


def test_a_recovery_starts_at_ptq_below_the_float_line(axes):
    ax = drawings.draw_recovery(axes[0], [0, 10, 20], [0.3, 0.4, 0.45], 0.5, "title")
    (curve,), (reference,) = lines(ax, INT8), lines(ax, FP32)
    assert list(curve.get_xdata()) == [0, 10, 20] and list(curve.get_ydata()) == [0.3, 0.4, 0.45]
    assert set(reference.get_ydata()) == {0.5}
    assert ax.get_title() == "title" and ax.get_ylim()[0] == 0


def result_of(drops):
    """A result with two seeds; drops: {arm: (seed 0, seed 1)}."""
    arms = {seed: {arm: {"ap": 0.5 - d[seed], "drop": d[seed]} for arm, d in drops.items()} for seed in (0, 1)}
    return Result(
        claim="qat_recovery", question="?", command="", git_revisions=(None,), data_digest="", machine="",
        torch_version="", settings={}, settings_digest="", budget=1.0, metrics=("ap", "drop"), comparisons=(),
        arms=arms, seconds={0: 1.0, 1: 1.0},
    )  # fmt: skip


def test_bits_are_drawn_seed_by_seed_with_their_means(axes):
    drops = {"B W8 PTQ": (0.0, 0.01), "B W8 QAT": (0.0, 0.0), "B W4 PTQ": (0.1, 0.2), "B W4 QAT": (0.02, 0.04)}
    ax = drawings.draw_bits(axes[0], result_of(drops | {"B float, trained on": (-0.01, -0.03)}), "B", bits=(8, 4))
    mean, *seeds = lines(ax, MUTED)
    np.testing.assert_allclose(mean.get_ydata(), [0.005, 0.15])
    np.testing.assert_allclose([s.get_ydata() for s in seeds], [[0.0, 0.1], [0.01, 0.2]])
    np.testing.assert_allclose(lines(ax, INT8)[0].get_ydata(), [0.0, 0.03])
    assert sorted(line.get_ydata()[0] for line in lines(ax, FP32)) == pytest.approx([-0.02, 0])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["8 bits", "4 bits"]


def test_an_unknown_block_is_named(axes):
    with pytest.raises(ValueError, match="arm"):
        drawings.draw_bits(axes[0], result_of({"B W8 PTQ": (0.0, 0.0)}), "C")
