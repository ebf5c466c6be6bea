import numpy as np
import onnxruntime
import pytest

from yolonas_lab.deployment.onnx_graph import Graph
from yolonas_lab.deployment.qdq_rules import RULES, check_qdq, quantized_layers
from yolonas_lab.teaching.lessons.nb13 import (
    BREAKS,
    HIDDEN,
    LAUNCH_MS,
    WELL_FORMED,
    SimulatedGpu,
    broken_text,
    constants,
    faulty_text,
    model_of,
    permitted_precisions,
)


def test_the_well_formed_network_breaks_no_rule_and_may_run_in_int8():
    model = model_of(WELL_FORMED)
    assert check_qdq(model) == []
    assert quantized_layers(model) == {**dict.fromkeys(HIDDEN, True), "pred": False}


def test_the_well_formed_network_computes_scores_of_the_size_it_says():
    session = onnxruntime.InferenceSession(model_of(WELL_FORMED).SerializeToString())
    (scores,) = session.run(None, {"images": np.random.default_rng(0).random((1, 3, 32, 32), np.float32)})
    scores = np.asarray(scores)
    assert scores.shape == (1, 2, 32, 32) and 0 <= scores.min() < scores.max() <= 1


@pytest.mark.parametrize("name", BREAKS)
def test_each_mistake_breaks_its_rule_once_and_no_other(name):
    assert [found.rule for found in check_qdq(model_of(broken_text(name)))] == [BREAKS[name][0]]


def test_every_rule_has_a_mistake_and_the_exercise_has_three():
    assert {rule for rule, *_ in BREAKS.values()} == set(RULES)
    changes = [change for _, *changes in BREAKS.values() for change in changes]
    assert all(WELL_FORMED.count(change.split(" -> ")[0]) == 1 for change in changes)
    assert [found.rule for found in check_qdq(model_of(faulty_text()))] == ["R1", "R6", "R7"]


def test_the_float_weight_is_what_the_integers_stand_for():
    made = constants()
    np.testing.assert_allclose(made["w1_float"][2], made["w1_int8"][2] * made["s_w"][2], rtol=1e-6)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Relu(c1)", "Relu(c1", "not ONNX text"),
        ("Relu(c1)", "Relu(nothing)", "reads 'nothing', which no line makes"),
        ("Relu(c1)", "Relu(c1, c1)", "no valid graph"),
        ("(x, w2, b)", "(x, w3, b)", "no valid graph"),
    ],
)
def test_text_that_is_no_graph(old, new, message):
    with pytest.raises(ValueError, match=message):
        model_of(WELL_FORMED.replace(old, new))


def test_what_a_graph_permits():
    graph = Graph(model_of(WELL_FORMED).graph)
    expected = {"conv1": "Int8", "conv2": "Int8", "conv3": "Int8", "pred": "Float"}
    assert permitted_precisions(graph) == expected
    graph.constants["w_pred"] = graph.constants["w_pred"].astype(np.float16)
    assert permitted_precisions(graph) == {**expected, "pred": "Half"}
    one_sided = Graph(model_of(broken_text("weight quantized, activation not")).graph)
    assert permitted_precisions(one_sided)["conv2"] == "Float"


def test_a_launch_comes_back_before_the_work_is_done_and_launches_queue_up():
    gpu = SimulatedGpu({"a": 20.0, "b": 30.0})
    first, second = gpu.candidates().values()
    first()
    assert gpu.clock() == pytest.approx(LAUNCH_MS / 1e3)
    second()
    for _ in range(2):  # the second time nothing is left to wait for
        gpu.wait()
        assert gpu.now == pytest.approx(LAUNCH_MS + 20 + 30)


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        ({"slow_runs": 2, "slow_ms": 5.0}, [15, 15, 10]),
        ({"warming": 0.1}, [10, 11, 12]),
        ({"interrupted": 2}, [10, 310, 10]),
    ],
)
def test_slow_runs_warming_and_interruptions(faults, expected):
    gpu, found = SimulatedGpu({"a": 10.0}, **faults), []
    for _ in expected:
        start = gpu.now
        gpu.candidates()["a"]()
        gpu.wait()
        found.append(round(gpu.now - start - LAUNCH_MS, 6))
    assert found == expected
