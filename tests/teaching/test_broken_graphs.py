import numpy as np
import onnxruntime
import pytest

from yolonas_lab.deployment.qdq_rules import RULES, check_qdq, quantized_layers
from yolonas_lab.teaching.lessons.nb13 import BREAKS, HIDDEN, WELL_FORMED, broken_text, constants, faulty_text, model_of


def test_the_well_formed_network_breaks_no_rule_and_may_run_in_int8():
    model = model_of(WELL_FORMED)
    assert check_qdq(model) == []
    assert quantized_layers(model) == {**dict.fromkeys(HIDDEN, True), "pred": False}


def test_the_well_formed_network_computes_scores_of_the_size_it_says():
    session = onnxruntime.InferenceSession(model_of(WELL_FORMED).SerializeToString())
    (scores,) = session.run(None, {"images": np.random.default_rng(0).random((1, 3, 32, 32), np.float32)})
    scores = np.asarray(scores)
    assert scores.shape == (1, 2, 32, 32)
    assert 0 <= scores.min() < scores.max() <= 1


@pytest.mark.parametrize("name", BREAKS)
def test_each_mistake_breaks_its_rule_once_and_no_other(name):
    assert [found.rule for found in check_qdq(model_of(broken_text(name)))] == [BREAKS[name][0]]


def test_every_rule_has_a_mistake():
    assert {rule for rule, _ in BREAKS.values()} == set(RULES)


def test_the_exercise_has_three_mistakes():
    assert [found.rule for found in check_qdq(model_of(faulty_text()))] == ["R1", "R6", "R7"]


def test_the_float_weight_is_what_the_integers_stand_for():
    made = constants()
    np.testing.assert_allclose(made["w1_float"][2], made["w1_int8"][2] * made["s_w"][2], rtol=1e-6)


def test_an_unknown_mistake_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'skip in float'"):
        broken_text("skip in floats")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Relu(c1)", "Relu(c1", "not ONNX text"),
        ("Relu(c1)", "Relu(nothing)", "reads 'nothing', which no line makes"),
        ("Relu(c1)", "Relu(c1, c1)", "no valid graph"),
        ('["conv1"] c1 = Conv', '["conv1"] c1 = Convolution', "no valid graph"),
        ("(x, w2, b)", "(x, w3, b)", "no valid graph"),
    ],
)
def test_text_that_is_no_graph(old, new, message):
    with pytest.raises(ValueError, match=message):
        model_of(WELL_FORMED.replace(old, new))
