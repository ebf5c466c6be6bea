"""Claim: leaving a few layers in float restores the AP, if they are the right ones.

Notebook 10; super-gradients' "selective quantization" skips layers by hand. Layers are ranked by the noise that each,
quantized alone, puts on the outputs; as many layers chosen at random are the baseline.
"""

from yolonas_lab.experiments import twins
from yolonas_lab.experiments.claim import Numbers
from yolonas_lab.models import YoloNAS
from yolonas_lab.quantization import QuantPolicy, quantizable_layers, quantized_only
from yolonas_lab.quantization.selective import random_order, sensitivity

QUESTION = "Does leaving the most sensitive layers in float restore the AP, and more so than leaving random ones?"
SETTINGS = {
    "twins": twins.SETTINGS,
    "bits": (8, 4),  # of the weights, per tensor; activations at 8 bits
    "weight_calibrator": "max",
    "calibrator": "percentile",
    "float_layers": (4, 8, 16, 32),  # at 4 bits: how many
    "random_choices": 3,  # their mean is the baseline
    "sensitivity_images": 64,
}
METRICS = ("ap", "drop")
COMPARISONS = tuple(
    (f"{block} {arm}", f"{block} {baseline}")
    for block in twins.TWINS
    for arm, baseline in (
        ("W8 all", "float"),
        ("W4 all", "float"),
        *((f"W4 but {count} sensitive", f"W4 but {count} random") for count in SETTINGS["float_layers"]),
        *((f"W4 but {count} sensitive", "float") for count in SETTINGS["float_layers"]),
    )
)


def run(seed: int, budget: float = 1.0) -> Numbers:
    """AP of both twins with some of their layers in float, and how much less that is than the float model's."""
    numbers: Numbers = {}
    for block in twins.TWINS:
        found = _measure(twins.trained(block, seed, budget), seed)
        numbers |= {f"{block} {arm}": {"ap": ap, "drop": found["float"] - ap} for arm, ap in found.items()}
    return numbers


def data_digest() -> str:
    """Fingerprint of the scenes."""
    return twins.scenes_digest()


def _measure(model: YoloNAS, seed: int) -> dict[str, float]:
    """AP by arm."""
    s = SETTINGS
    found = {}
    for bits in s["bits"]:
        policy = QuantPolicy(weight_bits=bits, per_channel=False, weight_calibrator=s["weight_calibrator"])
        qmodel = twins.quantized(model, policy, s["calibrator"])
        found[f"W{bits} all"] = twins.measured_ap(qmodel)
    layers = quantizable_layers(qmodel)
    found["float"] = _ap_with_float(qmodel, layers)
    train_set, _ = twins.scenes()
    ranked = sensitivity(qmodel, train_set, max_images=s["sensitivity_images"]).ranked()
    shuffled = [random_order(layers, s["random_choices"] * seed + choice) for choice in range(s["random_choices"])]
    for count in s["float_layers"]:
        found[f"W4 but {count} sensitive"] = _ap_with_float(qmodel, ranked[:count])
        aps = [_ap_with_float(qmodel, order[:count]) for order in shuffled]
        found[f"W4 but {count} random"] = sum(aps) / len(aps)
    return found


def _ap_with_float(qmodel: YoloNAS, float_layers: list[str] | tuple[str, ...]) -> float:
    kept = set(float_layers)
    with quantized_only(qmodel, [name for name in quantizable_layers(qmodel) if name not in kept]):
        return twins.measured_ap(qmodel)
