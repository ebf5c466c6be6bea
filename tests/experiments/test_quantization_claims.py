"""The quantization claims on a few images and steps: they give every number that they promise, and repeat."""

import math
from typing import Any

import pytest
import torch
from claims import arms_of, shrink
from torch import nn

from yolonas_lab.experiments import find_claim, quantization
from yolonas_lab.experiments.quantization import BITS_CONDITIONS, BLOCKS, TWINS, kernel_numbers, sqnr_db
from yolonas_lab.models import QARepVGGBlock, RepVGGBlock, get, reparameterize
from yolonas_lab.quantization import QuantPolicy

TWO_STEPS = 0.00125  # of 1600


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path_factory):
    """Few scenes, in a folder that all these tests share."""
    monkeypatch.setenv("YOLONAS_LAB_CACHE", str(tmp_path_factory.getbasetemp() / "claims"))
    shrink(monkeypatch, TWINS, train_images=16, val_images=6, calibration_images=8)


def mean_score(model):
    """Stands for the AP, which takes longer than everything else."""
    with torch.inference_mode():
        return model(torch.full((1, 3, 64, 64), 0.4)).class_logits.sigmoid().mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["selective_quantization", "qat_recovery"])
def test_a_claim_gives_every_arm_of_its_comparisons(name, monkeypatch, tmp_path):
    monkeypatch.setattr(quantization, "measured_ap", mean_score)
    arms = arms_of(name, tmp_path, TWO_STEPS)
    assert set(arms) == {arm for pair in find_claim(name).comparisons for arm in pair}
    for block in BLOCKS:
        float_ap = arms[f"{block} float"]["ap"]
        rows = [row for arm, row in arms.items() if arm.startswith(f"{block} ")]
        assert all(row["drop"] == pytest.approx(float_ap - row["ap"], abs=1e-12) for row in rows)


@pytest.mark.slow
def test_the_bits_claim_measures_what_its_arms_say(monkeypatch):
    conditions = {name: BITS_CONDITIONS[name] for name in ("W8 per channel", "W4 per tensor", "A4 mse")}
    monkeypatch.setattr(quantization, "BITS_CONDITIONS", conditions)
    arms = quantization.run_quantization_bits(0, TWO_STEPS)
    assert set(arms) == {f"{block} {name}" for block in BLOCKS for name in conditions}
    assert all(set(row) == set(quantization.BITS_METRICS) for row in arms.values())
    for block in BLOCKS:
        fine, coarse = arms[f"{block} W8 per channel"], arms[f"{block} W4 per tensor"]
        assert fine["weight_sqnr_db"] > coarse["weight_sqnr_db"] + 15  # 6 dB a bit
        assert fine["ap"] + fine["drop"] == pytest.approx(coarse["ap"] + coarse["drop"])


def test_the_conditions_are_what_their_names_say():
    for name, (policy, method) in BITS_CONDITIONS.items():
        assert ("per tensor" in name) == (not policy.per_channel)
        assert f"W{policy.weight_bits}" in name or policy.weight_bits == 8
        assert f"A{policy.activation_bits}" in name or policy.activation_bits == 8
        assert (policy.weight_calibrator == "mse") == (", mse" in name)
        assert not name.startswith(("A8", "A4")) or name.endswith(method)
    assert len(BITS_CONDITIONS) == 5 * 2 + 2 * 2 + 2 * 4 + 2


@pytest.mark.slow
def test_twins_are_trained_once_with_their_own_seed_and_quantized_by_their_policy(tmp_path_factory):
    first = quantization.trained("QARepVGG", 0, TWO_STEPS)
    again, other = quantization.trained("QARepVGG", 0, TWO_STEPS), quantization.trained("QARepVGG", 1, TWO_STEPS)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in first.state_dict().items())
    name = "backbone.stem.branch1x1.weight"
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])
    assert isinstance(first.backbone.stem, QARepVGGBlock) and not first.training
    assert list(tmp_path_factory.getbasetemp().glob("claims/twins-*/QARepVGG-seed-0-steps-2/checkpoint.pt"))
    repvgg = quantization.trained("RepVGG", 0, TWO_STEPS)
    assert isinstance(repvgg.backbone.stem, RepVGGBlock)
    qmodel: Any = quantization.quantized(repvgg, QuantPolicy(weight_bits=3), "max")
    assert qmodel.calibration.method == "max" and qmodel.calibration.images == 8
    assert qmodel.backbone.stem.conv.weight_quantizer.bits == 3


@pytest.mark.slow
def test_the_int8_claim_draws_new_scenes_for_each_seed(monkeypatch):
    shrink(monkeypatch, quantization.INT8_DROP, calibration_images=8, models={"pico": "yolo_nas_pico"})
    a, b = (quantization.run_int8_drop(seed, budget=0.02) for seed in (0, 1))
    assert set(a) == {"pico float", "pico INT8"} and a != b
    assert abs(a["pico float"]["ap"] - a["pico INT8"]["ap"]) < 0.05 and a["pico INT8"]["ap"] > 0.4
    assert quantization.run_int8_drop(0, budget=0.02) == a


def test_full_size_statistics_are_those_of_the_images():
    model: Any = get("yolo_nas_pico", num_classes=2)
    images = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    quantization.estimate_statistics(model, list(images.split(4)))
    first = model.backbone.stem.branch3x3
    seen = first.conv(images)
    torch.testing.assert_close(first.bn.running_mean, seen.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert not model.training and {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {0.03}


@pytest.mark.slow
def test_the_full_size_probe_gives_every_metric(monkeypatch):
    shrink(monkeypatch, quantization.FULL_SIZE, images=6, models={"pico": "yolo_nas_pico"})
    arms = quantization.run_full_size_kernels(0)
    assert set(arms) == {"pico QARepVGG", "pico RepVGG"}
    for row in arms.values():
        assert set(row) == set(find_claim("full_size_kernels").metrics) and all(map(math.isfinite, row.values()))


def test_kernel_numbers_are_means_over_the_fused_kernels():
    assert sqnr_db(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5])) == pytest.approx(20)
    model: Any = get("yolo_nas_pico_repvgg", pretrained_weights="scenes")
    fused = reparameterize(model)
    names = [name for name, module in model.named_modules() if isinstance(module, RepVGGBlock)]
    weights = [fused.state_dict()[f"{name}.conv.weight"] for name in names]
    found = kernel_numbers(model, QuantPolicy(weight_bits=8, per_channel=False))
    sqnr = []
    for weight in weights:
        scale = weight.abs().max() / 127
        rounded = torch.fake_quantize_per_tensor_affine(weight, scale.item(), 0, -127, 127)
        sqnr.append(10 * math.log10(weight.square().sum() / (weight - rounded).square().sum()))
    assert found["weight_sqnr_db"] == pytest.approx(sum(sqnr) / len(sqnr), abs=0.05)
    largest = [weight.abs().max() / weight.std() for weight in weights]
    assert found["largest_over_sigma"] == pytest.approx(float(sum(largest)) / len(largest), rel=1e-4)
    assert found["channel_spread"] >= 1
