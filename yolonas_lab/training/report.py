"""What a training tells while it runs: history, progress bar, live plot, log file, TensorBoard; and when to stop.

Notebook 06. Losses are looked at only now and then on a GPU, because each look waits for it.
"""

import json
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from yolonas_lab.common import progress_bar, write_atomically
from yolonas_lab.evaluate import CocoMetrics
from yolonas_lab.training.checkpoint import LOG, cannot_write
from yolonas_lab.training.config import TrainConfig
from yolonas_lab.training.history import History, Row
from yolonas_lab.training.optim import Plan

if TYPE_CHECKING:
    from lightning_fabric import Fabric


# The curves of a training, redrawn in the notebook while it runs.

SHARE = 0.03  # of the training's time that drawing may take
SHORTEST_PAUSE = 2.0  # seconds


class LivePlot:
    """One figure below the cell, redrawn now and then; does nothing outside a live notebook."""

    def __init__(self, wanted: bool):
        self.wanted = wanted and in_live_notebook()
        self._display: Any = None
        self._next = time.perf_counter() + SHORTEST_PAUSE

    def update(self, history: History, now: bool = False) -> None:
        """Redraw if it is time for it (or `now`, and it has been drawn before)."""
        if not self.wanted or not history.steps:
            return
        began = time.perf_counter()
        if began < self._next and not (now and self._display):
            return
        self._draw(history)
        took = time.perf_counter() - began
        self._next = time.perf_counter() + max(SHORTEST_PAUSE, took / SHARE)

    def _draw(self, history: History) -> None:
        import matplotlib.pyplot as plt
        from IPython.display import display

        figure, ax = plt.subplots(figsize=(7, 3))
        try:
            history.plot(ax)
            if self._display is None:
                self._display = display(figure, display_id=True)
            else:
                self._display.update(figure)
        finally:
            plt.close(figure)


def in_live_notebook() -> bool:
    """True in a Jupyter kernel, unless YOLONAS_LAB_STATIC is set: stored outputs must not depend on the clock."""
    if os.environ.get("YOLONAS_LAB_STATIC", "0") not in ("", "0") or "IPython" not in sys.modules:
        return False
    from IPython.core.getipython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None


AP_COLUMNS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
EXPLODED = 1e6  # a detection loss starts below 100; beyond this it is not coming back


class Report:
    """Records losses and APs in `history` and shows them; only the first of several processes shows anything.

    Use it as a context manager around the training, so that files and bars are closed whatever happens.
    """

    def __init__(self, history: History, config: TrainConfig, fabric: "Fabric", plan: Plan):
        self.history, self.config, self.fabric = history, config, fabric
        self.steps_per_epoch = plan.steps_per_epoch
        self.first = fabric.global_rank == 0
        self.look_every = 1 if fabric.device.type == "cpu" else config.log_every
        self._waiting: list[tuple[Row, tuple[str, ...], Tensor, list[int]]] = []
        self._seconds_before, self._began = history.seconds, time.perf_counter()
        self._bar = progress_bar(plan.steps, "training", "step") if self.first else None
        if self._bar is not None:
            self._bar.initial = self._bar.n = len(history.steps)
        self._plot = LivePlot(config.live_plot and self.first)
        self._log = self._open_log() if self.first and config.out_dir is not None else None
        self._board = _tensorboard(config, len(history.steps)) if self.first and config.tensorboard else None

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, *error: object) -> None:
        for thing in (self._bar, self._log, self._board):
            if thing is not None:
                thing.close()
        self._plot.update(self.history, now=True)

    def step(self, step: int, lr: float, losses: Sequence[Any], image_ids: list[int]) -> None:
        """Take in the losses of a step, one NamedTuple of scalars per batch that it accumulated, before the weights
        are touched; raises FloatingPointError when one is not finite.
        """
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
        for (row, names, _, image_ids), numbers in zip(waiting, values.tolist(), strict=True):
            if not all(abs(number) < EXPLODED for number in numbers):  # NaN is not smaller than anything
                raise self._diverged(row, names, numbers, self._of_all_processes(image_ids))
            row = {**row, **dict(zip(names, numbers, strict=True))}
            self.history.steps.append(row)
            self._write(row)
        self.history.seconds = self._seconds_before + time.perf_counter() - self._began
        self._show()

    def evaluation(self, step: int, metrics: CocoMetrics) -> None:
        """Take in the AP after a step."""
        self.history.seconds = self._seconds_before + time.perf_counter() - self._began
        row: Row = {"step": step, "epoch": step / self.steps_per_epoch}
        row |= {name: getattr(metrics, name) for name in AP_COLUMNS}
        row["seconds"] = self.history.seconds
        self.history.evaluations.append(row)
        self._write(row)
        self._show()

    def _show(self) -> None:
        if self._bar is not None:
            row = self.history.steps[-1]
            parts = " ".join(
                f"{name} {value:.3f}" for name, value in row.items() if name not in ("step", "epoch", "lr")
            )
            ap = f" AP {self.history.last_ap:.3f}" if self.history.evaluations else ""
            self._bar.set_postfix_str(parts + ap, refresh=False)
        self._plot.update(self.history)

    def _write(self, row: Row) -> None:
        if self._log is not None:
            try:
                self._log.write(_line(row))
            except OSError as error:
                raise cannot_write(Path(self._log.name), error, "the last checkpoint is intact") from error
        if self._board is not None:
            for name, value in row.items():
                if name not in ("step", "epoch"):
                    self._board.add_scalar(name, value, int(row["step"]))

    def _open_log(self) -> Any:
        """The log, rewritten from the history first: after a kill it may hold steps that will be done again."""
        assert self.config.out_dir is not None
        path = Path(self.config.out_dir) / LOG
        rows = sorted([*self.history.steps, *self.history.evaluations], key=lambda row: row["step"])
        try:
            write_atomically(path, lambda file: file.writelines(map(_line, rows)))
            return open(path, "ab", buffering=0)  # each line goes to the disk, or fails, at once
        except OSError as error:
            raise cannot_write(path, error, "the last checkpoint is intact") from error

    def _of_all_processes(self, image_ids: list[int]) -> list[int]:
        """The ids of this process's images and of the others', which are here too: they see the same mean losses."""
        if self.fabric.world_size == 1:
            return image_ids
        everywhere = self.fabric.all_gather(torch.tensor(image_ids, device=self.fabric.device))  # (processes, n)
        return torch.as_tensor(everywhere).flatten().tolist()

    def _diverged(self, row: Row, names: Sequence[str], numbers: Sequence[float], image_ids: list[int]) -> Exception:
        losses = ", ".join(f"{name} {number:g}" for name, number in zip(names, numbers, strict=True))
        hint = f"try a learning rate below {self.config.lr:g}"
        hint += " or grad_clip=10" if self.config.grad_clip is None else ""
        kept = ""
        if self.config.out_dir is not None:
            kept = f"; the last checkpoint in {self.config.out_dir} is intact"
        return FloatingPointError(
            f"The loss is no longer a usable number at step {row['step']} ({losses}; image ids {image_ids}): {hint}, "
            f"and look at the boxes of these images{kept}."
        )


def _line(row: Row) -> bytes:
    """A row as one line of JSON, which knows no NaN."""
    return json.dumps({name: None if math.isnan(value) else value for name, value in row.items()}).encode() + b"\n"


def _tensorboard(config: TrainConfig, step: int) -> Any:
    """A writer for out_dir/tensorboard that forgets what was written after `step`."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ModuleNotFoundError("tensorboard=True needs a package: pip install tensorboard") from error
    assert config.out_dir is not None
    return SummaryWriter(str(Path(config.out_dir) / "tensorboard"), purge_step=step + 1)
