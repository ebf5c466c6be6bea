"""The record of a training: its numbers, its file, its plot."""

import csv
import math
import warnings

import matplotlib
import numpy as np
import pytest

from yolonas_lab.training import History
from yolonas_lab.training.history import smooth

matplotlib.use("Agg")


def record(steps=100, aps=((50, 0.2), (100, 0.1))):
    rows = [{"step": s, "epoch": s / 50, "lr": 0.1, "total": 10 / s, "dfl": 1 / s} for s in range(1, steps + 1)]
    return History(rows, [{"step": s, "epoch": s / 50, "ap": ap, "seconds": 1.0 * s} for s, ap in aps], 12.5)


@pytest.fixture
def ax():
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def test_best_and_last_ap():
    assert (record().best_ap, record().last_ap) == (0.2, 0.1)
    assert math.isnan(History().best_ap) and math.isnan(History().last_ap)
    partly = record(aps=((50, math.nan), (100, 0.3)))  # no object in the first validation
    assert partly.best_ap == 0.3


def test_columns():
    column = record(4).column("total")
    assert column.dtype == np.float64 and column.tolist() == [10, 5, 10 / 3, 2.5]
    assert History().column("total").shape == (0,)
    with pytest.raises(ValueError, match="no column 'totl'; it has: step, epoch, lr, total, dfl"):
        record().column("totl")


def test_the_file_has_a_line_per_step_and_ap_where_it_was_measured(tmp_path):
    path = record().to_csv(tmp_path / "h.csv")
    rows = list(csv.DictReader(path.open(newline="")))
    assert len(rows) == 100
    assert [row["step"] for row in rows if row["ap"]] == ["50", "100"]
    assert float(rows[2]["total"]) == 10 / 3


def test_smoothing_by_hand_and_against_brute_force():
    assert smooth(np.array([1.0, 3.0, 5.0, 7.0]), window=2).tolist() == [1, 2, 4, 6]
    values = np.random.default_rng(0).normal(size=200)
    expected = [values[max(0, i - 9) : i + 1].mean() for i in range(200)]  # a twentieth of them: 10
    np.testing.assert_allclose(smooth(values), expected)
    assert smooth(np.zeros(0)).shape == (0,)


def test_the_plot_has_the_losses_and_on_a_second_axis_the_ap(ax):
    assert record().plot(ax) is ax
    every, smoothed = ax.get_lines()
    assert every.get_ydata().tolist() == record().column("total").tolist()
    np.testing.assert_array_equal(smoothed.get_ydata(), smooth(record().column("total")))
    assert ax.get_xlabel() == "step" and ax.get_ylabel() == "loss of the training batch"
    assert ax.get_ylim()[0] == 0 and ax.get_ylim()[1] < 10  # the first steps may leave the picture
    [right] = [other for other in ax.figure.axes if other is not ax]
    [ap] = right.get_lines()
    assert (list(ap.get_xdata()), list(ap.get_ydata())) == ([50, 100], [0.2, 0.1])
    assert "AP" in right.get_ylabel()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["loss, smoothed", "AP, averaged weights"]


@pytest.mark.parametrize("aps", [(), ((100, math.nan),)])
def test_the_plot_does_without_ap(ax, aps):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        record(aps=aps).plot(ax)
        History().plot(ax)


def test_in_words_and_as_plain_values():
    assert str(History()) == "no step yet"
    assert str(record()) == "100 steps, loss 0.100, AP 0.100 (best 0.200)"
    assert str(record(aps=())) == "100 steps, loss 0.100"
    assert History(**record().to_dict()) == record()
