"""A claim's numbers for people: one table and one figure, the same for every claim. The notebooks draw them."""

import textwrap
from typing import Any

import numpy as np

from yolonas_lab.experiments.harness import Result
from yolonas_lab.experiments.statistics import Difference

MEAN, SEED = "#111111", "#BBBBBB"  # black: what was measured; grey: what stands behind it


def table(result: Result) -> str:
    """Mean and standard deviation of each arm over the seeds, then the paired differences with their intervals."""
    arms = list(result.arms[result.seeds[0]])
    names = [_title(metric) for metric in result.metrics]
    width = max(len(arm) for arm in [*arms, *(f"{a} − {b}" for a, b in result.comparisons)])
    lines = [*textwrap.wrap(result.question, 100), _made(result), ""]
    lines.append(f"{'mean ± standard deviation':<{width}}  " + "  ".join(f"{name:^26}" for name in names))
    for arm in arms:
        cells = (_spread(result.values(arm, metric)) for metric in result.metrics)
        lines.append(f"{arm:<{width}}  " + "  ".join(f"{cell:^26}" for cell in cells))
    lines += ["", f"{'difference [95 % interval]':<{width}}  " + "  ".join(f"{name:^26}" for name in names)]
    for arm, baseline in result.comparisons:
        found = (result.difference(arm, baseline, metric) for metric in result.metrics)
        cells = (_difference(d) for d in found)
        lines.append(f"{f'{arm} − {baseline}':<{width}}  " + "  ".join(f"{cell:^26}" for cell in cells))
    return "\n".join(line.rstrip() for line in lines)


def plot(result: Result, ax: Any = None, metric: str | None = None) -> Any:
    """Draw each comparison's differences in a metric (default: the claim's first): a dot per seed, the mean, and its
    95 % interval, against the line of no difference.
    """
    import matplotlib.pyplot as plt

    metric = metric or result.metrics[0]
    ax = ax if ax is not None else plt.subplots(figsize=(6.5, 0.9 + 0.65 * len(result.comparisons)))[1]
    for row, (arm, baseline) in enumerate(result.comparisons):
        found = result.difference(arm, baseline, metric)
        offsets = row + np.linspace(-0.13, 0.13, len(found.values))  # so that no dot hides another
        first = row == 0
        ax.plot(found.values, offsets, "o", color=SEED, markersize=5, zorder=2, label="one seed" if first else None)
        label = "mean, 95 % interval" if first else None
        ax.plot([found.low, found.high], [row, row], color=MEAN, linewidth=2, zorder=3)
        ax.plot([found.mean], [row], "D", color=MEAN, markersize=6, zorder=4, label=label)
    ax.axvline(0, color=MEAN, linewidth=0.8, linestyle=":")
    ax.set_yticks(range(len(result.comparisons)), [f"{arm} − {baseline}" for arm, baseline in result.comparisons])
    ax.set_ylim(len(result.comparisons) - 0.5, -0.5)
    ax.grid(False, axis="y")
    ax.set_xlabel(f"difference in {_title(metric)}, over {_count(len(result.seeds), 'seed')}")
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, borderaxespad=0)  # hides no dot
    return ax


def _title(metric: str) -> str:
    """ "ap50" -> "AP50"."""
    return metric.upper() if metric.startswith("ap") else metric.replace("_", " ")


def _made(result: Result) -> str:
    budget = "" if result.budget == 1 else f", {result.budget:g} of the training steps"
    return f"{result.claim}: {_count(len(result.seeds), 'seed')}{budget}; {result.machine}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _difference(found: Difference) -> str:
    if len(found.values) == 1:
        return f"{found.mean:+.3f}"
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def _spread(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
