import pytest

import yolonas_lab as yl
from yolonas_lab.latency import Frontier, LayerTime
from yolonas_lab.quantization import QuantPolicy, calibrate, quantizable_layers, quantize
from yolonas_lab.quantization.selective import (
    FrontierPoint,
    Sensitivity,
    float_order,
    frontier,
    random_order,
    select_layers,
    spread,
)

HARM = Sensitivity("cheap", {"a": 0.9, "b": 0.1, "c": 0.9, "d": 0.2})
# INT8 saves 4, 1 and 1 ms in a, b and c, and nothing in d.
TIMES = {"a": (5.0, 1.0), "b": (2.0, 1.0), "c": (2.0, 1.0), "d": (1.0, 1.5)}
POINTS = (
    FrontierPoint((), ap=0.40, ms=1.0),
    FrontierPoint(("a",), ap=0.52, ms=2.0),
    FrontierPoint(("a", "b"), ap=0.50, ms=3.0),
    FrontierPoint(("a", "b", "c"), ap=0.55, ms=4.0),
)


def test_the_order_by_hand():
    # d first (float is faster), then c with 0.9 per ms, a with 0.225, b with 0.1.
    assert float_order(HARM, TIMES) == ("d", "c", "a", "b")


def test_an_order_needs_a_time_for_each_layer():
    with pytest.raises(ValueError, match="layer 'd' is missing"):
        float_order(HARM, {name: TIMES[name] for name in "abc"})
    with pytest.raises(ValueError, match="Unknown layer in the latency table 'e'"):
        float_order(HARM, {**TIMES, "e": (1.0, 1.0)})


@pytest.mark.parametrize("drop, ms", [(0.2, 1.0), (0.15, 1.0), (0.1, 2.0), (0.03, 2.0), (0.0299, 4.0), (0.0, 4.0)])
def test_the_fastest_point_within_the_allowed_drop(drop, ms):
    assert Frontier(POINTS).fastest(0.55 - drop - 1e-12).ms == ms


@pytest.mark.parametrize("drop", [-0.01, float("nan"), float("inf")])
def test_a_bad_drop_is_refused(drop):
    with pytest.raises(ValueError, match="allowed_drop"):
        select_layers(None, None, HARM, TIMES, drop)  # type: ignore[arg-type]


def test_how_many_layers_are_tried():
    assert spread(70, 9) == [0, 1, 4, 10, 18, 27, 39, 54, 70]
    assert spread(3, 9) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="points is 1"):
        spread(70, 1)


def test_a_random_order_is_a_shuffle_that_repeats():
    layers = [f"layer {i}" for i in range(20)]
    assert sorted(random_order(layers, 3)) == sorted(layers)
    assert random_order(layers, 3) == random_order(layers, 3) != random_order(layers, 4)


@pytest.fixture(scope="module")
def val_set(tmp_path_factory):
    made = yl.data.make_scenes(tmp_path_factory.mktemp("scenes") / "s", train=0, val=40, image_size=64, seed=11)
    return yl.data.CocoDataset(made.images_dir("val"), made.annotations("val"))


@pytest.fixture(scope="module")
def pico(val_set):
    model = yl.models.get("yolo_nas_pico", pretrained_weights="scenes")
    return calibrate(quantize(model, QuantPolicy(weight_bits=3, per_channel=False)), val_set, max_images=16)


@pytest.fixture(scope="module")
def harm(pico):
    """As if the last layers were the sensitive ones."""
    return Sensitivity("cheap", {name: float(i) for i, name in enumerate(quantizable_layers(pico))})


def test_the_frontier_goes_from_all_quantized_to_all_in_float(pico, val_set, harm):
    table = {name: LayerTime(2.0, 1.0) for name in harm.values}
    order = float_order(harm, table)
    before = [m.mode for m in pico.modules() if hasattr(m, "mode")]
    found = frontier(pico, val_set, order, table, points=[0, 30])
    assert [len(point.float_layers) for point in found.candidates] == [0, 30, len(order)]
    assert found.candidates[1].float_layers == order[:30] and order[0] == quantizable_layers(pico)[-1]
    assert [point.ms for point in found.candidates] == [len(order), len(order) + 30, 2 * len(order)]
    model = yl.models.reparameterize(yl.models.get("yolo_nas_pico", pretrained_weights="scenes"))
    ap = yl.evaluate.evaluate(model, val_set, progress=False).ap
    assert found.candidates[-1].ap == pytest.approx(ap, abs=1e-3)
    assert found.candidates[0].ap == yl.evaluate.evaluate(pico, val_set, progress=False).ap < ap - 0.05
    assert [m.mode for m in pico.modules() if hasattr(m, "mode")] == before


def test_selected_layers_keep_the_promise(pico, val_set, harm):
    table = {name: LayerTime(2.0, 1.0) for name in harm.values}
    kept = select_layers(pico, val_set, harm, table, allowed_drop=0.0, points=2)
    assert set(kept) == set(quantizable_layers(pico))
    assert select_layers(pico, val_set, harm, table, allowed_drop=1.0, points=2) == ()


def test_an_order_must_name_each_layer_once(pico, val_set, harm):
    table = {name: LayerTime(2.0, 1.0) for name in harm.values}
    with pytest.raises(ValueError, match="order must name each"):
        frontier(pico, val_set, list(harm.values)[1:], table)
