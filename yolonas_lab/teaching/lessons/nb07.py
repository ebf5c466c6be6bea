"""Drawings of what a teacher finds and of what its labels are worth (notebook 07)."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np
import torch

from yolonas_lab.boxes import iou
from yolonas_lab.data import Sample
from yolonas_lab.detections import Detections
from yolonas_lab.experiments import Result
from yolonas_lab.teaching import figures
from yolonas_lab.teaching.figures import CORRECT, GROUND_TRUTH, HIGHLIGHT, MUTED, WRONG
from yolonas_lab.training.label_quality import LabelCurves, match

MATCH_IOU = 0.5
SCRATCH, PRETRAINED = "#56B4E9", "#0072B2"  # starts: light and dark blue


def draw_verdicts(ax: Any, sample: Sample, found: Detections) -> Any:
    """An image with a teacher's right boxes teal, wrong ones brick with their class, missed objects dashed green."""
    boxes, labels = found.boxes.numpy(), found.labels.numpy()
    right, _ = match(boxes, labels, sample.boxes, sample.labels, sample.crowd, MATCH_IOU)
    same = sample.labels[:, None] == labels[right]  # (objects, right boxes)
    seen = (iou(torch.from_numpy(sample.boxes), found.boxes[right]).numpy() >= MATCH_IOU) & same
    figures.draw_boxes(ax, sample.image, [])
    for box in sample.boxes[~seen.any(axis=1) & ~sample.crowd].tolist():
        figures.add_rectangle(ax, box, fill=False, edgecolor=GROUND_TRUTH, linestyle="--", linewidth=2)
    figures.draw_boxes(ax, None, boxes[~right], labels[~right], class_names=found.class_names, color=WRONG)
    return figures.draw_boxes(ax, None, boxes[right], color=CORRECT)


def draw_threshold(ax: Any, curves: LabelCurves, threshold: float, title: str) -> Any:
    """A teacher's precision and recall curves, and what they are at a threshold."""
    curves.plot(ax)
    overall, at = curves.overall, int(np.abs(curves.thresholds - threshold).argmin())
    ax.axvline(threshold, color=HIGHLIGHT, linestyle="--", linewidth=1.5)
    ax.plot([threshold] * 2, [overall.precision[0, at], overall.recall[0, at]], "o", color=HIGHLIGHT)
    words = f"{curves.boxes_per_image[at]:.1f} boxes per image, {curves.objects.sum() / curves.images:.1f} are true"
    ax.set_title(f"{title}: {words}", pad=24)
    return ax


def draw_label_gain(ax: Any, result: Result, labels: Sequence[int]) -> Any:
    """AP by number of labeled images, from scratch and pretrained: a dot per seed, lines through the means.

    Open diamonds: from scratch with the steps of both trainings, where the claim has them.
    """
    places = np.arange(len(labels))
    for start, color, shift in (("scratch", SCRATCH, -0.05), ("pretrained", PRETRAINED, 0.05)):
        figures.draw_means(ax, places + shift, [result.values(f"{start} {n}", "ap") for n in labels], color, start)
    long = {place: f"scratch long {n}" for place, n in zip(places, labels)}
    means = {p: np.mean(result.values(arm, "ap")) for p, arm in long.items() if arm in result.arms[result.seeds[0]]}
    look = {"color": SCRATCH, "markerfacecolor": "white", "label": "scratch, with the steps of pretraining too"}
    ax.plot(list(means), list(means.values()), "D", **look)
    ax.set_xticks(places, [f"{n:,}" for n in labels])
    ax.margins(y=0.1)
    ax.set(xlabel="training images with labels", ylabel="AP", ylim=(0, None))
    ax.legend(loc="lower right")
    return ax


def draw_rules(ax: Any, result: Result, arms: Sequence[str]) -> Any:
    """AP of a claim's arms, one row each: a dot per seed, the mean, teal where it beats the few labels alone. Figures
    of one claim have the same scale.
    """
    baseline, top = (fmean(result.values(arm, "ap")) for arm in ("labels only", "all labels"))
    for row, arm in enumerate(arms):
        values = np.array(result.values(arm, "ap"))
        ax.plot(values, row + np.linspace(-0.15, 0.15, len(values)), "o", color=MUTED, markersize=4)
        ax.plot([values.mean()], [row], "D", color=CORRECT if values.mean() > baseline else WRONG, markersize=7)
    ax.axvline(baseline, color="black", linewidth=1.2, linestyle=":")
    ax.axvline(top, color=GROUND_TRUTH, linewidth=1.5, linestyle="--")
    for x, text in ((baseline, "few labels"), (top, "all labels")):
        figures.note(ax, text, (x, 1), (0, 3), xycoords=("data", "axes fraction"), ha="center")
    everything = [numbers["ap"] for seed in result.seeds for numbers in result.arms[seed].values()]
    edge = 0.06 * (max(everything) - min(everything))
    ax.set(xlim=(min(everything) - edge, max(everything) + edge), xlabel="AP (gray: each seed)")
    return figures.name_rows(ax, [rule_name(arm) for arm in arms], len(arms) - 0.5, -0.5)


def rules_table(result: Result, arms: Sequence[str]) -> str:
    """AP of a claim's arms against the few labels alone, beside how right their labels of unlabeled images are."""
    rows: list[tuple[str, ...]] = [("labels", "AP", "against few labels", "boxes/image", "precision", "recall")]
    for arm in ("labels only", *arms, "all labels"):
        ap, gain, numbers = np.array(result.values(arm, "ap")), "", ["–"] * 3
        if arm != "labels only":
            found = result.difference(arm, "labels only", "ap")
            gain = f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
            quality = (result.values(arm, name) for name in ("boxes_per_image", "precision", "recall"))
            numbers = [f"{np.mean(values):.2f}" for values in quality]
        rows.append((rule_name(arm), f"{ap.mean():.3f} ± {ap.std(ddof=1):.3f}", gain, *numbers))
    return "\n".join(f"{a:41}{b:>15}  {c:>24}  {d:>11}  {e:>9}  {f:>6}".rstrip() for a, b, c, d, e, f in rows)


def rule_name(arm: str) -> str:
    """An arm of the claim in words.

    >>> rule_name("weak chosen weighted"), rule_name("labels only")
    ('weak teacher, chosen per class, weighted', 'few labels')
    """
    if arm in ("labels only", "all labels"):
        return arm.replace("labels only", "few labels")
    teacher, rule = arm.split(" ", 1)
    parts = rule.replace("chosen", "chosen per class").replace(" weighted", ", weighted")
    return f"{teacher} teacher, {parts}"
