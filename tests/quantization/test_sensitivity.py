import copy
import importlib
import json
import math

import pytest
import torch

import yolonas_lab as yl
from yolonas_lab.models import RawPredictions
from yolonas_lab.quantization import QuantPolicy, calibrate, quantizable_layers, quantize, quantized_only
from yolonas_lab.quantization import sensitivity as measure
from yolonas_lab.quantization.selective import Sensitivity, load_sensitivity, output_noise

LAYERS = ["backbone.stem.conv", "neck.up1.upsample", "heads.levels.2.box_conv.conv"]


@pytest.fixture(scope="module")
def val_set(tmp_path_factory):
    made = yl.data.make_scenes(tmp_path_factory.mktemp("scenes") / "s", train=0, val=24, image_size=64, seed=12)
    return yl.data.CocoDataset(made.images_dir("val"), made.annotations("val"))


@pytest.fixture(scope="module")
def pico(val_set):
    model = yl.models.get("yolo_nas_pico", pretrained_weights="scenes")
    return calibrate(quantize(model, QuantPolicy(weight_bits=3, per_channel=False)), val_set, max_images=16)


@pytest.fixture(scope="module")
def cheap(pico, val_set):
    return measure(pico, val_set, max_images=16)


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


def test_each_anchor_point_counts_as_much_as_its_score():
    clean, noisy = raw([[0.5], [0.25]], [1.0, 0.0, 0.0]), raw([[0.5], [0.05]], [1.0, 0.0, 0.0])
    signal = 0.5 * (0.5**2 + 4) + 0.25 * (0.25**2 + 4)
    assert output_noise(clean, noisy) == pytest.approx(0.25 * 0.2**2 / signal, rel=1e-4)


def test_ranks_and_decibels_by_hand():
    found = Sensitivity("cheap", {"a": 0.01, "b": 0.1, "c": 0.0})
    assert found.ranked() == ["b", "a", "c"] and found.harm("b") == 0.1
    assert found.sqnr_db("a") == pytest.approx(20) and found.sqnr_db("c") == math.inf
    with pytest.raises(ValueError, match=r"Unknown layer 'B'.*choose one of: a, b, c"):
        found.harm("B")
    with pytest.raises(ValueError, match="mode='cheap'"):
        Sensitivity("exact", {"a": 0.1}).sqnr_db("a")


def test_each_layer_is_measured_alone(pico, val_set, cheap):
    assert list(cheap.values) == quantizable_layers(pico)
    images = yl.detect.prepare([val_set[i].image for i in range(16)], 64)[0]
    float_model = yl.models.reparameterize(yl.models.get("yolo_nas_pico", pretrained_weights="scenes"))
    for layer in LAYERS:
        with torch.inference_mode(), quantized_only(pico, [layer]):
            expected = output_noise(float_model(images), pico(images))
        assert cheap.values[layer] == pytest.approx(expected, rel=0.02) and expected > 0


def test_finer_grids_make_less_noise(pico, val_set, cheap):
    model = yl.models.get("yolo_nas_pico", pretrained_weights="scenes")
    fine = calibrate(quantize(model, QuantPolicy(weight_bits=8)), val_set, max_images=16)
    finer = measure(fine, val_set, max_images=16)
    assert sum(finer.values[name] < cheap.values[name] for name in cheap.values) > 0.95 * len(cheap.values)


def test_the_model_is_afterwards_as_it_was(pico, val_set):
    before = [(m.mode, m.training) for m in pico.modules() if hasattr(m, "mode")]
    state = copy.deepcopy(pico.state_dict())
    measure(pico, val_set, max_images=2)
    assert [(m.mode, m.training) for m in pico.modules() if hasattr(m, "mode")] == before
    assert all(torch.equal(value, state[name]) for name, value in pico.state_dict().items())


def test_batches_and_loaders_do_as_well_as_a_data_set(pico, val_set, cheap):
    images = yl.detect.prepare([val_set[i].image for i in range(24)], 64)[0]
    from_batches = measure(pico, images.split(8), max_images=16, batch_size=8)
    for layer in LAYERS:
        assert from_batches.values[layer] == pytest.approx(cheap.values[layer], rel=0.05)


def test_exact_is_the_lost_ap(pico, val_set, monkeypatch, tmp_path):
    path = tmp_path / "exact.json"
    stop_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        measure(pico, val_set, mode="exact", path=path)
    found = json.loads(path.read_text())["values"]
    with quantized_only(pico, []):
        float_ap = yl.evaluate.evaluate(pico, val_set, progress=False).ap
    assert list(found) == quantizable_layers(pico)[:2]
    for layer, drop in found.items():
        with quantized_only(pico, [layer]):
            assert drop == pytest.approx(float_ap - yl.evaluate.evaluate(pico, val_set, progress=False).ap, abs=1e-9)


def stop_after(monkeypatch, layers):
    """Interrupt the measurement after so many layers, as Ctrl-C would; returns the layers it began."""
    begun = []

    def interrupted(model, names):
        begun.extend(names)
        if len(begun) > layers:
            raise KeyboardInterrupt
        return quantized_only(model, names)

    # The package's attribute of this name is the function.
    module = importlib.import_module("yolonas_lab.quantization.selective")
    monkeypatch.setattr(module, "quantized_only", interrupted)
    return begun


def test_a_stopped_measurement_goes_on(pico, val_set, cheap, monkeypatch, tmp_path):
    path = tmp_path / "cheap.json"
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            measure(pico, val_set, max_images=16, path=path)
    assert len(json.loads(path.read_text())["values"]) == 5
    with monkeypatch.context() as patch:
        begun = stop_after(patch, 1000)
        assert measure(pico, val_set, max_images=16, path=path) == cheap
        assert begun == quantizable_layers(pico)[5:]
    assert load_sensitivity(path) == cheap


def test_a_file_of_another_measurement_is_refused(pico, val_set, cheap, tmp_path):
    path = tmp_path / "cheap.json"
    measure(pico, val_set, max_images=2, path=path)
    with pytest.raises(ValueError, match="measured with another images"):
        measure(pico, val_set, max_images=3, path=path)
    model = yl.models.get("yolo_nas_pico", pretrained_weights="scenes")
    other = calibrate(quantize(model, QuantPolicy(weight_bits=5)), val_set, max_images=16)
    with pytest.raises(ValueError, match="measured with another model"):
        measure(other, val_set, max_images=2, path=path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="no file of a sensitivity"):
        load_sensitivity(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="not readable"):
        load_sensitivity(path)


def test_bad_input_is_refused(pico, val_set):
    with pytest.raises(ValueError, match="did you mean 'cheap'"):
        measure(pico, val_set, mode="cheep")
    with pytest.raises(ValueError, match="not quantized"):
        measure(yl.models.get("yolo_nas_pico", num_classes=6), val_set)
    with pytest.raises(ValueError, match="no range, such as"):
        measure(quantize(yl.models.get("yolo_nas_pico", num_classes=6)), val_set)
    with pytest.raises(ValueError, match="no images"):
        measure(pico, [])
    with pytest.raises(ValueError, match="needs a CocoDataset"):
        measure(pico, [torch.rand(1, 3, 64, 64)], mode="exact")


@pytest.mark.bench
@pytest.mark.parametrize("name", ["yolo_nas_pico", "yolo_nas_nano"])
def test_bench_cheap_against_exact(name, tmp_path):
    """How well the cheap mode ranks layers, and what both modes cost: minutes."""
    import time

    from scipy.stats import kendalltau, spearmanr

    made = yl.data.make_scenes(tmp_path / "s", train=320, val=500, image_size=64, seed=0, difficulty=0.5)
    train_set, val_set = (yl.data.CocoDataset(made.images_dir(s), made.annotations(s)) for s in ("train", "val"))
    model = yl.models.get(name, pretrained_weights="scenes")
    q = calibrate(quantize(model, QuantPolicy(weight_bits=4, per_channel=False)), train_set)
    began = time.process_time()
    cheap = measure(q, train_set)
    between = time.process_time()
    exact = measure(q, val_set, mode="exact")
    ended = time.process_time()
    layers = list(cheap.values)
    a, b = ([s.values[layer] for layer in layers] for s in (cheap, exact))
    harmful = [i for i in range(len(layers)) if b[i] > 0.0015]  # below, the drop is within the noise of the AP
    on_harmful = spearmanr([a[i] for i in harmful], [b[i] for i in harmful])[0]
    best = sum(sorted(b)[-8:])
    share = sum(exact.values[layer] for layer in cheap.ranked()[:8]) / best
    print(
        f"\n{name}, 4-bit weights per tensor: Spearman {spearmanr(a, b)[0]:.2f} over all {len(layers)} layers, "
        f"{on_harmful:.2f} over the {len(harmful)} that lose AP; Kendall {kendalltau(a, b)[0]:.2f}; the cheap mode's "
        f"first 8 layers hold {share:.0%} of the AP lost by the worst 8; CPU {between - began:.1f} s against "
        f"{ended - between:.0f} s"
    )
