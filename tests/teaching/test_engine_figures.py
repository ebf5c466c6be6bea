import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from yolonas_lab.deployment.engine_report import EngineLayer
from yolonas_lab.deployment.onnx_graph import Graph
from yolonas_lab.deployment.qdq_rules import check_qdq
from yolonas_lab.teaching.figures import HIGHLIGHT
from yolonas_lab.teaching.lessons.nb13 import (
    PARTS,
    PRECISION_COLORS,
    WELL_FORMED,
    broken_text,
    draw_broken,
    draw_fusion,
    draw_precisions,
    draw_timeline,
    model_of,
    permitted_precisions,
)


@pytest.fixture
def ax():
    _, ax = plt.subplots()
    yield ax
    plt.close("all")


@pytest.fixture(scope="module")
def graph():
    return Graph(model_of(WELL_FORMED).graph)


def test_what_a_graph_permits(graph):
    expected = {"conv1": "Int8", "conv2": "Int8", "conv3": "Int8", "pred": "Float"}
    assert permitted_precisions(graph) == expected
    half = Graph(model_of(WELL_FORMED).graph)
    half.constants["w_pred"] = half.constants["w_pred"].astype(np.float16)
    assert permitted_precisions(half) == {**expected, "pred": "Half"}
    one_sided = Graph(model_of(broken_text("weight quantized, activation not")).graph)
    assert permitted_precisions(one_sided)["conv2"] == "Float"


def squares(ax, color):
    return [p for p in ax.patches if isinstance(p, Rectangle) and to_hex(p.get_facecolor()) == color.lower()]


def test_every_convolution_is_a_square_in_the_color_of_its_precision(ax):
    known = {f"backbone.stages.0.csp.{i}/Conv": "Int8" for i in range(11)}
    known |= {"heads.levels.2.box_pred/Conv": "Half", "backbone.stem.conv/Conv": "Float", "neck.up1.x/Conv": "unknown"}
    assert draw_precisions(ax, known, "a title") is ax
    assert [len(squares(ax, color)) for color in PRECISION_COLORS.values()] == [1, 1, 11]
    texts = [text.get_text() for text in ax.texts]
    assert {"Float: 1", "Half: 1", "Int8: 11"} <= set(texts)
    assert {title for _, _, title in PARTS.values()} <= set(texts)
    corners = [p.get_xy() for p in squares(ax, PRECISION_COLORS["Int8"])]
    assert len(set(corners)) == 11  # none hides another


def test_a_convolution_of_another_network_is_named(ax):
    with pytest.raises(ValueError, match=r"layer1\.0/Conv is in no part"):
        draw_precisions(ax, {"layer1.0/Conv": "Int8"})


LAYERS = [
    EngineLayer("m", "correlation", ("conv1", "image/DQ", "conv1/W"), ("Int8",), ("Int8",), ("Float",)),
    EngineLayer("e", "kgen", ("conv1", "relu1", "x/Q"), ("Float",), (), ("Int8",)),
    EngineLayer("o", "kgen", ("elsewhere",), ("Float",), (), ("Float",)),
]


def test_fusion_draws_nodes_layers_and_one_line_per_membership(ax, graph):
    nodes = [node for node in graph.nodes if node.name in ("image/DQ", "conv1/W", "conv1", "relu1", "x/Q")]
    draw_fusion(ax, graph, nodes, LAYERS, "t")
    assert len(ax.lines) == 6
    texts = [text.get_text() for text in ax.texts]
    assert texts.count("multiply\nInt8") == texts.count("elementwise") == 1
    assert "5 nodes of the ONNX graph" in texts and "2 layers of the engine" in texts


def test_fusion_with_layers_of_another_graph(ax, graph):
    with pytest.raises(ValueError, match="None of these nodes"):
        draw_fusion(ax, graph, graph.nodes, LAYERS[2:])


def test_the_broken_node_and_no_other_has_a_frame(ax):
    model = model_of(broken_text("skip in float"))
    draw_broken(ax, Graph(model.graph), check_qdq(model), "t")
    boxes = [text for text in ax.texts if text.get_bbox_patch() is not None]
    framed = [text.get_text() for text in boxes if to_hex(text.get_bbox_patch().get_edgecolor()) == HIGHLIGHT.lower()]
    assert framed == ["Add"]


@pytest.mark.parametrize(
    ("launch", "compute", "without", "after"),
    [(0.1, 0.5, "0.10", "0.52"), (1.0, 0.2, "1.00", "1.04")],
)
def test_the_two_stopwatches(ax, launch, compute, without, after):
    draw_timeline(ax, launch, compute, runs=5)
    words = " ".join(text.get_text() for text in ax.texts)
    assert f"without waiting:\n {without} ms" in words
    assert f"after waiting:\n {after} ms" in words
