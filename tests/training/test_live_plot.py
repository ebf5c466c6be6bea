"""The plot in a running notebook: drawn now and then, into one place, and never anywhere else."""

import sys
from types import SimpleNamespace

import matplotlib
import pytest

from yolonas_lab.training import History
from yolonas_lab.training import report as live_plot
from yolonas_lab.training.report import SHARE, SHORTEST_PAUSE, LivePlot, in_live_notebook

matplotlib.use("Agg")

HISTORY = History([{"step": s, "epoch": 0.0, "total": 1.0} for s in range(1, 5)])


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(live_plot.time, "perf_counter", lambda: now.seconds)
    return now


@pytest.fixture
def shown(monkeypatch):
    """Calls of IPython's display, as if in a kernel."""
    import IPython.display

    calls = []
    handle = SimpleNamespace(update=lambda figure: calls.append("update"))
    monkeypatch.setattr(IPython.display, "display", lambda figure, display_id: calls.append("display") or handle)
    monkeypatch.setattr(live_plot, "in_live_notebook", lambda: True)
    return calls


def test_one_figure_is_shown_and_then_updated(clock, shown):
    import matplotlib.pyplot as plt

    plot = LivePlot(wanted=True)
    plot.update(HISTORY)
    assert shown == []  # too early
    for expected in (["display"], ["display", "update"]):
        clock.seconds += SHORTEST_PAUSE
        plot.update(HISTORY)
        plot.update(HISTORY)  # at once again: nothing
        assert shown == expected
    plot.update(HISTORY, now=True)
    assert shown == ["display", "update", "update"]
    assert plt.get_fignums() == []


def test_drawing_takes_no_more_than_its_share(clock, shown, monkeypatch):
    plot = LivePlot(wanted=True)

    def slow(history):
        clock.seconds += 3.0
        shown.append("drawn")

    monkeypatch.setattr(plot, "_draw", slow)
    clock.seconds += SHORTEST_PAUSE
    plot.update(HISTORY)
    clock.seconds += 3.0 / SHARE - 1
    plot.update(HISTORY)
    assert shown == ["drawn"]
    clock.seconds += 1
    plot.update(HISTORY)
    assert shown == ["drawn", "drawn"]


def test_nothing_is_drawn_where_nobody_looks(clock, shown, monkeypatch):
    LivePlot(wanted=False).update(HISTORY)
    LivePlot(wanted=True).update(History(), now=True)  # nothing to draw yet
    LivePlot(wanted=True).update(HISTORY, now=True)  # never drawn before: a training of a second needs no plot
    monkeypatch.setattr(live_plot, "in_live_notebook", lambda: False)
    plot = LivePlot(wanted=True)
    clock.seconds += 100
    plot.update(HISTORY)
    assert shown == []


def test_a_live_notebook_is_a_kernel_that_may_draw(monkeypatch):
    monkeypatch.setenv("YOLONAS_LAB_STATIC", "0")
    assert not in_live_notebook()  # pytest is no kernel
    import IPython.core.getipython as getipython

    monkeypatch.setattr(getipython, "get_ipython", lambda: SimpleNamespace(kernel=object()))
    assert in_live_notebook()
    monkeypatch.setattr(getipython, "get_ipython", lambda: SimpleNamespace())  # IPython in a terminal
    assert not in_live_notebook()
    monkeypatch.setattr(getipython, "get_ipython", lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setenv("YOLONAS_LAB_STATIC", "1")
    assert not in_live_notebook()
    monkeypatch.setenv("YOLONAS_LAB_STATIC", "0")
    monkeypatch.delitem(sys.modules, "IPython")
    assert not in_live_notebook()
