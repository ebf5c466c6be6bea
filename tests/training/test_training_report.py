"""The report: what it records, when it looks at the losses, what it writes, and when it stops a training."""

import json
import math
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from tiny_training import tiny_config
from torch import Tensor

from yolonas_lab.evaluate import CocoMetrics
from yolonas_lab.training import History
from yolonas_lab.training.optim import Plan
from yolonas_lab.training.report import AP_COLUMNS, Report


class Loss(NamedTuple):
    total: Tensor
    part: Tensor


def loss(total, part=0.5):
    return Loss(torch.tensor(total, requires_grad=True), torch.tensor(part))


def one_process(device="cpu"):
    return SimpleNamespace(global_rank=0, world_size=1, device=torch.device(device))


class TwoProcesses:
    """The first of two processes; the other one always has a loss of `total` and images 100 higher."""

    world_size, device = 2, torch.device("cpu")

    def __init__(self, total, rank=0):
        self.total, self.global_rank = total, rank

    def all_reduce(self, values, reduce_op):
        assert reduce_op == "mean"
        return (values + torch.tensor([self.total, 0.5])) / 2

    def all_gather(self, ids):
        return torch.stack([ids, ids + 100])


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("YOLONAS_LAB_STATIC", "1")


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


def test_several_processes_record_their_mean():
    with report(TwoProcesses(3.0)) as r:
        r.step(1, 0.1, [loss(1.0)], [7])
    assert r.history.steps[0]["total"] == 2.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 2e6])
def test_a_loss_that_explodes_ends_it_with_step_values_images_and_a_hint(tmp_path, bad):
    with report(out_dir=tmp_path, grad_clip=None, lr=0.01) as r, pytest.raises(FloatingPointError) as caught:
        r.step(5, 0.1, [loss(bad)], [7, 8])
    message = str(caught.value)
    assert f"step 5 (total {bad:g}, part 0.5; image ids [7, 8])" in message and "\n" not in message
    assert "below 0.01 or grad_clip=10" in message and f"the last checkpoint in {tmp_path} is intact" in message
    assert r.history.steps == []


def test_the_exploded_step_is_found_among_those_that_waited():
    with report(one_process("cuda"), log_every=3) as r, pytest.raises(FloatingPointError, match=r"step 2 .*ids \[22\]"):
        for step, total in ((1, 1.0), (2, math.nan), (3, 1.0)):
            r.step(step, 0.1, [loss(total)], [20 + step])
    assert [row["step"] for row in r.history.steps] == [1]


@pytest.mark.parametrize("rank", [0, 1])
def test_the_images_of_all_processes_are_named_on_each(rank):
    with (
        report(TwoProcesses(math.nan, rank)) as r,
        pytest.raises(FloatingPointError, match=r"image ids \[7, 8, 107, 108\]"),
    ):
        r.step(1, 0.1, [loss(1.0)], [7, 8])


def metrics(ap):
    values = dict.fromkeys(AP_COLUMNS, math.nan) | {"ap": ap}
    return SimpleNamespace(**values)


def test_the_log_has_a_line_of_json_per_row_and_forgets_what_will_be_done_again(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2, "cut o')  # left by a killed process
    with report(out_dir=tmp_path) as r:
        r.step(1, 0.1, [loss(2.0)], [7])
        assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 1  # on the disk at once
        evaluated: CocoMetrics = metrics(0.25)  # type: ignore[assignment]
        r.evaluation(1, evaluated)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows[0]["total"] == 2.0 and rows[1]["ap"] == 0.25 and rows[1]["ap50"] is None
    assert r.history.evaluations[0]["seconds"] <= r.history.seconds


def test_only_the_first_process_writes(tmp_path):
    with report(TwoProcesses(1.0, rank=1), out_dir=tmp_path) as r:
        r.step(1, 0.1, [loss(2.0)], [7])
    assert len(r.history.steps) == 1 and list(tmp_path.iterdir()) == []
