"""The record of a training, and what it tells while it runs: progress bar, live plot and log file.

Notebook 06. On a GPU losses are looked at only now and then, because each look waits for it; one that explodes stops
the training.
"""

import json
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from yolonas_lab.common import progress_bar, write_bytes
from yolonas_lab.evaluate import CocoMetrics
from yolonas_lab.training.config import Plan, TrainConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Row = dict[str, float]
LOSS_COLOR, AP_COLOR = "#7F7F7F", "#111111"  # grey and black: training and validation, as everywhere in the book
AP_COLUMNS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
EXPLODED = 1e6  # a detection loss starts below 100; beyond this it is not coming back
SHARE = 0.03  # of the training's time that drawing may take
SHORTEST_PAUSE = 2.0  # seconds


@dataclass
class History:
    """What happened, as rows of numbers.

    steps: one row per step with step (from 1), epoch, lr, total and the parts of the loss, means over the batch.
    evaluations: one row each with step, epoch, the APs in [0, 1] and seconds, the training time until then.
    """

    steps: list[Row] = field(default_factory=list)
    evaluations: list[Row] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def best_ap(self) -> float:
        """The largest AP of all evaluations; NaN where there was none."""
        return max((row["ap"] for row in self.evaluations if not math.isnan(row["ap"])), default=math.nan)

    @property
    def last_ap(self) -> float:
        """The AP of the last evaluation; NaN where there was none."""
        return self.evaluations[-1]["ap"] if self.evaluations else math.nan

    def column(self, name: str) -> np.ndarray:
        """One column of the steps, as (n,) float64."""
        return np.array([row[name] for row in self.steps], dtype=np.float64)

    def plot(self, ax: Any = None) -> Any:
        """Draw the loss (thin: every step; thick: smoothed) and, on a second axis, the AP of the evaluations."""
        import matplotlib.pyplot as plt

        ax = ax if ax is not None else plt.subplots()[1]
        steps, loss = self.column("step"), self.column("total")
        ax.plot(steps, loss, color=LOSS_COLOR, linewidth=0.6, alpha=0.4)
        ax.plot(steps, smooth(loss), color=LOSS_COLOR, label="loss, smoothed")
        late = loss[len(loss) // 50 :]  # the first ones can be many times larger: they may leave the picture
        ax.set(xlabel="step", ylabel="loss of the training batch")
        ax.set_ylim(0, 1.1 * float(np.quantile(late, 0.99)) if len(late) else 1)
        if self.evaluations:
            right = ax.twinx()
            right.grid(False)
            right.spines["right"].set_visible(True)
            where, ap = ([row[name] for row in self.evaluations] for name in ("step", "ap"))
            right.plot(where, ap, "o-", color=AP_COLOR, markersize=4, label="AP, averaged weights")
            right.set(ylabel="AP on the validation images", ylim=(0, max(0.1, 1.08 * np.nanmax([*ap, 0]))))
            lines = [*ax.get_lines()[1:], *right.get_lines()]
            ax.legend(lines, [str(line.get_label()) for line in lines], loc="center right")
        return ax

    def __str__(self) -> str:
        if not self.steps:
            return "no step yet"
        text = f"{len(self.steps)} steps, loss {self.steps[-1]['total']:.3f}"
        return text + (f", AP {self.last_ap:.3f} (best {self.best_ap:.3f})" if self.evaluations else "")


def smooth(values: np.ndarray) -> np.ndarray:
    """Mean of each value and those before it, at most a twentieth of them all: (n,) -> (n,)."""
    count = len(values)
    sums = np.concatenate([[0.0], np.cumsum(values)])  # (n + 1,)
    first = np.maximum(np.arange(1, count + 1) - max(1, count // 20), 0)
    return (sums[1:] - sums[first]) / (np.arange(1, count + 1) - first)


class Report:
    """Records losses and APs in `history`, and on the first process shows them, until the `with` around it ends."""

    def __init__(self, history: History, config: TrainConfig, fabric: "Fabric", plan: Plan):
        self.history, self.config, self.fabric = history, config, fabric
        self.steps_per_epoch = plan.steps_per_epoch
        self.look_every = 1 if fabric.device.type == "cpu" else config.log_every
        self._waiting: list[tuple[Row, tuple[str, ...], Tensor, list[int]]] = []
        self._began = time.perf_counter() - history.seconds
        first = fabric.global_rank == 0
        self._plot = LivePlot(config.live_plot and first)
        self._bar = self._log = None
        if first:
            self._bar = progress_bar(plan.steps, "training", "step")
            self._bar.initial = self._bar.n = len(history.steps)
        if first and config.out_dir is not None:
            path = Path(config.out_dir) / "log.jsonl"  # after a kill it may hold steps that will be done again
            rows = sorted([*history.steps, *history.evaluations], key=lambda row: row["step"])
            self._log = open(write_bytes(path, b"".join(map(_line, rows))), "ab", buffering=0)  # written at once

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, *error: object) -> None:
        for thing in (self._bar, self._log):
            if thing is not None:
                thing.close()
        self._plot.update(self.history, now=True)

    def step(self, step: int, lr: float, losses: Sequence[Any], image_ids: list[int]) -> None:
        """Take in a step's losses, a NamedTuple of scalars per batch; FloatingPointError when one is not finite."""
        row = {"step": step, "epoch": step / self.steps_per_epoch, "lr": lr}
        values = torch.stack([torch.stack(loss).detach() for loss in losses]).mean(0)  # (parts,)
        self._waiting.append((row, losses[0]._fields, values, image_ids))
        if len(self._waiting) >= self.look_every:
            self.flush()
        if self._bar is not None:
            self._bar.update()

    def flush(self) -> None:
        """Read the losses that are waiting on the device into the history."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        values = torch.stack([values for _, _, values, _ in waiting])  # (steps, parts)
        if self.fabric.world_size > 1:
            values = torch.as_tensor(self.fabric.all_reduce(values, reduce_op="mean"))
        for (row, names, _, image_ids), numbers in zip(waiting, values.tolist()):
            parts = dict(zip(names, numbers))
            if not all(abs(number) < EXPLODED for number in numbers):  # NaN is not smaller than anything
                raise self._diverged(row, parts, image_ids)
            self._record(self.history.steps, {**row, **parts})
        self._show()

    def evaluation(self, step: int, metrics: CocoMetrics) -> None:
        """Take in the AP after a step."""
        row: Row = {"step": step, "epoch": step / self.steps_per_epoch}
        row |= {name: getattr(metrics, name) for name in AP_COLUMNS}
        self._record(self.history.evaluations, {**row, "seconds": time.perf_counter() - self._began})
        self._show()

    def _record(self, rows: list[Row], row: Row) -> None:
        rows.append(row)
        if self._log is not None:
            self._log.write(_line(row))

    def _show(self) -> None:
        self.history.seconds = time.perf_counter() - self._began
        if self._bar is not None:
            losses = list(self.history.steps[-1].items())[3:]  # after step, epoch and lr
            ap = f" AP {self.history.last_ap:.3f}" if self.history.evaluations else ""
            self._bar.set_postfix_str(" ".join(f"{name} {value:.3f}" for name, value in losses) + ap, refresh=False)
        self._plot.update(self.history)

    def _diverged(self, row: Row, parts: Row, image_ids: list[int]) -> Exception:
        if self.fabric.world_size > 1:  # the other processes are here too, for all see the same mean losses
            everywhere = self.fabric.all_gather(torch.tensor(image_ids, device=self.fabric.device))  # (processes, n)
            image_ids = torch.as_tensor(everywhere).flatten().tolist()
        losses = ", ".join(f"{name} {value:g}" for name, value in parts.items())
        hint = " or grad_clip=10" if self.config.grad_clip is None else ""
        return FloatingPointError(
            f"The loss is no longer a usable number at step {row['step']} ({losses}; image ids {image_ids}): try a "
            f"learning rate below {self.config.lr:g}{hint}, and look at the boxes of these images."
        )


def _line(row: Row) -> bytes:
    """A row as one line of JSON, which knows no NaN."""
    return json.dumps({name: None if math.isnan(value) else value for name, value in row.items()}).encode() + b"\n"


class LivePlot:
    """The curves in one figure below the cell, redrawn now and then; does nothing outside a live notebook."""

    def __init__(self, wanted: bool):
        self.wanted = wanted and in_live_notebook()
        self._display: Any = None
        self._next = time.perf_counter() + SHORTEST_PAUSE

    def update(self, history: History, now: bool = False) -> None:
        """Redraw if it is time for it (or `now`, and it has been drawn before)."""
        began = time.perf_counter()
        if not self.wanted or not history.steps or (began < self._next and not (now and self._display)):
            return
        import matplotlib.pyplot as plt
        from IPython.display import display

        figure, ax = plt.subplots(figsize=(7, 3))
        history.plot(ax)
        if self._display is None:
            self._display = display(figure, display_id=True)
        else:
            self._display.update(figure)
        plt.close(figure)
        ended = time.perf_counter()
        self._next = ended + max(SHORTEST_PAUSE, (ended - began) / SHARE)


def in_live_notebook() -> bool:
    """True in a Jupyter kernel, unless YOLONAS_LAB_STATIC is set: stored outputs must not depend on the clock."""
    if os.environ.get("YOLONAS_LAB_STATIC", "0") not in ("", "0") or "IPython" not in sys.modules:
        return False
    from IPython.core.getipython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None
