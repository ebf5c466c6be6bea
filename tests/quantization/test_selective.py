import copy
import sys
from typing import Any

import pytest
import torch

import yolonas_lab as yl
from yolonas_lab.latency import LayerTime
from yolonas_lab.models import RawPredictions
from yolonas_lab.quantization import QuantPolicy, calibrate, quantizable_layers, quantize, quantized_only
from yolonas_lab.quantization import sensitivity as measure
from yolonas_lab.quantization.layers import quantizers
from yolonas_lab.quantization.selective import (
    Sensitivity,
    float_order,
    frontier,
    output_noise,
    random_order,
    select_layers,
    spread,
)

LAYERS = ["backbone.stem.conv", "neck.up1.upsample", "heads.levels.2.box_conv.conv"]
HARM = Sensitivity("cheap", {"a": 0.9, "b": 0.1, "c": 0.9, "d": 0.2})
# INT8 saves 4, 1 and 1 ms in a, b and c, and nothing in d.
TIMES = {"a": (5.0, 1.0), "b": (2.0, 1.0), "c": (2.0, 1.0), "d": (1.0, 1.5)}


@pytest.fixture(scope="module")
def few(scenes):
    return scenes[1].subset(range(20))


@pytest.fixture(scope="module")
def coarse(pico, images) -> Any:
    return calibrate(quantize(pico, QuantPolicy(weight_bits=3, per_channel=False)), images)


@pytest.fixture
def three_layers(monkeypatch):
    """Sensitivity measures these layers only; the package's attribute of the module's name is the function."""
    monkeypatch.setattr(sys.modules["yolonas_lab.quantization.selective"], "quantizable_layers", lambda model: LAYERS)


def raw(scores, first_sides):
    """One image with two anchor points: scores (2, 1), and the first one's left side as a distribution over 3 bins; all
    other sides are sure to be 0.
    """
    sure = torch.tensor([1.0, 0.0, 0.0]).expand(2, 4, 3).clone()
    sure[0, 0] = torch.tensor(first_sides)
    logits = torch.tensor(scores).clamp(1e-7, 1 - 1e-7).logit()
    return RawPredictions(logits[None], sure.clamp(min=1e-12).log()[None], torch.zeros(2, 2), torch.ones(2, 1))


def test_the_noise_by_hand():
    clean = raw([[0.5], [0.0]], [0.0, 0.6, 0.4])
    signal = 0.5**2 + 0.6**2 + 0.4**2 + 3  # what the first anchor point says; the second finds nothing
    assert output_noise(clean, clean) == 0
    assert output_noise(clean, raw([[0.5], [0.0]], [0.1, 0.6, 0.3])) == pytest.approx(0.02 / signal, rel=1e-4)
    assert output_noise(clean, raw([[0.3], [0.0]], [0.0, 0.6, 0.4])) == pytest.approx(0.04 / signal, rel=1e-4)
    assert output_noise(clean, raw([[0.5], [0.9]], [0.0, 0.6, 0.4])) == pytest.approx(0, abs=1e-6)
    # Each anchor point counts as much as its score.
    clean, noisy = raw([[0.5], [0.25]], [1.0, 0.0, 0.0]), raw([[0.5], [0.05]], [1.0, 0.0, 0.0])
    signal = 0.5 * (0.5**2 + 4) + 0.25 * (0.25**2 + 4)
    assert output_noise(clean, noisy) == pytest.approx(0.25 * 0.2**2 / signal, rel=1e-4)


def test_ranks_by_hand():
    found = Sensitivity("cheap", {"a": 0.01, "b": 0.1, "c": 0.0})
    assert found.ranked() == ["b", "a", "c"] and found.harm("b") == 0.1
    with pytest.raises(ValueError, match=r"Unknown layer 'B'.*choose one of: a, b, c"):
        found.harm("B")


def test_each_layer_is_measured_alone_and_the_model_is_afterwards_as_it_was(pico, coarse, images, three_layers):
    before = [(quantizer.mode, quantizer.training) for quantizer in quantizers(coarse)]
    state = copy.deepcopy(coarse.state_dict())
    found = measure(coarse, images.split(8), max_images=12)
    assert [(quantizer.mode, quantizer.training) for quantizer in quantizers(coarse)] == before
    assert all(torch.equal(value, state[name]) for name, value in coarse.state_dict().items())
    for layer in LAYERS:
        with torch.inference_mode(), quantized_only(coarse, [layer]):
            parts = [output_noise(pico(part), coarse(part)) for part in (images[:8], images[8:12])]
        assert found.values[layer] == pytest.approx(sum(parts) / 2, rel=0.02) and parts[0] > 0


def test_finer_grids_make_less_noise_and_data_sets_do_as_well_as_tensors(pico, coarse, scenes, images, three_layers):
    fine = calibrate(quantize(pico), scenes[0], max_images=16)
    finer, coarser = measure(fine, scenes[0], max_images=16), measure(coarse, images)
    assert all(finer.values[layer] < coarser.values[layer] for layer in LAYERS)


@pytest.mark.slow
def test_exact_is_the_lost_ap(coarse, few, three_layers):
    found = measure(coarse, few, mode="exact")
    with quantized_only(coarse, []):
        float_ap = yl.evaluate.evaluate(coarse, few, progress=False).ap
    with quantized_only(coarse, LAYERS[:1]):
        ap = yl.evaluate.evaluate(coarse, few, progress=False).ap
    assert list(found.values) == LAYERS and found.values[LAYERS[0]] == pytest.approx(float_ap - ap, abs=1e-9)


def test_bad_input_is_refused(pico, coarse):
    with pytest.raises(ValueError, match="did you mean 'cheap'"):
        measure(coarse, [], mode="cheep")
    with pytest.raises(ValueError, match="not quantized"):
        measure(pico, [])
    with pytest.raises(ValueError, match="no range, such as"):
        measure(quantize(pico), [])
    with pytest.raises(ValueError, match="no images"):
        measure(coarse, [])
    with pytest.raises(ValueError, match="needs a CocoDataset"):
        measure(coarse, [torch.rand(1, 3, 64, 64)], mode="exact")


def test_the_order_by_hand():
    # d first (float is faster), then c with 0.9 per ms, a with 0.225, b with 0.1.
    assert float_order(HARM, TIMES) == ("d", "c", "a", "b")
    with pytest.raises(ValueError, match="layer 'd' is missing"):
        float_order(HARM, {name: TIMES[name] for name in "abc"})
    with pytest.raises(ValueError, match="Unknown layer in the latency table 'e'"):
        float_order(HARM, {**TIMES, "e": (1.0, 1.0)})


def test_a_random_order_is_a_shuffle_that_repeats():
    layers = [f"layer {i}" for i in range(20)]
    assert sorted(random_order(layers, 3)) == sorted(layers)
    assert random_order(layers, 3) == random_order(layers, 3) != random_order(layers, 4)


def test_how_many_layers_are_tried():
    assert spread(70, 9) == [0, 1, 4, 10, 18, 27, 39, 54, 70]
    assert spread(3, 9) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="points is 1"):
        spread(70, 1)


@pytest.fixture(scope="module")
def harm(coarse):
    """As if the last layers were the sensitive ones."""
    return Sensitivity("cheap", {name: float(i) for i, name in enumerate(quantizable_layers(coarse))})


@pytest.mark.slow
def test_the_frontier_goes_from_all_quantized_to_all_in_float(pico, coarse, few, harm):
    table = {name: LayerTime(2.0, 1.0) for name in harm.values}
    order = float_order(harm, table)
    before = [quantizer.mode for quantizer in quantizers(coarse)]
    found = frontier(coarse, few, order, table, points=[0, 30]).candidates
    assert [point.float_layers for point in found] == [(), order[:30], order]
    assert order[0] == quantizable_layers(coarse)[-1]
    assert [point.ms for point in found] == [len(order), len(order) + 30, 2 * len(order)]
    float_ap, ap = (yl.evaluate.evaluate(model, few, progress=False).ap for model in (pico, coarse))
    assert found[-1].ap == pytest.approx(float_ap, abs=1e-3)
    assert found[0].ap == ap < float_ap - 0.05
    assert [quantizer.mode for quantizer in quantizers(coarse)] == before
    with pytest.raises(ValueError, match="order must name each"):
        frontier(coarse, few, order[1:], table)


def test_selected_layers_keep_the_promise(coarse, few, harm):
    table = {name: LayerTime(2.0, 1.0) for name in harm.values}
    kept = select_layers(coarse, few, harm, table, allowed_drop=0.0, points=2)
    assert set(kept) == set(quantizable_layers(coarse))
    assert select_layers(coarse, few, harm, table, allowed_drop=1.0, points=2) == ()
    for drop in (-0.01, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="allowed_drop"):
            select_layers(coarse, few, harm, table, drop)
