"""Every figure of the lessons, drawn once as its notebook draws it: on the axes it is given, and with words on it."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from yolonas_lab.data import Sample
from yolonas_lab.deployment.engine_report import EngineLayer
from yolonas_lab.deployment.onnx_graph import Graph
from yolonas_lab.deployment.qdq_rules import check_qdq
from yolonas_lab.detections import Detections
from yolonas_lab.experiments import load_result
from yolonas_lab.latency import Frontier
from yolonas_lab.models import CONFIGS
from yolonas_lab.models.yolo_nas import anchor_points
from yolonas_lab.quantization import FrontierPoint, Histogram, Sensitivity
from yolonas_lab.search import FULL_SPACE, ErrorReport, NetworkTime
from yolonas_lab.search.evolve import Candidate
from yolonas_lab.search.latency_model import Prediction
from yolonas_lab.teaching import published
from yolonas_lab.teaching.figures import show_matrix
from yolonas_lab.teaching.lessons import nb00, nb01, nb02, nb04, nb05, nb07, nb08, nb09, nb10, nb11, nb12, nb13
from yolonas_lab.training import LabelCurves

S, M, L = (CONFIGS[f"yolo_nas_{size}"] for size in "sml")
IMAGE = np.full((64, 64, 3), 90, np.uint8)
BOXES = torch.tensor([[4.0, 4, 30, 24], [12, 20, 60, 60], [40, 2, 60, 22]])
BINS = np.array([0.1, 0.2, 0.4, 0.3])
TARGET = np.array([0, 0, 0.75, 0.25])
POINTS, STRIDES = anchor_points([(8, 8), (4, 4), (2, 2)])
OWNER = np.where(np.arange(84) % 7 < 2, np.arange(84) % 7, -1)
QUALITY = np.linspace(0, 1, 84)
SAMPLE = Sample(IMAGE, BOXES.numpy(), np.array([0, 1, 0]), np.zeros(3, bool), 1, "a.png")
FOUND = Detections(BOXES[:2] + 1, torch.tensor([0.9, 0.8]), torch.tensor([0, 0]), ["ant", "bee"], IMAGE)
CURVES = LabelCurves(
    ("ant",), np.array([0.2, 0.5, 0.8]), np.array([[8, 4, 2]]), np.array([[4, 3, 2]]), np.array([6]), 2
)
REPORT = ErrorReport(
    "machine", "torch", 64, (Prediction("a", 2_000_000, 1.0, 1.1), Prediction("b", 6_000_000, 1.2, 1.1))
)
PAIR = (NetworkTime(S, 2_000_000, 1.1), NetworkTime(L, 6_000_000, 1.1))
SEARCHED = Frontier(tuple(Candidate(S, ap, ms) for ap, ms in ((0.5, 4.0), (0.4, 5.0), (0.6, 6.0))))
CHOICES = FrontierPoint((), 0.3, 1.0), FrontierPoint(("a",), 0.5, 2.0), FrontierPoint(("a", "b"), 0.52, 3.0)
SELECTED = Frontier(CHOICES)
OTHER = Frontier((CHOICES[0], FrontierPoint(("b",), 0.2, 1.5), CHOICES[2]))
NOISE = {f"{part}.{i}.conv": 0.01 * (i + 1) for part in ("backbone.stages", "neck", "heads.levels") for i in range(4)}
PRECISIONS = {f"backbone.stages.0.csp.{i}/Conv": "Int8" for i in range(11)} | {
    "heads.levels.2.box_pred/Conv": "Half", "backbone.stem.conv/Conv": "Float", "neck.up1.x/Conv": "unknown",
}  # fmt: skip
LAYERS = [
    EngineLayer("m", "correlation", ("conv1", "image/DQ", "conv1/W"), ("Int8",), ("Int8",), ("Float",)),
    EngineLayer("e", "kgen", ("conv1", "relu1", "x/Q"), ("Float",), (), ("Int8",)),
]
PAIRS = {("taught 200", "alone 200"): "nano, 200 labels", ("taught long", "alone long"): "longer"}
TEACHERS = {"alone": "alone", "pico both 3": "pico", "nano both 3": "nano"}
GAINS = {"mean_ap_fresh": "mean, fresh", "ap_fast": "within 0.6"}


@cache
def seen() -> Histogram:
    histogram = Histogram()
    histogram.observe(torch.randn(4000, generator=torch.Generator().manual_seed(0)))
    return histogram


@cache
def graph(text: str = nb13.WELL_FORMED) -> Graph:
    return Graph(nb13.model_of(text).graph)


def broken(ax: Any) -> Any:
    text = nb13.broken_text("skip in float")
    return nb13.draw_broken(ax, graph(text), check_qdq(nb13.model_of(text)), "skip in float")


def matrix_with_hatches(ax: Any) -> Any:
    show_matrix(ax, [[0.1, 0.9], [0.5, 0.2]], "cells")
    return nb05.hatch_outside(ax, np.array([[True, False], [True, True]]))


def fusion(ax: Any) -> Any:
    nodes = [node for node in graph().nodes if node.name in ("image/DQ", "conv1/W", "conv1", "relu1", "x/Q")]
    return nb13.draw_fusion(ax, graph(), nodes, LAYERS, "fusion")


def two(draw: Callable[..., Any], ax: Any) -> Any:
    """Draw a figure of two panels on this axes and one beside it."""
    beside = ax.figure.add_axes((1.1, 0.1, 0.8, 0.8))
    draw([ax, beside])
    return ax


def later(module: Any, name: str, *arguments: Any, **options: Any) -> Callable[[Any], Any]:
    """The figure `name` of a lesson with these arguments, which may be functions that make them when it is drawn."""

    def draw(ax: Any) -> Any:
        made = [value() if isinstance(value, partial) else value for value in arguments]
        return getattr(module, name)(ax, *made, **options)

    return draw


stored = partial(partial, load_result)


def network(config: Any, ax: Any) -> Any:
    return nb04.draw_network(config, config.image_size, ax=ax)


FIGURES: dict[str, Callable[[Any], Any]] = {
    "frontier": published.draw_frontier,
    "families": published.plot_published_frontier,
    "course map": nb00.draw_course_map,
    "grid paper": later(nb01, "grid_paper", 5, 3),
    "pair": later(nb01, "draw_pair", (1, 1, 6, 5), (4, 3, 9, 6)),
    "cells": later(nb01, "count_cells", (1, 1, 6, 5), (4, 3, 9, 6)),
    "kept": later(nb01, "draw_kept", BOXES, [1], "ABC", ["red", "green", "blue"]),
    "funnel": later(nb01, "draw_funnel", {"all": 50_400, "after NMS": 5}),
    "found": later(nb02, "draw_found", IMAGE, BOXES[:2], BOXES[1:], [0.25, 0.5]),
    "numbered": later(nb02, "number_objects", BOXES),
    "verdicts": later(nb02, "draw_verdicts", IMAGE, BOXES[:2], [True, False], BOXES[2:], ["a", "b"]),
    "curve": later(nb02, "draw_precision_recall", [1, 0.5], [0.5, 0.5], np.linspace(1, 0, 101)),
    "CSP layer": lambda ax: nb04.draw_csp_layer(M.backbone[0], 96, ax),
    "bins": later(nb05, "draw_bins", torch.tensor(BINS), "left", TARGET),
    "sides": later(nb05, "draw_sides", (20, 12), (4, 8, 44, 40)),
    "hatches": matrix_with_hatches,
    "assignment": later(nb05, "draw_assignment", IMAGE, POINTS, STRIDES, OWNER, QUALITY, BOXES[:2], "owners"),
    "qualities": later(nb05, "draw_qualities", OWNER, QUALITY, ["ship", "star"]),
    "pseudo-label verdicts": later(nb07, "draw_verdicts", SAMPLE, FOUND),
    "threshold": later(nb07, "draw_threshold", CURVES, 0.5, "teacher"),
    "label gain": later(nb07, "draw_label_gain", stored("pretraining"), (50, 100, 200, 2000)),
    "rules": later(nb07, "draw_rules", stored("pseudo_labels"), ["weak 0.3", "strong chosen"]),
    "two": later(nb08, "draw_two", BINS, torch.tensor(BINS[::-1].copy()), "abcd", "t", TARGET),
    "push": later(nb08, "draw_push", torch.tensor(TARGET - BINS), range(4), "t"),
    "sureness": later(nb08, "draw_sureness", IMAGE, POINTS, STRIDES, QUALITY, "sure"),
    "seeds": later(nb08, "draw_seeds", stored("distillation"), TEACHERS, title="t"),
    "differences": later(nb08, "draw_differences", stored("equal_compute"), PAIRS),
    "choices": later(nb09, "draw_choices", FULL_SPACE, {"S": S, "L": L}, {"S": "#ff0000", "L": "#0000ff"}, "t"),
    "nested kernel": later(nb09, "draw_nested_kernel", (16, 24), (8, 32), "t"),
    "MACs and ms": partial(two, lambda axes: nb09.draw_macs_and_ms(axes, REPORT, PAIR)),
    "taus": later(nb09, "draw_taus", {"macs": (0.2, -0.9, 0.5), "supernet": (0.7, 0.4, 0.9)}, "t"),
    "searches": later(nb09, "draw_searches", {"evolution": SEARCHED, "random": SEARCHED}, nb09.COLORS, "t"),
    "budget": later(nb09, "draw_budget", SEARCHED, 5.5, "t"),
    "gains": later(nb09, "draw_gains", stored("search_frontier"), "evolution", "random", GAINS, "t"),
    "rivals": later(nb09, "draw_rivals", stored("searched_networks"), "ms", "ap", "t"),
    "number line": later(
        nb10, "draw_number_line", torch.tensor([-0.7, 0.1, 1.3]), torch.tensor(0.3), torch.tensor(0), -4, 3
    ),
    "long number line": later(
        nb10, "draw_number_line", torch.tensor([0.0]), torch.tensor(0.5), torch.tensor(128), 0, 255
    ),
    "channels": later(nb10, "draw_channels", torch.linspace(-1, 1, 96).reshape(8, 3, 2, 2), 3, "t"),
    "histogram": later(nb10, "draw_histogram", partial(seen), {"max": 2.0, "mse": 1.25}),
    "error parts": later(nb10, "draw_error_parts", [1, 2, 3], [4, 1, 0.5], [0.5, 1, 4], 2.5),
    "sensitivity": later(nb10, "draw_sensitivity", Sensitivity("cheap", NOISE)),
    "selected frontier": later(nb10, "draw_frontier", SELECTED, {"random": OTHER}, 0.05, CHOICES[1]),
    "INT8 drops": later(nb10, "draw_int8_drops", stored("int8_drop")),
    "drop by bits": later(nb10, "draw_drop_by_bits", stored("quantization_bits"), "per tensor"),
    "calibrators": later(nb10, "draw_calibrators", stored("quantization_bits"), 4),
    "selective": later(nb10, "draw_selective", stored("selective_quantization"), "RepVGG"),
    "staircase": partial(two, lambda axes: nb11.draw_staircase(*axes, bits=3, scale=0.25)),
    "weights on a grid": later(nb11, "draw_weights_on_grid", [[0.7, 0.2], [0.76, 0.1], [0.8, 0.3]], 0.5, ["u", "v"]),
    "recovery": later(nb11, "draw_recovery", [0, 10, 20], [0.3, 0.4, 0.45], 0.5, "t"),
    "bits": later(nb11, "draw_bits", stored("qat_recovery"), "RepVGG"),
    "graph": lambda ax: nb12.draw_graph(ax, graph(), graph().nodes, "t"),
    "saturation": later(nb12, "draw_saturation", 255),
    "precisions": later(nb13, "draw_precisions", PRECISIONS, "t"),
    "fusion": fusion,
    "broken": broken,
    "timeline": later(nb13, "draw_timeline", 0.1, 0.5),
}
FIGURES |= {f"network {name}": partial(network, config) for name, config in CONFIGS.items()}
FIGURES |= {f"format {n}": later(nb01, "draw_format", (2, 3, 8, 7), n) for n in ("xyxy", "cxcywh", "xywh")}


NAMED_BY_THE_NOTEBOOK = "pair cells kept format funnel numbered sides two calibrators".split()


def words_on(ax: Any) -> str:
    """All text of an axes: labels, titles, ticks, legend, annotations."""
    legend = ax.get_legend().get_texts() if ax.get_legend() else []
    ticks = [*ax.get_xticklabels(), *ax.get_yticklabels()]
    titles = [ax.get_title(loc=place) for place in ("left", "center", "right")]
    named = ax.get_legend_handles_labels()[1]
    return "\n".join(
        [ax.get_xlabel(), ax.get_ylabel(), *titles, *named, *(t.get_text() for t in [*ax.texts, *legend, *ticks])]
    )


@pytest.fixture
def ax():
    figure, ax = plt.subplots(figsize=(6, 4), dpi=50)
    yield ax
    plt.close(figure)


@pytest.mark.parametrize("name", FIGURES)
def test_the_figure_is_drawn_on_the_axes_it_is_given(ax, name):
    settings = dict(matplotlib.rcParams)
    assert FIGURES[name](ax) is ax
    ax.figure.draw_without_rendering()
    for drawn in ax.figure.axes:
        assert words_on(drawn)
        is_chart = drawn.axison and drawn.get_xticks().size and not drawn.images
        named = drawn.get_xlabel() + drawn.get_ylabel() + drawn.get_title(loc="left")
        assert named or not is_chart or name.split()[0] in NAMED_BY_THE_NOTEBOOK
    assert plt.get_fignums() == [ax.figure.number] and dict(matplotlib.rcParams) == settings


def test_a_table_of_rules_says_what_each_gains_and_how_right_its_labels_are():
    lines = nb07.rules_table(load_result("pseudo_labels"), ["weak 0.3", "strong chosen"]).splitlines()
    begins = ("labels ", "few labels ", "weak teacher, 0.3 ", "strong teacher, chosen per class ", "all labels ")
    assert all(line.startswith(begin) for line, begin in zip(lines, begins, strict=True))
    assert lines[1].count("–") == 3 and " ± " in lines[1] and lines[2].count("[") == 1
