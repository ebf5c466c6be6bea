"""Drawings of what teacher and student say about one place, of where the teacher is sure, and of AP seed by seed
(notebook 08).
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from yolonas_lab.data import CocoDataset, Loader
from yolonas_lab.data.coco import Batch
from yolonas_lab.experiments import Result
from yolonas_lab.losses import DetectionLoss, DistillConfig, LossParts
from yolonas_lab.losses.distillation import DistilledParts
from yolonas_lab.models import RawPredictions
from yolonas_lab.teaching.figures import GROUND_TRUTH, HIGHLIGHT, MUTED, STUDENT, TEACHER, show_image
from yolonas_lab.training import LAB, TrainConfig, WeightAverage, make_optimizer
from yolonas_lab.training.devices import make_fabric
from yolonas_lab.training.fit import with_teacher

if TYPE_CHECKING:
    from lightning_fabric import Fabric


GRID_COLORS = {8: "#0072B2", 16: "#E69F00", 32: "#009E73"}  # strides, fine to coarse


def draw_two(ax: Any, teacher: Any, student: Any, names: Sequence[Any], title: str = "", target: Any = None) -> Any:
    """Two sets of numbers (n,) in [0, 1], scores or bins, as pairs of bars; a target (n,) as outlines behind both."""
    t, s = _numpy(teacher), _numpy(student)
    at = np.arange(len(t))
    if target is not None:
        wanted = _numpy(target)
        some = wanted > 0
        ax.bar(at[some], wanted[some], 0.92, fill=False, edgecolor=GROUND_TRUTH, linewidth=2.2, label="label")
    ax.bar(at - 0.2, t, 0.4, color=TEACHER, label="teacher")
    ax.bar(at + 0.2, s, 0.4, color=STUDENT, label="student")
    ax.set_xticks(at, names)
    ax.set(ylim=(0, 1), xlim=(-0.6, len(t) - 0.4))
    if title:
        ax.set_title(title, fontsize=11)
    return ax


def draw_push(ax: Any, gradient: Any, names: Sequence[Any], title: str = "") -> Any:
    """Where descent pushes each logit: minus a gradient (n,), up in the teacher's color, down in the student's."""
    push = -_numpy(gradient)
    ax.bar(range(len(push)), push, 0.7, color=[TEACHER if p > 0 else STUDENT for p in push])
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set_xticks(range(len(push)), names)
    ax.set(ylabel="push on the logit")
    if title:
        ax.set_title(title, fontsize=11)
    return ax


def draw_sureness(ax: Any, image: Any, points: Any, strides: Any, sure: Any, title: str = "") -> Any:
    """A disc at every anchor point (a, 2) px over the image: its area is the sureness (a,), its color the stride."""
    show_image(ax, image, title)
    xy, s, sizes = _numpy(points), _numpy(strides).reshape(-1), _numpy(sure)
    for stride in np.unique(s):
        some = s == stride
        color, label = GRID_COLORS.get(int(stride), HIGHLIGHT), f"stride {stride:g}"
        area = 2 + 160 * sizes[some]
        ax.scatter(*xy[some].T, s=area, color=color, alpha=0.8, edgecolor="white", linewidth=0.6, label=label)
    return ax


def draw_seeds(ax: Any, result: Result, arms: Mapping[str, str], metric: str = "ap", title: str = "") -> Any:
    """A metric of a claim's arms (names -> words below the axis), a thin line per seed through its dots, a bar at the
    mean; the first arm, the baseline, is gray.
    """
    values = np.array([result.values(arm, metric) for arm in arms])  # (arms, seeds)
    at = np.arange(len(arms))
    for column in values.T:
        ax.plot(at, column, "-", color=MUTED, linewidth=0.8, zorder=1)
    for number, row in enumerate(values):
        color = MUTED if number == 0 else STUDENT
        ax.plot(np.full(len(row), number), row, "o", color=color, markersize=5, markeredgecolor="white", zorder=2)
        ax.plot([number - 0.25, number + 0.25], [row.mean()] * 2, color="black", linewidth=2.2, zorder=3)
        plate = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
        ax.text(number + 0.28, row.mean(), f"{row.mean():.2f}", va="center", fontsize=9, bbox=plate)
    ax.set_xticks(at, list(arms.values()))
    top = max(ax.get_ylim()[1], 1.05 * values.max())  # of an axis that several panels may share
    ax.set(xlim=(-0.5, len(arms) - 0.2), ylim=(0, top), ylabel=metric.upper())
    if title:
        ax.set_title(title, fontsize=11)
    return ax


def draw_differences(ax: Any, result: Result, pairs: Mapping[tuple[str, str], str], metric: str = "ap") -> Any:
    """Differences of (arm, baseline) pairs (-> words beside the axis): a dot per seed, mean and 95 % interval."""
    for row, (arm, baseline) in enumerate(pairs):
        found = result.difference(arm, baseline, metric)
        ax.plot(found.values, np.full(len(found.values), row), "o", color=STUDENT, markersize=5, alpha=0.8)
        ax.plot([found.low, found.high], [row + 0.22] * 2, color="black", linewidth=2)
        ax.plot([found.mean], [row + 0.22], "D", color="black", markersize=5)
    ax.axvline(0, color="black", linewidth=0.8, linestyle=":")
    ax.set_yticks(range(len(pairs)), list(pairs.values()))
    ax.set_ylim(len(pairs) - 0.4, -0.5)
    ax.grid(False, axis="y")
    ax.set_xlabel(f"difference in {metric.upper()}")
    return ax


def _numpy(values: Any) -> np.ndarray:
    return np.asarray(values.detach() if hasattr(values, "detach") else values, dtype=float)


# One training step as a function to time, alone or with a teacher: notebook 08 reports what a teacher costs.
#
# What `fit` does in a step, on one prepared batch, so that reading images does not count.


def training_step(
    model: nn.Module,
    dataset: CocoDataset,
    teacher: nn.Module | None = None,
    distillation: DistillConfig | None = None,
    config: TrainConfig = LAB,
) -> Callable[[], object]:
    """A function that trains a copy of the model for one more step each time it is called; the model stays as it is."""
    loader = Loader(dataset, config.batch_size, config.image_size, config.augmentation, config.seed)
    batch = next(iter(loader.batches(0)))
    average, network = copy.deepcopy(model).eval(), copy.deepcopy(model).train()
    ema = WeightAverage(average, network, config.ema_decay)
    optimizer = make_optimizer(network, config.lr, config.weight_decay)
    compute_loss = _loss(len(dataset.class_names), teacher, distillation, make_fabric(config))

    def step() -> None:
        compute_loss(network(batch.images), batch).total.backward()
        if config.grad_clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), config.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
        ema.update(1000)

    return step


def _loss(
    num_classes: int, teacher: nn.Module | None, distillation: DistillConfig | None, fabric: "Fabric"
) -> Callable[[RawPredictions, Batch], LossParts | DistilledParts]:
    loss = DetectionLoss(num_classes)

    def alone(raw: RawPredictions, batch: Batch) -> LossParts:
        return loss(raw, batch.targets)

    return alone if teacher is None else with_teacher(alone, teacher, distillation or DistillConfig(), fabric)
