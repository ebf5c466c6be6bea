import pytest
import torch

from yolonas_lab.quantization import LayerTime, Sensitivity, fake_quantize, float_order
from yolonas_lab.quantization.calibrators import CANDIDATES, weight_range
from yolonas_lab.teaching.checks import nb10
from yolonas_lab.teaching.checks.nb10 import grid_variant, heavy_tailed, random_layers, scale_variant, selection_variant
from yolonas_lab.teaching.exercises import CheckFailed

CHECKS = {
    "quantize": nb10.check_quantize,
    "choose_scale": nb10.check_choose_scale,
    "select_layers": nb10.check_select_layers,
}


@pytest.mark.parametrize("name", CHECKS)
def test_reference_solutions_pass(name, capsys):
    CHECKS[name](nb10.SOLUTIONS[name])
    assert capsys.readouterr().out.startswith(f"✓ {name}")


def test_the_material_of_the_wrong_answers_is_right():
    nb10.check_quantize(grid_variant)
    nb10.check_choose_scale(scale_variant)
    nb10.check_select_layers(selection_variant)


def test_quantize_agrees_with_the_library():
    x = torch.randn(100, generator=torch.Generator().manual_seed(3))
    _, restored = nb10.quantize(x, 0.07, 5, 0, 31)
    wanted = fake_quantize(x, torch.tensor(0.07), torch.tensor(5), 0, 31)
    torch.testing.assert_close(restored, wanted)


def test_choose_scale_agrees_with_the_library():
    values = heavy_tailed(5)
    shares = torch.linspace(1 / CANDIDATES, 1, CANDIDATES).tolist()
    limit = weight_range(values, 4, "mse", axis=None)
    assert nb10.choose_scale(values, 4, shares) == pytest.approx(float(limit) / 7, rel=1e-5)


@pytest.mark.parametrize("allowed", [0.0, 0.05, 0.3, 9.0])
def test_select_layers_takes_the_first_layers_of_the_librarys_order(allowed):
    harm, saved = random_layers(7)
    names = [str(i) for i in range(len(harm))]
    latency = {name: LayerTime(1 + s, 1.0) for name, s in zip(names, saved)}
    order = float_order(Sensitivity("exact", dict(zip(names, harm))), latency)
    chosen = nb10.select_layers(harm, saved, allowed)
    assert {int(name) for name in order[: len(chosen)]} == set(chosen)


def test_solutions_written_in_another_way_pass():
    def quantize(x, scale, zero_point, low, high):
        integers = [min(max(round(v / scale) + zero_point, low), high) for v in x.double().tolist()]
        return torch.tensor(integers, dtype=torch.int32), torch.tensor([(i - zero_point) * scale for i in integers])

    def choose_scale(values, bits, shares):
        scales = torch.tensor(shares) * values.abs().max() / (2 ** (bits - 1) - 1)
        levels = (values[None] / scales[:, None]).round().clamp(1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1)
        return scales[(levels * scales[:, None] - values).square().mean(1).argmin()]

    def select_layers(harm, saved_ms, allowed):
        worth = [h / s if s > 0 else float("inf") for h, s in zip(harm, saved_ms)]
        order = sorted(range(len(harm)), key=lambda i: -worth[i])
        n = sum(s <= 0 for s in saved_ms)
        while sum(harm[i] for i in order[n:]) > allowed:
            n += 1
        return sorted(order[:n])

    nb10.check_quantize(quantize)
    nb10.check_choose_scale(choose_scale)
    nb10.check_select_layers(select_layers)


WRONG = [
    ("quantize", lambda x, s, z, lo, hi: grid_variant(x, s, z, lo, hi, rounding=torch.trunc), "cuts the decimals off"),
    ("quantize", lambda x, s, z, lo, hi: grid_variant(x, s, z, lo, hi, rounding=torch.floor), "rounds down"),
    ("quantize", lambda x, s, z, lo, hi: grid_variant(x, s, z, lo, hi, clip="never"), "clamp to low"),
    ("quantize", lambda x, s, z, lo, hi: grid_variant(x, s, z, lo, hi, clip="early"), "before adding the zero-point"),
    ("quantize", lambda x, s, z, lo, hi: grid_variant(x, s, z, lo, hi, back="no zero-point"), "forgot the zero-point"),
    ("quantize", lambda x, s, z, lo, hi: grid_variant(x, s, z, lo, hi, back="none"), "integers again"),
    ("quantize", lambda x, s, z, lo, hi: grid_variant(x, s, z, lo, hi, whole=False), "stored as floats"),
    ("quantize", lambda x, s, z, lo, hi: None, "returned None"),
    ("choose_scale", lambda v, b, s: v.abs().max().item() / (2 ** (b - 1) - 1), "always reaches the largest"),
    ("choose_scale", lambda v, b, s: scale_variant(v, b, s, clip=False), "without clamping"),
    ("choose_scale", lambda v, b, s: scale_variant(v, b, s, levels=2 ** (b - 1)), "such as 127"),
    ("choose_scale", lambda v, b, s: scale_variant(v, b, s, levels=2**b - 1), "half its integers"),
    ("choose_scale", lambda v, b, s: scale_variant(v, b, s, signed=True), "largest magnitude"),
    ("choose_scale", lambda v, b, s: scale_variant(v, b, s, judge="largest error"), "a single value"),
    ("choose_scale", lambda v, b, s: scale_variant(v, b, s, gives="limit"), "divided by the largest integer"),
    ("choose_scale", lambda v, b, s: scale_variant(v, b, s, gives="error"), "this is the error"),
    ("select_layers", lambda h, s, a: selection_variant(h, s, a, key="harm"), "for each millisecond saved"),
    ("select_layers", lambda h, s, a: selection_variant(h, s, a, key="product"), "divide"),
    ("select_layers", lambda h, s, a: selection_variant(h, s, a, reverse=False), "upside down"),
    ("select_layers", lambda h, s, a: selection_variant(h, s, a, slower="quantized"), "whatever its harm"),
    ("select_layers", lambda h, s, a: selection_variant(h, s, a, extra=1), "one layer too many"),
    ("select_layers", lambda h, s, a: selection_variant(h, s, a, count="float"), "still quantized"),
    (
        "select_layers",
        lambda h, s, a: [i for i in range(len(h)) if i not in nb10.select_layers(h, s, a)],
        "return the others",
    ),
]


@pytest.mark.parametrize(("name", "wrong", "advice"), WRONG)
def test_wrong_solutions_are_told_what_is_wrong(name, wrong, advice):
    with pytest.raises(CheckFailed, match=advice):
        CHECKS[name](wrong)


@pytest.mark.parametrize("name", CHECKS)
def test_hints_and_solutions_exist(name, capsys):
    for level in (1, 2, 3):
        nb10.hint(name, level)
    nb10.solution(name)
    assert f"def {name}" in capsys.readouterr().out
