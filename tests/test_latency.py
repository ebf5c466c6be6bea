"""Operations against what a network really runs; the timed graphs against torch; the frontier against brute force."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from tests.search.spaces import PAIRS, frontier
from yolonas_lab import latency as module
from yolonas_lab.latency import Layer, layer_graph, measure_table, network_layers, onnx_session, pareto_front
from yolonas_lab.models import CONFIGS, YoloNAS, reparameterize
from yolonas_lab.models.yolo_nas import Bottleneck
from yolonas_lab.quantization import quantizable_layers
from yolonas_lab.search import LAB_SPACE, sample

torch.set_num_threads(1)
CONV, UPSAMPLE = Layer("conv", 16, 24, 3, 2, 8), Layer("upsample", 8, 6, 2, 2, 4)
PREDICT = Layer("predict", 16, 3, 1, 1, 4)
ADD, CONCAT, POOL = Layer("add", 4, 4, 1, 1, 6), Layer("concat", 8, 8, 1, 1, 6), Layer("pool", 4, 4, 5, 1, 6)
ONE_OF_EACH = (CONV, PREDICT, UPSAMPLE, ADD, CONCAT, POOL)
TABLE = module.LatencyTable("a machine", "torch", 32, {CONV: 0.25, ADD: 0.5})
FEW = st.integers(0, 5).map(float)  # so few values that there are ties
KINDS = {nn.Conv2d: "conv", nn.ConvTranspose2d: "upsample", nn.MaxPool2d: "pool", Bottleneck: "add"}


def observed(config, image_size, num_classes):
    """What the fused network runs, in order, seen from outside: modules by hooks, concatenations by their shape."""
    model = reparameterize(YoloNAS(config, num_classes)).eval()
    seen, concatenated, cat = {}, [], torch.cat

    def note(name, kind):
        def hook(layer, inputs, output):
            (_, c_in, size, _), c_out = inputs[0].shape, output.shape[1]
            kernel, stride = (np.max(getattr(layer, what, 1)).item() for what in ("kernel_size", "stride"))
            seen[name] = Layer("predict" if name.endswith("_pred") else kind, c_in, c_out, kernel, stride, size)

        return hook

    for name, layer in model.named_modules():
        for kind in (kind for type_, kind in KINDS.items() if isinstance(layer, type_)):
            layer.register_forward_hook(note(name, kind))

    def counting_cat(tensors, dim=0):
        if (out := cat(tensors, dim)).ndim == 4:
            concatenated.append(Layer("concat", out.shape[1], out.shape[1], 1, 1, out.shape[2]))
        return out

    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(torch, "cat", counting_cat)
        model(torch.zeros(1, 3, image_size, image_size))
    return seen, concatenated, model


@settings(max_examples=6)
@given(seed=st.integers(0, 2**32 - 1), image_size=st.sampled_from([32, 64, 96]))
def test_the_list_is_what_the_network_runs(seed, image_size):
    config = sample(LAB_SPACE, np.random.default_rng(seed))
    layers = network_layers(config, image_size, 3)
    seen, concatenated, model = observed(config, image_size, 3)
    assert list(seen.items()) == [item for item in layers.items() if item[1].kind != "concat"]
    assert sorted(concatenated) == sorted(layer for layer in layers.values() if layer.kind == "concat")
    parameters = sum(p.numel() for name, p in model.named_parameters() if not name.endswith("alpha"))
    assert parameters == sum(layer.parameters for layer in layers.values())
    assert sum(p.numel() for p in model.parameters() if p.ndim == 4) == sum(layer.weights for layer in layers.values())


@pytest.mark.parametrize("name", ["yolo_nas_nano", pytest.param("yolo_nas_s", marks=pytest.mark.slow)])
def test_macs_equal_those_of_pytorchs_flop_counter(name):
    model = reparameterize(YoloNAS(CONFIGS[name]).eval())
    with FlopCounterMode(display=False) as counter:
        model(torch.rand(1, 3, 64, 64))  # with gradients, so that no fast path hides a convolution
    layers = network_layers(CONFIGS[name], 64).values()
    assert sum(layer.macs for layer in layers) == counter.get_total_flops() // 2


def inputs_of(session, seed, high=256):
    rng = np.random.default_rng(seed)
    return {tensor.name: rng.integers(0, high, tensor.shape).astype(np.uint8) for tensor in session.get_inputs()}


def computed(layer, x, kernel):
    """What the operation makes of its input, as torch's functions say."""
    ways = {
        "add": lambda: 0.9 * x + x,
        "concat": lambda: torch.cat([x, x], dim=1),
        "pool": lambda: F.max_pool2d(x, layer.kernel, stride=1, padding=layer.kernel // 2),
        "upsample": lambda: F.conv_transpose2d(x, kernel, stride=2),
        "predict": lambda: F.conv2d(x, kernel, stride=layer.stride, padding=layer.kernel // 2),
        "conv": lambda: F.conv2d(x, kernel, stride=layer.stride, padding=layer.kernel // 2).relu(),
    }
    return ways[layer.kind]()


def kernels(graph, scale=1.0):
    found = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.graph.initializer}
    return {name.removeprefix("wq").removeprefix("w"): t.double() * scale for name, t in found.items() if t.ndim == 4}


@pytest.mark.parametrize("layer", ONE_OF_EACH, ids=lambda layer: layer.kind)
def test_the_timed_graph_computes_the_operation_as_often_as_asked(layer):
    graph = layer_graph(layer, 3, int8=False)
    session, weights = onnx_session(graph.SerializeToString()), kernels(graph)
    feed = {name: x.astype(np.float32) / 255 for name, x in inputs_of(session, 1).items()}
    for i, y in enumerate(session.run(None, feed)):
        x = torch.from_numpy(feed.get(f"x{i}", feed.get("x"))).double()
        expected = computed(layer, x, weights.get(str(i)))
        torch.testing.assert_close(torch.from_numpy(y).double(), expected, rtol=1e-4, atol=1e-4)
    assert len({kernel.numpy().tobytes() for kernel in weights.values()}) == len(weights)  # each copy has its own


@pytest.mark.parametrize("layer", [CONV, UPSAMPLE, ADD, CONCAT, POOL], ids=lambda layer: layer.kind)
def test_the_int8_graph_computes_the_same_on_the_grid(layer):
    graph = layer_graph(layer, 1, int8=True)
    session = onnx_session(graph.SerializeToString())
    (x,) = (feed := inputs_of(session, 0, high=100)).values()
    (y,) = session.run(None, feed)
    expected = computed(layer, torch.from_numpy(x).double(), kernels(graph, 1 / 64).get("0")).round().clamp(0, 255)
    assert y.dtype == np.uint8
    assert (torch.from_numpy(y).double() - expected).abs().max() <= 1  # a half may be rounded either way


def test_a_convolution_is_timed_in_integers(tmp_path):
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    graph = layer_graph(CONV, 3, int8=True).SerializeToString()
    ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds.count("QLinearConv") == 3 and "Conv" not in kinds and "Relu" not in kinds


@pytest.mark.parametrize("layer", ONE_OF_EACH, ids=lambda layer: layer.kind)
def test_torch_runs_what_a_deployed_network_has_and_a_layer_survives_its_text(layer):
    assert module.parse_layer(str(layer)) == layer
    side = layer.size * 2 if layer.kind == "upsample" else layer.size // layer.stride
    found = module._in_torch(layer, 2)()
    assert [tuple(y.shape) for y in found] == [(1, layer.out_channels, side, side)] * 2
    assert layer.kind != "conv" or ((found[0] >= 0).all() and (found[0] == 0).any())  # its ReLU belongs to it
    assert found[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("engine", module.ENGINES)
def test_every_layer_is_timed_once_with_machine_and_engine(engine):
    table = measure_table([*ONE_OF_EACH, *ONE_OF_EACH[:3]], 32, engine, rounds=1)
    assert tuple(table.layers) == ONE_OF_EACH and all(ms > 0 for ms in table.layers.values())
    assert (table.engine, table.image_size, table.machine) == (engine, 32, module.machine_for(engine))


def test_copies_are_divided_out(monkeypatch):
    """With a clock that counts calls, each round lasts one tick, whatever is repeated in it."""
    small, large = Layer("conv", 8, 8, 1, 1, 2), Layer("conv", 64, 64, 3, 1, 32)
    ticks, side_by_side = iter(range(10**6)), module.time_side_by_side
    monkeypatch.setattr(module, "time_side_by_side", lambda r, n: side_by_side(r, n, clock=lambda: next(ticks)))
    assert measure_table([small, large], 32, rounds=3).layers == {small: 1000 / 16, large: 1000.0}


def test_every_quantizable_layer_has_its_two_times():
    model = YoloNAS(CONFIGS["yolo_nas_pico"], 3).eval()
    table = module.layer_latency(model, 32, rounds=1)
    assert sorted(table) == sorted(quantizable_layers(model))
    assert all(time.float_ms > 0 and time.int8_ms > 0 for time in table.values())
    one, other = (table[f"backbone.stages.0.csp.conv{i}.conv"] for i in (1, 2))
    assert one == other  # layers of one shape share one measurement


def test_sums_by_hand():
    assert TABLE.total_ms([CONV, ADD, CONV]) == 1.0
    table = module.check_latency({"b": (2, 3), "c": [8, 2], "a": (4, 1)}, "abc")
    assert list(table.items()) == [("a", (4.0, 1.0)), ("b", (2.0, 3.0)), ("c", (8.0, 2.0))]
    assert module.network_ms(table) == 6 and module.network_ms(table, ["a", "c"]) == 15


def test_a_frontier_by_hand():
    found = frontier(PAIRS)
    assert [(point.ap, point.ms) for point in found.points] == [(0.3, 2.0), (0.5, 4.0), (0.6, 7.0)]
    assert [found.best(ms).ap for ms in (2.0, 3.99, 4.0, 6.9, 100.0)] == [0.3, 0.3, 0.5, 0.5, 0.6]
    assert [found.fastest(ap).ms for ap in (0.0, 0.3, 0.31, 0.6)] == [2.0, 2.0, 4.0, 7.0]


@given(st.lists(st.tuples(FEW, FEW), max_size=12))
def test_the_frontier_against_brute_force(points):
    def beaten(i):
        ap, ms = points[i]
        better = any(a >= ap and m <= ms and (a > ap or m < ms) for a, m in points)
        return better or points[i] in points[:i]

    front = pareto_front(points)
    assert sorted(front) == [i for i in range(len(points)) if not beaten(i)]
    assert [points[i] for i in front] == sorted(points[i] for i in front)


@given(st.lists(st.tuples(FEW, FEW), max_size=8), st.tuples(FEW, FEW))
def test_the_hypervolume_against_a_grid_and_never_smaller_for_one_more_network(points, another):
    def best(ms):
        return max((ap for ap, m in points if m <= ms), default=0.0)

    cells = np.arange(0.125, 6, 0.25)
    assert frontier(points).hypervolume(6) == pytest.approx(sum(best(ms) * 0.25 for ms in cells))
    assert frontier([*points, another]).hypervolume(6) >= frontier(points).hypervolume(6)


TIMES = {"stem.conv": (1, 2), "head.conv": (1, 2)}
BAD = [
    (lambda: module.parse_layer("conv 16→24 3×5/2 at 32 px"), "is not an operation such as 'conv 16→24"),
    (lambda: network_layers(CONFIGS["yolo_nas_pico"], 100), "image_size is 100"),
    (lambda: measure_table([CONV], 32, "onnxruntme"), "Unknown engine 'onnxruntme'; did you mean 'onnxruntime'"),
    (lambda: TABLE.total_ms([CONV, POOL]), "lacks 'pool 4→4 5×5/1 at 6 px'"),
    (lambda: module.check_latency({"stem": (1, 2)}, TIMES), "did you mean 'stem.conv'"),
    (lambda: module.check_latency({"stem.conv": (1, 2)}, TIMES), r"'head\.conv' is missing"),
    (lambda: module.check_latency(TIMES | {"stem.conv": (1, float("nan"))}, TIMES), "two positive numbers"),
    (lambda: frontier(PAIRS).best(1.9), r"under 1\.9 ms; the fastest there is takes 2 ms"),
    (lambda: frontier(PAIRS).fastest(0.7), r"AP of 0\.7"),
    (lambda: pareto_front([(0.5, 1.0), (float("nan"), 1.0)]), "NaN"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_several_threads_are_named(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with pytest.raises(ValueError, match=r"torch uses 2 threads.*set_num_threads\(1\)"):
        measure_table([CONV], 32)
