import matplotlib
import numpy as np
import pytest

from yolonas_lab.experiments import Result, load_result
from yolonas_lab.teaching.figures import HIGHLIGHT, QAREPVGG
from yolonas_lab.teaching.lessons import nb10 as drawings

matplotlib.use("Agg")


@pytest.fixture
def ax():
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def result(arms, settings=None):
    """A result with these numbers, {seed: {arm: {metric: value}}}."""
    metrics = tuple(next(iter(arms[0].values())))
    blank = {"claim": "c", "question": "?", "command": "", "data_digest": "", "machine": "", "torch_version": ""}
    more = {"git_revisions": (), "settings_digest": "", "budget": 1.0, "comparisons": (), "seconds": {}}
    return Result(**blank, **more, settings=settings or {}, metrics=metrics, arms=arms)  # type: ignore[arg-type]


def _line(ax, label):
    return next(line for line in ax.lines if line.get_label() == label)


def test_published_drops_are_those_of_the_table():
    assert [round(drawings.published_drop(size), 2) for size in "SML"] == [0.47, 0.55, 0.12]


def test_int8_drops_are_float_minus_int8_in_points(ax):
    arms = {seed: {"pico float": {"ap": 0.5 + seed / 100}, "pico INT8": {"ap": 0.49 + seed / 200}} for seed in range(3)}
    assert drawings.draw_int8_drops(ax, result(arms, {"models": {"pico": "yolo_nas_pico"}})) is ax
    assert _line(ax, "measured, one set of scenes").get_xdata() == pytest.approx([1.0, 1.5, 2.0])
    assert _line(ax, "mean").get_xdata() == pytest.approx([1.5])
    assert [label.get_text() for label in ax.get_yticklabels()][-1] == "lab pico"


def test_drop_by_bits_goes_through_the_means(ax):
    arms = {
        seed: {
            f"{block} W{bits} per tensor": {"drop": (8 - bits) * (seed + 1)}
            for block in drawings.BLOCKS
            for bits in (8, 4)
        }
        for seed in range(2)
    }
    drawings.draw_drop_by_bits(ax, result(arms), "per tensor", bits=(8, 4))
    assert list(_line(ax, "QARepVGG").get_ydata()) == [0, 6]
    dots = [line for line in ax.lines if line.get_color() == QAREPVGG and line.get_linestyle() == "None"]
    assert list(dots[0].get_ydata()) == [0, 0, 4, 8]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["8", "4"]


def test_calibrator_bars_are_means_over_seeds(ax):
    methods = {"max": 0.4, "percentile": 0.3, "entropy": 0.2, "mse": 0.1}
    arms = {
        seed: {f"{b} A4 {m}": {"drop": drop + 0.02 * seed} for b in drawings.BLOCKS for m, drop in methods.items()}
        for seed in range(3)
    }
    drawings.draw_calibrators(ax, result(arms), 4)
    assert [bar.get_height() for bar in ax.patches] == pytest.approx([0.42, 0.32, 0.22, 0.12] * 2)
    assert [label.get_text() for label in ax.get_xticklabels()] == list(methods)


def test_selective_begins_with_all_layers_quantized(ax):
    arms = {
        seed: {
            "RepVGG W4 all": {"drop": 0.3 + seed},
            **{f"RepVGG W4 but {n} {kind}": {"drop": d} for n, kind, d in [(4, "sensitive", 0.1), (4, "random", 0.25)]},
        }
        for seed in range(2)
    }
    drawings.draw_selective(ax, result(arms, {"float_layers": [4]}), "RepVGG")
    assert list(_line(ax, "most sensitive ones").get_ydata()) == pytest.approx([0.8, 0.1])
    assert list(_line(ax, "random ones").get_ydata()) == pytest.approx([0.8, 0.25])
    assert _line(ax, "most sensitive ones").get_color() == HIGHLIGHT
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "4"]


def test_the_stored_results_can_be_drawn(ax):
    drawings.draw_int8_drops(ax, load_result("int8_drop"))
    by_bits = load_result("quantization_bits")
    for granularity in ("per tensor", "per channel"):
        drawings.draw_drop_by_bits(ax, by_bits, granularity)
    for bits in (8, 4):
        drawings.draw_calibrators(ax, by_bits, bits)
    for block in drawings.BLOCKS:
        drawings.draw_selective(ax, load_result("selective_quantization"), block)
    assert np.isfinite(ax.dataLim.get_points()).all()
