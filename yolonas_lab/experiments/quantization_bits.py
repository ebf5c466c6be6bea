"""Claim: QARepVGG blocks lose less AP to quantization than RepVGG blocks.

Notebook 10. Chu et al., "Make RepVGG Greater Again", arXiv 2212.01593, sections 3 and 4: at 8 bits, per tensor, RepVGG
loses much and QARepVGG little. Here both twins are trained alike and quantized at 8 bits and fewer, weights per tensor
and per channel, with several ways to choose the ranges.
"""

from typing import Any

from yolonas_lab.experiments import twins
from yolonas_lab.experiments.claim import Numbers
from yolonas_lab.experiments.weight_noise import kernel_numbers
from yolonas_lab.models import YoloNAS, reparameterize
from yolonas_lab.quantization import QuantPolicy

QUESTION = "Do QARepVGG blocks lose less AP to quantization than RepVGG blocks, and at how many bits does it show?"
GRANULARITIES = {"per tensor": False, "per channel": True}
SETTINGS: dict[str, Any] = {
    "twins": twins.SETTINGS,
    "weight_bits": (8, 6, 5, 4, 3),  # activations at 8 bits, by percentile
    "mse_weight_bits": (4, 3),  # the same with weight ranges of the least squared error
    "activation_bits": (8, 4),  # weights at 8 bits per channel, by each of
    "activation_calibrators": ("max", "percentile", "entropy", "mse"),
    "all_bits": (6, 4),  # weights and activations alike, weights per tensor
}
METRICS = ("drop", "ap", "weight_sqnr_db", "largest_over_sigma")


def weight_conditions() -> dict[str, tuple[QuantPolicy, str]]:
    """Policy and activation calibrator by name, where the bits of the weights change."""
    found = {}
    for name, per_channel in GRANULARITIES.items():
        for bits in SETTINGS["weight_bits"]:
            found[f"W{bits} {name}"] = (QuantPolicy(weight_bits=bits, per_channel=per_channel), "percentile")
        for bits in SETTINGS["mse_weight_bits"]:
            policy = QuantPolicy(weight_bits=bits, per_channel=per_channel, weight_calibrator="mse")
            found[f"W{bits} {name}, mse"] = (policy, "percentile")
    return found


def activation_conditions() -> dict[str, tuple[QuantPolicy, str]]:
    """Policy and activation calibrator by name, where the bits of the activations change."""
    found = {}
    for bits in SETTINGS["activation_bits"]:
        for method in SETTINGS["activation_calibrators"]:
            found[f"A{bits} {method}"] = (QuantPolicy(activation_bits=bits), method)
    for bits in SETTINGS["all_bits"]:
        policy = QuantPolicy(weight_bits=bits, activation_bits=bits, per_channel=False)
        found[f"W{bits}A{bits} per tensor"] = (policy, "mse")
    return found


CONDITIONS = {**weight_conditions(), **activation_conditions()}
COMPARISONS = tuple((f"QARepVGG {condition}", f"RepVGG {condition}") for condition in CONDITIONS)


def run(seed: int, budget: float = 1.0) -> Numbers:
    """AP, its drop and the weights' noise of both twins in each condition ("QARepVGG W4 per tensor", …)."""
    numbers: Numbers = {}
    for block in twins.TWINS:
        numbers |= {f"{block} {name}": row for name, row in _measure(twins.trained(block, seed, budget)).items()}
    return numbers


def data_digest() -> str:
    """Fingerprint of the scenes."""
    return twins.scenes_digest()


def _measure(model: YoloNAS) -> Numbers:
    """All conditions of one trained model; its AP in float is ap + drop of any of them."""
    float_ap = twins.measured_ap(reparameterize(model))
    numbers = {}
    for name, (policy, method) in CONDITIONS.items():
        ap = twins.measured_ap(twins.quantized(model, policy, method))
        row = {"drop": float_ap - ap, "ap": ap, **kernel_numbers(model, policy)}
        numbers[name] = {metric: row[metric] for metric in METRICS}
    return numbers
