import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolonas_lab.deployment.onnx_graph import Graph
from yolonas_lab.teaching.lessons import nb12
from yolonas_lab.teaching.lessons.nb12 import dot_by_onnxruntime, dot_in_16_bits, has_vnni, nodes_of

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
    # Of a quantizer that several tensors share, only what quantizes tensors made in the module.
    assert names(nodes_of(graph, ["block"]))[-2:] == ["block.output/QuantizeLinear", "block.output/DequantizeLinear"]
    assert names(nodes_of(graph, ["block", "after"])) == names(graph.nodes)


@pytest.mark.parametrize("module", ["bloc", "block.conv/Conv"])
def test_an_unknown_module_is_named(graph, module):
    with pytest.raises(ValueError, match=f"no node of {module}: "):
        nodes_of(graph, [module])


def test_columns_follow_the_data_and_constants_stand_before_their_reader(graph):
    column = nb12.columns(graph, graph.nodes)
    assert column["block.skip/Mul"] == column["block.conv/Conv"] == 1 and column["block/Add"] == 3
    assert column["after/Conv"] == 6 and column["after.weight/DequantizeLinear"] == 5


@pytest.mark.parametrize("modules", [["block", "after"], ["block.skip", "after"]])
def test_no_two_nodes_stand_in_one_place(graph, modules):
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    nb12.draw_graph(ax, graph, nodes_of(graph, modules), "t")
    places = [text.get_position() for text in ax.texts if text.get_text()]  # of nodes, and of "…"
    assert len(set(places)) == len(places) >= len(nodes_of(graph, modules))
    plt.close(figure)


def test_sums_in_16_bits_by_hand():
    assert dot_in_16_bits([255, 255], [64, 64]) == 32_640
    assert dot_in_16_bits([255, 255], [65, 65]) == 32_767  # not 33,150
    assert dot_in_16_bits([255, 255], [-128, -128]) == -32_768
    assert dot_in_16_bits([255, 255, 1, 1], [127, 127, 5, 6]) == 32_767 + 11
    assert dot_in_16_bits([255, 0, 255, 0], [127] * 4) == 2 * 255 * 127  # neighbors are small: nothing overflows


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(-64, 64)), min_size=1, max_size=8))
def test_weights_up_to_64_are_exact(drawn):
    a, w = zip(*(drawn + drawn))
    assert dot_in_16_bits(a, w) == int(np.dot(a, w))


def test_onnxruntime_is_exact_where_16_bits_are_enough_and_else_may_saturate():
    rng = np.random.default_rng(0)
    a, w = rng.integers(0, 256, 64), rng.integers(-63, 64, 64)
    assert dot_by_onnxruntime(a.tolist(), w.tolist()) == int(a @ w)
    got = dot_by_onnxruntime([255] * 64, [127] * 64)
    assert 32 * 32_767 <= got <= 64 * 255 * 127 and (not has_vnni() or got == 64 * 255 * 127)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("flags : avx2 avx512_vnni", True), ("flags : avx2 avx_vnni x", True), ("flags : avx2 sse", False), ("x", None)],
)
def test_vnni_is_read_from_the_flags(tmp_path, flags, expected):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\n{flags}\n")
    assert has_vnni(tmp_path / "cpuinfo") is expected
    assert has_vnni(tmp_path / "absent") is None
