"""Drawings of what a teacher finds and of what its labels are worth (notebook 07)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from yolonas_lab.boxes import iou
from yolonas_lab.data import Sample
from yolonas_lab.detections import Detections
from yolonas_lab.experiments import Result
from yolonas_lab.teaching.figures import CORRECT, GROUND_TRUTH, HIGHLIGHT, MUTED, WRONG, draw_boxes
from yolonas_lab.training.label_quality import LabelCurves, match

SCRATCH, PRETRAINED = "#56B4E9", "#0072B2"  # starts: light and dark blue
RULE_NAMES = {"chosen": "chosen per class"}


def draw_verdicts(ax: Any, sample: Sample, found: Detections, match_iou: float = 0.5) -> Any:
    """An image with a teacher's boxes, right ones teal, wrong ones brick with the class they name, and the objects it
    missed dashed green.
    """
    boxes, labels = found.boxes.numpy(), found.labels.numpy()
    right, _ = match(boxes, labels, sample.boxes, sample.labels, sample.crowd, match_iou)
    same = sample.labels[:, None] == labels[right]  # (objects, right boxes)
    seen = (iou(torch.from_numpy(sample.boxes), found.boxes[right]).numpy() >= match_iou) & same
    draw_boxes(ax, sample.image, np.zeros((0, 4)))
    for x1, y1, x2, y2 in sample.boxes[~seen.any(axis=1) & ~sample.crowd].tolist():
        ax.add_patch(_frame(x1, y1, x2, y2))
    draw_boxes(ax, None, boxes[~right], labels[~right], class_names=found.class_names, color=WRONG)
    draw_boxes(ax, None, boxes[right], color=CORRECT)
    return ax


def draw_threshold(ax: Any, curves: LabelCurves, threshold: float, title: str = "") -> Any:
    """A teacher's precision and recall curves, and what they are at a threshold."""
    curves.plot(ax)
    overall, at = curves.overall, int(np.abs(curves.thresholds - threshold).argmin())
    precision, recall = overall.precision[0, at], overall.recall[0, at]
    ax.axvline(threshold, color=HIGHLIGHT, linestyle="--", linewidth=1.5)
    ax.plot([threshold] * 2, [precision, recall], "o", color=HIGHLIGHT)
    words = f"{curves.boxes_per_image[at]:.1f} boxes per image, {curves.objects.sum() / curves.images:.1f} are true"
    ax.set_title(f"{title}{': ' if title else ''}{words}", pad=24)
    return ax


def draw_label_gain(ax: Any, result: Result, labels: Sequence[int]) -> Any:
    """AP by number of labeled images, from scratch and pretrained: a dot per seed, lines through the means.

    Open diamonds: from scratch with the steps of both trainings, where the claim has them.
    """
    places = np.arange(len(labels))
    for start, color, shift in (("scratch", SCRATCH, -0.05), ("pretrained", PRETRAINED, 0.05)):
        values = np.array([result.values(f"{start} {n}", "ap") for n in labels])  # (labels, seeds)
        ax.plot(places + shift, values, "o", color=color, markersize=4, alpha=0.6)
        ax.plot(places + shift, values.mean(axis=1), "-", color=color, label=start)
    long = [(place, n) for place, n in zip(places, labels) if f"scratch long {n}" in result.arms[result.seeds[0]]]
    means = [np.mean(result.values(f"scratch long {n}", "ap")) for _, n in long]
    name = "scratch, with the steps of pretraining too"
    ax.plot([place for place, _ in long], means, "D", color=SCRATCH, markerfacecolor="white", label=name)
    ax.set_xticks(places, [f"{n:,}" for n in labels])
    ax.margins(y=0.1)
    ax.set(xlabel="training images with labels", ylabel="AP", ylim=(0, None))
    ax.legend(loc="lower right")
    return ax


def draw_rules(ax: Any, result: Result, arms: Sequence[str]) -> Any:
    """AP of a claim's arms, one row each: a dot per seed and the mean, between the lines of the few labels alone and of
    all true labels; teal right of the former, brick left of it. Figures of one claim have the same scale.
    """
    baseline, top = (np.mean(result.values(arm, "ap")) for arm in ("labels only", "all labels"))
    for row, arm in enumerate(arms):
        values = np.array(result.values(arm, "ap"))
        offsets = row + np.linspace(-0.15, 0.15, len(values))
        ax.plot(values, offsets, "o", color=MUTED, markersize=4)
        ax.plot([values.mean()], [row], "D", color=CORRECT if values.mean() > baseline else WRONG, markersize=7)
    ax.axvline(baseline, color="black", linewidth=1.2, linestyle=":")
    ax.axvline(top, color=GROUND_TRUTH, linewidth=1.5, linestyle="--")
    for x, text in ((baseline, "few labels"), (top, "all labels")):
        ax.annotate(text, (x, 1), (0, 3), xycoords=("data", "axes fraction"), textcoords="offset points", ha="center")
    ax.set_yticks(range(len(arms)), [rule_name(arm) for arm in arms])
    everything = [numbers["ap"] for seed in result.seeds for numbers in result.arms[seed].values()]
    edge = 0.06 * (max(everything) - min(everything))
    ax.set(xlabel="AP (gray: each seed)", ylim=(len(arms) - 0.5, -0.5))
    ax.set_xlim(min(everything) - edge, max(everything) + edge)
    ax.grid(False, axis="y")
    return ax


def rules_table(result: Result, arms: Sequence[str]) -> str:
    """AP of a claim's arms against the few labels alone, beside how right their labels of unlabeled images are."""
    lines = [
        f"{'labels':41}{'AP':>15}  {'against few labels':>24}  {'boxes/image':>11}  {'precision':>9}  {'recall':>6}"
    ]
    for arm in ("labels only", *arms, "all labels"):
        ap = np.array(result.values(arm, "ap"))
        spread = f"{ap.mean():.3f} ± {ap.std(ddof=1):.3f}" if len(ap) > 1 else f"{ap.mean():.3f}"
        means = [np.mean(result.values(arm, name)) for name in ("boxes_per_image", "precision", "recall")]
        gain = "" if arm == "labels only" else _gain(result, arm)
        numbers = ["–" if arm == "labels only" else f"{mean:.2f}" for mean in means]
        name = rule_name(arm)
        lines.append(f"{name:41}{spread:>15}  {gain:>24}  {numbers[0]:>11}  {numbers[1]:>9}  {numbers[2]:>6}".rstrip())
    return "\n".join(lines)


def rule_name(arm: str) -> str:
    """ "weak 0.3 weighted" -> "weak teacher, 0.3, weighted"."""
    if arm in ("labels only", "all labels"):
        return {"labels only": "few labels", "all labels": "all labels"}[arm]
    teacher, rule = arm.split(" ", 1)
    parts = [RULE_NAMES.get(part, part) for part in rule.split(" ")] if rule != "second round" else [rule]
    return f"{teacher} teacher, {', '.join(parts)}"


def _gain(result: Result, arm: str) -> str:
    found = result.difference(arm, "labels only", "ap")
    return (
        f"{found.mean:+.3f}" if len(found.values) == 1 else f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
    )


def _frame(x1: float, y1: float, x2: float, y2: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=GROUND_TRUTH, linestyle="--", linewidth=2)
