"""Drawings of what teacher and student say about one place, of where the teacher is sure, and of AP seed by seed; and
one training step to time, alone or with a teacher (notebook 08).
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from yolonas_lab.data import CocoDataset, Loader
from yolonas_lab.data.coco import Batch
from yolonas_lab.experiments import Result
from yolonas_lab.losses import DetectionLoss, DistillConfig
from yolonas_lab.models import RawPredictions
from yolonas_lab.teaching import figures
from yolonas_lab.teaching.figures import MUTED, STUDENT, TEACHER, as_array, show_image
from yolonas_lab.teaching.lessons.nb05 import outline_bars
from yolonas_lab.training import LAB, WeightAverage, make_optimizer
from yolonas_lab.training.devices import make_fabric
from yolonas_lab.training.fit import with_teacher

GRID_COLORS = {8: "#0072B2", 16: "#E69F00", 32: "#009E73"}  # strides, fine to coarse


def draw_two(ax: Any, teacher: Any, student: Any, names: Sequence[Any], title: str, target: Any = None) -> Any:
    """Two sets of numbers (n,) in [0, 1], scores or bins, as pairs of bars; a target (n,) as outlines behind both."""
    at = np.arange(len(names))
    if target is not None:
        outline_bars(ax, target, width=0.92, label="label")
    ax.bar(at - 0.2, as_array(teacher), 0.4, color=TEACHER, label="teacher")
    ax.bar(at + 0.2, as_array(student), 0.4, color=STUDENT, label="student")
    ax.set_xticks(at, names)
    ax.set(ylim=(0, 1), xlim=(-0.6, len(names) - 0.4))
    ax.set_title(title, fontsize=11)
    return ax


def draw_push(ax: Any, gradient: Any, names: Sequence[Any], title: str) -> Any:
    """Where descent pushes each logit: minus a gradient (n,), up in the teacher's color, down in the student's."""
    push = -as_array(gradient)
    ax.bar(range(len(push)), push, 0.7, color=[TEACHER if p > 0 else STUDENT for p in push])
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set_xticks(range(len(push)), names)
    ax.set_ylabel("push on the logit")
    ax.set_title(title, fontsize=11)
    return ax


def draw_sureness(ax: Any, image: Any, points: Any, strides: Any, sure: Any, title: str) -> Any:
    """A disc at every anchor point (a, 2) px over the image: its area is the sureness (a,), its color the stride."""
    show_image(ax, image, title)
    xy, s, sizes = as_array(points), as_array(strides).reshape(-1), as_array(sure)
    for stride, color in GRID_COLORS.items():
        some = s == stride
        look = {"color": color, "alpha": 0.8, "edgecolor": "white", "linewidth": 0.6, "label": f"stride {stride}"}
        ax.scatter(*xy[some].T, s=2 + 160 * sizes[some], **look)
    return ax


def draw_seeds(ax: Any, result: Result, arms: Mapping[str, str], title: str) -> Any:
    """AP of a claim's arms (-> words below the axis): a line per seed, a bar at the mean; the baseline is first."""
    values = np.array([result.values(arm, "ap") for arm in arms])  # (arms, seeds)
    at = np.arange(len(arms))
    ax.plot(at, values, "-", color=MUTED, linewidth=0.8, zorder=1)
    plate = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
    for number, row in enumerate(values):
        color = MUTED if number == 0 else STUDENT
        ax.plot(np.full(len(row), number), row, "o", color=color, markersize=5, markeredgecolor="white", zorder=2)
        ax.plot([number - 0.25, number + 0.25], [row.mean()] * 2, color="black", linewidth=2.2, zorder=3)
        ax.text(number + 0.28, row.mean(), f"{row.mean():.2f}", va="center", fontsize=9, bbox=plate)
    ax.set_xticks(at, list(arms.values()))
    top = max(ax.get_ylim()[1], 1.05 * values.max())  # of an axis that several panels may share
    ax.set(xlim=(-0.5, len(arms) - 0.2), ylim=(0, top), ylabel="AP")
    ax.set_title(title, fontsize=11)
    return ax


def draw_differences(ax: Any, result: Result, pairs: Mapping[tuple[str, str], str]) -> Any:
    """Differences of (arm, baseline) pairs (-> words beside the axis): a dot per seed, mean and 95 % interval."""
    found = {name: result.difference(*pair, "ap") for pair, name in pairs.items()}
    return figures.draw_differences(ax, found, STUDENT, "difference in AP")


def training_step(model: nn.Module, dataset: CocoDataset, teacher: nn.Module | None = None) -> Callable[[], object]:
    """A function that trains a copy of the model for one more step each time it is called; the model stays as it is.

    It does what `fit` does in a step, on one prepared batch, so that reading images does not count.
    """
    batch = next(iter(Loader(dataset, LAB.batch_size, LAB.image_size, LAB.augmentation, LAB.seed).batches(0)))
    average, network = copy.deepcopy(model).eval(), copy.deepcopy(model).train()
    ema = WeightAverage(average, network, LAB.ema_decay)
    optimizer = make_optimizer(network, LAB.lr, LAB.weight_decay)
    loss = DetectionLoss(len(dataset.class_names))

    def alone(raw: RawPredictions, batch: Batch) -> Any:
        return loss(raw, batch.targets)

    compute_loss = with_teacher(alone, teacher, DistillConfig(), make_fabric(LAB)) if teacher else alone

    def step() -> None:
        compute_loss(network(batch.images), batch).total.backward()
        if LAB.grad_clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), LAB.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
        ema.update(1000)

    return step
