"""The record of a training: losses of every step, AP of every evaluation, and the plot of both. Notebook 06."""

import csv
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from yolonas_lab.common import write_atomically

Row = dict[str, float]
LOSS_COLOR, AP_COLOR = "#7F7F7F", "#111111"  # grey and black: training and validation, as everywhere in the book


@dataclass
class History:
    """What happened, as rows of numbers.

    steps: one row per step with step (from 1), epoch, lr, total and the parts of the loss, means over the batch.
    evaluations: one row per evaluation with step, epoch, ap, ap50, ap75, ap_small, ap_medium, ap_large in [0, 1] and
    seconds, the training time until then without pauses between a stop and its resumption.
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
        """One column of the steps, as (n,) float64. Raises ValueError for a name that there is not."""
        if self.steps and name not in self.steps[0]:
            raise ValueError(f"the history has no column '{name}'; it has: {', '.join(self.steps[0])}.")
        return np.array([row[name] for row in self.steps], dtype=np.float64)

    def plot(self, ax: Any = None) -> Any:
        """Draw the loss (thin: every step; thick: smoothed) and, on a second axis, the AP of the evaluations."""
        import matplotlib.pyplot as plt

        ax = ax if ax is not None else plt.subplots()[1]
        steps, loss = self.column("step"), self.column("total")
        ax.plot(steps, loss, color=LOSS_COLOR, linewidth=0.6, alpha=0.4)
        ax.plot(steps, smooth(loss), color=LOSS_COLOR, label="loss, smoothed")
        ax.set(xlabel="step", ylabel="loss of the training batch", ylim=_loss_limits(loss))
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

    def to_csv(self, path: str | Path) -> Path:
        """Write every step as one line, with the AP columns filled where there was an evaluation; returns the path."""
        by_step = {row["step"]: row for row in self.evaluations}
        rows = [{**row, **by_step.get(row["step"], {})} for row in self.steps]
        names = list(dict.fromkeys(name for row in rows for name in row))

        def write(file: Any) -> None:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)

        return write_atomically(Path(path), write, text=True)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for a checkpoint."""
        return {"steps": self.steps, "evaluations": self.evaluations, "seconds": self.seconds}

    def __str__(self) -> str:
        if not self.steps:
            return "no step yet"
        text = f"{len(self.steps)} steps, loss {self.steps[-1]['total']:.3f}"
        if self.evaluations:
            text += f", AP {self.last_ap:.3f} (best {self.best_ap:.3f})"
        return text


def smooth(values: np.ndarray, window: int | None = None) -> np.ndarray:
    """Mean of each value and those before it, at most `window` (default: a twentieth of them): (n,) -> (n,)."""
    count = len(values)
    window = window or max(1, count // 20)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    first = np.maximum(np.arange(1, count + 1) - window, 0)
    return (sums[1:] - sums[first]) / (np.arange(1, count + 1) - first)


def _loss_limits(loss: np.ndarray) -> tuple[float, float]:
    """From 0 to just above what the loss is after the first steps, which can be many times larger."""
    settled = loss[len(loss) // 50 :]
    return 0.0, 1.1 * float(np.quantile(settled, 0.99)) if len(settled) else 1.0
