"""Look-ups in a graph by hand, names by hand, and files that are no graph."""

import onnx
import pytest
from exports import float_nano
from qdq_text import network

from yolonas_lab.deployment.onnx_graph import Graph, load_onnx, name_nodes


def test_edges_both_ways():
    graph = Graph(network().graph)
    conv2 = graph.producer["c2"]
    assert conv2.name == "conv2"
    first, weight = graph.source(conv2, 0), graph.source(conv2, 1)
    assert first is not None and weight is not None and (first.name, weight.name) == ("x/DQ", "conv2/W")
    assert graph.source(conv2, 2) is None and graph.source(conv2, 7) is None  # a constant, and no input at all
    assert [node.name for node in graph.users(first)] == ["conv2", "scaled"]
    assert [(node.name, index) for node, index in graph.consumers["y"]] == [("sum", 1), ("concat", 2)]
    assert graph.constants["alpha"].tolist() == pytest.approx([0.8])
    assert [value.name for value in graph.inputs] == ["images"]


def test_constant_nodes_count_as_constants_and_nodes_that_no_output_needs_are_left_out():
    text = ('["scaled"]', '["c"] k = Constant<value = float[1] {2}>()\n["scaled"]'), ("(x, alpha)", "(x, k)")
    assert Graph(network(*text).graph).constants["k"].tolist() == [2.0]
    graph = Graph(network(("Add(skip, y)", "Add(y, y)")).graph)
    assert not {"skip/Q", "skip/DQ", "scaled"} & {node.name for node in graph.nodes}
    assert [node.name for node in graph.nodes][:3] == ["image/Q", "image/DQ", "conv1/W"]


def test_names_by_hand():
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 20]>
    g (float[1, 4] images) => (float[1, 2] boxes, float[1, 2] rest)
    <float[1] alpha = {2}, float[1] val_7 = {3}>
    {
      [node_1] a = Mul(images, alpha)
      [node_2] b = Mul(a, val_7)
      [node_3] boxes, rest = Split<axis = 1, num_outputs = 2>(b)
    }""")
    model.graph.initializer[0].name = model.graph.node[0].input[1] = "network.stem.alpha"
    for node, module in zip(model.graph.node, ("network.stem", "network.stem")):
        entry = node.metadata_props.add()
        entry.key, entry.value = "pkg.torch.onnx.name_scopes", f"['', 'network', '{module}', 'mul']"
    name_nodes(model)
    onnx.checker.check_model(model, full_check=True)
    nodes = [(node.name, list(node.input), list(node.output)) for node in model.graph.node]
    assert nodes == [
        ("stem/Mul", ["images", "stem.alpha"], ["stem/Mul"]),
        ("stem/Mul_1", ["stem/Mul", "stem/Mul_1/input_1"], ["stem/Mul_1"]),
        ("stem/Split", ["stem/Mul_1"], ["boxes", "rest"]),  # without a note it belongs where its input comes from
    ]


@pytest.mark.parametrize("content", [b"\x89PNG not a model", b"", None])
def test_a_file_that_is_no_onnx(tmp_path, content):
    path = tmp_path / "broken.onnx"
    path.write_bytes(float_nano().read_bytes()[:100_000] if content is None else content)
    with pytest.raises(ValueError, match=r"broken\.onnx .*export it again"):
        load_onnx(path)
    with pytest.raises(FileNotFoundError, match=r"no\.onnx does not exist"):
        load_onnx(tmp_path / "no.onnx")


@pytest.mark.parametrize("opset", [12, 21])
def test_an_opset_out_of_range(opset):
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : {opset}]> g (float[1] x) => (float[1] y) {{ y = Identity(x) }}'
    )
    with pytest.raises(ValueError, match=f"opset {opset}, but this library reads opsets 13 to 20"):
        load_onnx(model)
