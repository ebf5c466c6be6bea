import matplotlib.pyplot as plt
import numpy as np
import onnx
import pytest
from matplotlib.colors import to_rgba

from yolonas_lab.deployment.onnx_graph import Graph
from yolonas_lab.teaching.figures import FP32, INT8, MUTED
from yolonas_lab.teaching.lessons.nb12 import columns, draw_graph, draw_saturation, nodes_of

RESIDUAL = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[1,1,2,2] x) => (float[1,1,2,2] y)
<float[1] half = {0.5}, float[1,1,1,1] w = {2}, int8[1,1,1,1] wq = {3}, float s = {0.5}, int8 z = {0}>
{
  ["block.skip/Mul"] skip = Mul(x, half)
  ["block.conv/Conv"] c = Conv(x, w)
  ["block.act/Relu"] r = Relu(c)
  ["block/Add"] sum = Add(skip, r)
  ["block.output/QuantizeLinear"] q = QuantizeLinear(sum, s, z)
  ["block.output/DequantizeLinear"] d = DequantizeLinear(q, s, z)
  ["after.weight/DequantizeLinear"] wd = DequantizeLinear(wq, s, z)
  ["after/Conv"] c2 = Conv(d, wd)
  ["block.output/QuantizeLinear_1"] q1 = QuantizeLinear(c2, s, z)
  ["block.output/DequantizeLinear_1"] y = DequantizeLinear(q1, s, z)
}
"""


@pytest.fixture(scope="module")
def graph():
    return Graph(onnx.parser.parse_model(RESIDUAL).graph)


def names(nodes):
    return [node.name for node in nodes]


def test_nodes_of_a_module_are_those_inside_it_in_order(graph):
    assert names(nodes_of(graph, ["block.act", "block.conv"])) == ["block.conv/Conv", "block.act/Relu"]


def test_a_shared_quantizer_is_shown_only_for_tensors_made_in_the_module(graph):
    block = names(nodes_of(graph, ["block"]))
    assert block[-2:] == ["block.output/QuantizeLinear", "block.output/DequantizeLinear"]
    assert "block.output/QuantizeLinear_1" not in block
    assert names(nodes_of(graph, ["block", "after"])) == names(graph.nodes)


@pytest.mark.parametrize("module", ["bloc", "block.conv/Conv", "nowhere"])
def test_an_unknown_module_is_named(graph, module):
    with pytest.raises(ValueError, match=f"no node of module '{module}'"):
        nodes_of(graph, [module])


def test_columns_follow_the_data_and_constants_stand_before_their_reader(graph):
    column = columns(graph, graph.nodes)
    assert column["block.skip/Mul"] == column["block.conv/Conv"] == 1
    assert column["block/Add"] == 3
    assert column["after/Conv"] == 6
    assert column["after.weight/DequantizeLinear"] == 5


def test_every_node_is_drawn_once_in_its_color_and_no_two_in_one_place(graph):
    _, ax = plt.subplots()
    assert draw_graph(ax, graph, graph.nodes, "a title") is ax
    boxes = [(text.get_text(), patch) for text in ax.texts if (patch := text.get_bbox_patch()) is not None]
    assert len(boxes) == len(graph.nodes)
    places = [text.get_position() for text in ax.texts if text.get_text()]
    assert len(set(places)) == len(places)
    colors = [(label, patch.get_facecolor()) for label, patch in boxes]
    rgba = {name: to_rgba(name) for name in (FP32, INT8, MUTED)}
    assert ("Conv", rgba[FP32]) in colors
    assert ("Conv", rgba[INT8]) in colors
    assert ("Q", rgba[INT8]) in colors
    assert ("Relu", rgba[MUTED]) in colors
    plt.close("all")


def test_what_comes_from_elsewhere_and_a_weight_do_not_share_a_place(graph):
    _, ax = plt.subplots()
    draw_graph(ax, graph, nodes_of(graph, ["block.skip", "after"]))
    places = [text.get_position() for text in ax.texts if text.get_text()]
    assert [text.get_text() for text in ax.texts].count("…") == 2
    assert len(set(places)) == len(places) == 5
    plt.close("all")


def test_the_saturated_curve_is_exact_up_to_64_and_flat_behind():
    _, ax = plt.subplots()
    draw_saturation(ax, 255)
    exact, stored = (np.asarray(line.get_ydata()).tolist() for line in ax.lines[:2])
    assert exact[:65] == stored[:65]
    assert set(stored[65:]) == {32_767}
    plt.close("all")
