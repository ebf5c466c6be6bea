"""The record of a training: its numbers, its plot, its log, when it looks at the losses, and when it stops."""

import json
import math
import warnings
from types import SimpleNamespace
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from tiny_training import tiny_config
from torch import Tensor

from yolonas_lab.training import History
from yolonas_lab.training import history as module
from yolonas_lab.training.config import Plan
from yolonas_lab.training.history import AP_COLUMNS, SHARE, SHORTEST_PAUSE, LivePlot, Report, in_live_notebook, smooth


def record(steps=100, aps=((50, 0.2), (100, 0.1))):
    rows = [{"step": s, "epoch": s / 50, "lr": 0.1, "total": 10 / s, "dfl": 1 / s} for s in range(1, steps + 1)]
    return History(rows, [{"step": s, "epoch": s / 50, "ap": ap, "seconds": 1.0 * s} for s, ap in aps], 12.5)


def test_ap_columns_and_words():
    assert (record().best_ap, record().last_ap) == (0.2, 0.1)
    assert math.isnan(History().best_ap) and math.isnan(History().last_ap)
    assert record(aps=((50, math.nan), (100, 0.3))).best_ap == 0.3  # no object in the first validation
    assert record(4).column("total").tolist() == [10, 5, 10 / 3, 2.5] and History().column("total").shape == (0,)
    assert str(History()) == "no step yet"
    assert str(record()) == "100 steps, loss 0.100, AP 0.100 (best 0.200)"


def test_smoothing_against_brute_force():
    values = np.random.default_rng(0).normal(size=200)
    expected = [values[max(0, i - 9) : i + 1].mean() for i in range(200)]  # a twentieth of them: 10
    np.testing.assert_allclose(smooth(values), expected)
    assert smooth(np.zeros(0)).shape == (0,) and smooth(np.array([3.0])).tolist() == [3]


@pytest.mark.parametrize("aps", [((50, 0.2), (100, 0.1)), (), ((100, math.nan),)])
def test_the_plot(aps):
    figure, ax = plt.subplots()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert record(aps=aps).plot(ax) is ax
        History().plot(plt.subplots()[1])
    assert ax.get_xlabel() == "step" and ax.get_ylabel() == "loss of the training batch"
    assert ax.get_ylim()[0] == 0 and ax.get_ylim()[1] < 10  # the first steps may leave the picture
    assert [other.get_ylabel() for other in figure.axes[1:]] == ["AP on the validation images"] * bool(aps)
    plt.close("all")


class Loss(NamedTuple):
    total: Tensor
    part: Tensor


def loss(total, part=0.5):
    return Loss(torch.tensor(total, requires_grad=True), torch.tensor(part))


def one_process(device="cpu"):
    return SimpleNamespace(global_rank=0, world_size=1, device=torch.device(device))


class TwoProcesses:
    """One of two processes; the other one always has a loss of `total` and images 100 higher."""

    world_size, device = 2, torch.device("cpu")

    def __init__(self, total, rank=0):
        self.total, self.global_rank = total, rank

    def all_reduce(self, values, reduce_op):
        assert reduce_op == "mean"
        return (values + torch.tensor([self.total, 0.5])) / 2

    def all_gather(self, ids):
        return torch.stack([ids, ids + 100])


def report(fabric=None, **changes):
    config = tiny_config(steps=8, **changes)
    return Report(History(), config, fabric or one_process(), Plan(config, batches=4))  # type: ignore[arg-type]


def test_a_step_becomes_a_row():
    with report() as r:
        r.step(1, 0.1, [loss(2.0, 0.5), loss(4.0, 1.5)], [7, 8])  # two accumulated batches: their mean
        r.step(2, 0.2, [loss(1.0)], [9])
    assert r.history.steps == [
        {"step": 1, "epoch": 0.25, "lr": 0.1, "total": 3.0, "part": 1.0},
        {"step": 2, "epoch": 0.5, "lr": 0.2, "total": 1.0, "part": 0.5},
    ]
    assert r.history.seconds > 0


def test_on_a_gpu_it_looks_only_now_and_then():
    with report(one_process("cuda"), log_every=3) as r:
        rows = []
        for step in range(1, 8):
            r.step(step, 0.1, [loss(float(step))], [step])
            rows.append(len(r.history.steps))
        assert rows == [0, 0, 3, 3, 3, 6, 6]
        r.flush()
        r.flush()  # nothing is waiting
        assert r.history.column("total").tolist() == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("bad", [math.nan, -math.inf, 2e6])
def test_a_loss_that_explodes_ends_it_with_its_step_among_those_that_waited(bad):
    with report(one_process("cuda"), log_every=3, grad_clip=None, lr=0.01) as r:
        with pytest.raises(FloatingPointError, match=r"below 0.01 or grad_clip=10") as caught:
            for step, total in ((1, 1.0), (2, bad), (3, 1.0)):
                r.step(step, 0.1, [loss(total)], [20 + step])
    assert f"step 2 (total {bad:g}, part 0.5; image ids [22])" in str(caught.value)
    assert [row["step"] for row in r.history.steps] == [1]


@pytest.mark.parametrize("rank", [0, 1])
def test_several_processes_record_their_mean_and_name_the_images_of_all(tmp_path, rank):
    with report(TwoProcesses(3.0, rank), out_dir=tmp_path) as r:
        r.step(1, 0.1, [loss(1.0)], [7])
        with pytest.raises(FloatingPointError, match=r"image ids \[7, 8, 107, 108\]"):
            r.step(2, 0.1, [loss(math.nan)], [7, 8])
    assert r.history.column("total").tolist() == [2.0]
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"] * (rank == 0)  # only the first one writes


def test_the_log_has_a_line_of_json_per_row_and_forgets_what_will_be_done_again(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2, "cut o')  # left by a killed process
    with report(out_dir=tmp_path) as r:
        r.step(1, 0.1, [loss(2.0)], [7])
        assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 1  # on the disk at once
        r.evaluation(1, SimpleNamespace(**dict.fromkeys(AP_COLUMNS, math.nan) | {"ap": 0.25}))  # type: ignore[arg-type]
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows[0]["total"] == 2.0 and rows[1]["ap"] == 0.25 and rows[1]["ap50"] is None
    assert r.history.evaluations[0]["seconds"] <= r.history.seconds


def test_one_figure_is_shown_and_then_updated_where_somebody_looks(monkeypatch):
    import IPython.core.getipython as getipython
    import IPython.display

    clock, shown = SimpleNamespace(seconds=100.0), []
    handle = SimpleNamespace(update=lambda figure: shown.append("update"))
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock.seconds)
    monkeypatch.setattr(IPython.display, "display", lambda figure, display_id: shown.append("display") or handle)
    for static, shell, live in (("0", {}, False), ("1", {"kernel": 1}, False), ("0", {"kernel": 1}, True)):
        monkeypatch.setenv("YOLONAS_LAB_STATIC", static)
        monkeypatch.setattr(getipython, "get_ipython", lambda shell=shell: SimpleNamespace(**shell))
        assert in_live_notebook() == live
    plot, history = LivePlot(wanted=True), record(4)
    LivePlot(wanted=False).update(history)
    plot.update(History(), now=True)  # nothing to draw yet
    plot.update(history, now=True)  # never drawn before: a training of a second needs no plot
    assert shown == []
    for expected in (["display"], ["display", "update"]):
        clock.seconds += SHORTEST_PAUSE
        plot.update(history)
        plot.update(history)  # at once again: nothing
        assert shown == expected
    plot.update(history, now=True)
    assert len(shown) == 3 and plt.get_fignums() == []
    slow = SimpleNamespace(steps=[{}], plot=lambda ax: setattr(clock, "seconds", clock.seconds + 3))
    for pause, drawn in ((SHORTEST_PAUSE, 4), (3 / SHARE - 1, 4), (1, 5)):  # drawing takes no more than its share
        clock.seconds += pause
        plot.update(slow)  # type: ignore[arg-type]
        assert len(shown) == drawn
