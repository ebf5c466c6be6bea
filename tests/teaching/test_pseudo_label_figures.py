import matplotlib.colors
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.patches import Rectangle

from yolonas_lab.data import Sample
from yolonas_lab.detections import Detections
from yolonas_lab.experiments import Result
from yolonas_lab.teaching.figures import CORRECT, GROUND_TRUTH, WRONG
from yolonas_lab.teaching.lessons import nb07 as figures
from yolonas_lab.training import LabelCurves


@pytest.fixture
def ax():
    yield plt.subplots()[1]
    plt.close("all")


def detections(boxes, scores, labels, class_names, image):
    labels = torch.tensor(labels, dtype=torch.int64)
    return Detections(torch.as_tensor(boxes), torch.tensor(scores), labels, class_names, image)


def result(arms, metrics):
    """A claim's result with two seeds; arms: name -> one row of metrics per seed."""
    by_seed = {seed: {arm: dict(zip(metrics, rows[seed])) for arm, rows in arms.items()} for seed in (0, 1)}
    pairs = tuple((arm, next(iter(arms))) for arm in list(arms)[1:])
    return Result(
        claim="toy", question="?", command="", git_revisions=(None,), data_digest="", machine="", torch_version="",
        settings={}, settings_digest="", budget=1.0, metrics=metrics, comparisons=pairs, arms=by_seed, seconds={},
    )  # fmt: skip


def test_verdicts(ax):
    boxes = np.array([[4, 4, 20, 20], [30, 30, 50, 50], [40, 2, 60, 22]], np.float32)
    sample = Sample(np.zeros((64, 64, 3), np.uint8), boxes, np.array([0, 1, 0]), np.zeros(3, bool), 1, "a.png")
    found = detections(boxes[:2] + 1.0, [0.9, 0.8], [0, 0], ["ant", "bee"], sample.image)
    assert figures.draw_verdicts(ax, sample, found) is ax
    colors = [matplotlib.colors.to_hex(p.get_edgecolor()) for p in ax.patches if isinstance(p, Rectangle)]
    # the second box has the wrong class, so the bee and the second ant are missed
    assert sorted(colors) == sorted(c.lower() for c in (GROUND_TRUTH, GROUND_TRUTH, WRONG, CORRECT))
    dashed = [p.get_xy() for p in ax.patches if p.get_linestyle() == "--"]
    assert dashed == [(30, 30), (40, 2)]


def test_nothing_found_and_nothing_there(ax):
    nothing = np.zeros((0, 4), np.float32)
    sample = Sample(np.zeros((64, 64, 3), np.uint8), nothing, np.zeros(0, int), np.zeros(0, bool), 1, "a.png")
    figures.draw_verdicts(ax, sample, detections(nothing, [], [], ["ant"], sample.image))
    assert not ax.patches


def test_threshold(ax):
    curves = LabelCurves(
        ("ant",), np.array([0.2, 0.5, 0.8]), np.array([[8, 4, 2]]), np.array([[4, 3, 2]]), np.array([6]), 2
    )
    assert figures.draw_threshold(ax, curves, 0.5, "teacher") is ax
    dots = next(line for line in ax.lines if line.get_marker() == "o")
    assert list(dots.get_xdata()) == [0.5, 0.5] and list(dots.get_ydata()) == [0.75, 0.5]
    assert ax.get_title(loc="left") + ax.get_title() == "teacher: 2.0 boxes per image, 3.0 are true"


def test_gain_by_labels(ax):
    arms = {
        "scratch 50": [[0.2], [0.3]], "pretrained 50": [[0.4], [0.5]],
        "scratch 2000": [[0.3], [0.3]], "pretrained 2000": [[0.5], [0.5]], "scratch long 50": [[0.35], [0.45]],
    }  # fmt: skip
    assert figures.draw_label_gain(ax, result(arms, ("ap",)), (50, 2000)) is ax
    lines = {line.get_label(): np.asarray(line.get_ydata()) for line in ax.lines}
    np.testing.assert_allclose(lines["scratch"], [0.25, 0.3])
    np.testing.assert_allclose(lines["pretrained"], [0.45, 0.5])
    long = next(y for name, y in lines.items() if str(name).startswith("scratch, with"))
    np.testing.assert_allclose(long, [0.4])
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["50", "2,000"]


METRICS = ("ap", "boxes_per_image", "precision", "recall")
RULES = {
    "labels only": [[0.3, 0, 1, 0], [0.32, 0, 1, 0]],
    "weak 0.3": [[0.28, 3, 0.5, 0.6], [0.29, 4, 0.5, 0.6]],
    "strong chosen": [[0.4, 2, 0.9, 0.8], [0.41, 2, 0.9, 0.8]],
    "all labels": [[0.5, 2.5, 1, 1], [0.5, 2.5, 1, 1]],
}


def test_rules(ax):
    assert figures.draw_rules(ax, result(RULES, METRICS), ["weak 0.3", "strong chosen"]) is ax
    diamonds = [line for line in ax.lines if line.get_marker() == "D"]
    assert [line.get_color() for line in diamonds] == [WRONG, CORRECT]
    assert [line.get_xdata()[0] for line in diamonds] == pytest.approx([0.285, 0.405])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["weak teacher, 0.3", "strong teacher, chosen per class"]
    assert {text.get_text() for text in ax.texts} == {"few labels", "all labels"}
    other = figures.draw_rules(plt.subplots()[1], result(RULES, METRICS), ["strong chosen"])
    assert other.get_xlim() == ax.get_xlim() and ax.get_xlim()[0] < 0.28 and ax.get_xlim()[1] > 0.5


def test_table():
    text = figures.rules_table(result(RULES, METRICS), ["weak 0.3", "strong chosen"])
    lines = text.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "labels", "few labels", "weak teacher, 0.3", "strong teacher, chosen per class", "all labels",
    ]  # fmt: skip
    assert "0.310 ± 0.014" in lines[1] and lines[1].count("–") == 3
    assert "-0.025 [" in lines[2] and lines[2].split()[-3:] == ["3.50", "0.50", "0.60"]


def test_names_of_arms():
    assert figures.rule_name("weak 0.3 weighted") == "weak teacher, 0.3, weighted"
    assert figures.rule_name("weak second round") == "weak teacher, second round"
    assert figures.rule_name("strong chosen") == "strong teacher, chosen per class"
