"""Claim: quantization-aware training gets back the AP that post-training quantization loses.

Notebook 11. Jacob et al., arXiv 1712.05877, section 3; at 8 bits and fewer, weights per tensor, where it hurts most.
More training alone may raise AP, so a float model is trained as long, with the same learning rates, beside it.
"""

import dataclasses

from yolonas_lab.experiments import twins
from yolonas_lab.experiments.claim import Numbers
from yolonas_lab.models import YoloNAS, reparameterize
from yolonas_lab.quantization import QuantPolicy
from yolonas_lab.quantization.qat import fine_tune, qat_recipe
from yolonas_lab.training import LAB, TrainConfig, fit

QUESTION = "How much of the AP lost to quantization does quantization-aware training get back?"
SETTINGS = {
    "twins": twins.SETTINGS,
    "bits": (8, 6, 4),  # of the weights, per tensor; activations at 8 bits
    "learned_scale_bits": (4,),
    "weight_calibrator": "mse",
    "calibrator": "percentile",
    "lr_ratio": 0.1,
    "recipe": dataclasses.replace(qat_recipe(LAB), steps=1).decisive(),  # a tenth of the training's steps
}
METRICS = ("ap", "drop")


def arms() -> tuple[str, ...]:
    """What is done to each twin."""
    learned = tuple(f"W{bits} QAT, learned scales" for bits in SETTINGS["learned_scale_bits"])
    pairs = tuple(f"W{bits} {kind}" for bits in SETTINGS["bits"] for kind in ("PTQ", "QAT"))
    return ("float", "float, trained on", *pairs, *learned)


COMPARISONS = tuple(
    (f"{block} {arm}", f"{block} {baseline}")
    for block in twins.TWINS
    for arm, baseline in (
        *((f"W{bits} QAT", f"W{bits} PTQ") for bits in SETTINGS["bits"]),
        *((f"W{bits} QAT", "float, trained on") for bits in SETTINGS["bits"]),
        *((f"W{bits} QAT, learned scales", f"W{bits} QAT") for bits in SETTINGS["learned_scale_bits"]),
        ("float, trained on", "float"),
    )
)


def run(seed: int, budget: float = 1.0) -> Numbers:
    """AP of both twins after each treatment, and how much less that is than the float model's."""
    numbers: Numbers = {}
    for block in twins.TWINS:
        found = _measure(twins.trained(block, seed, budget), twins.recipe(seed, budget))
        numbers |= {f"{block} {arm}": {"ap": ap, "drop": found["float"] - ap} for arm, ap in found.items()}
    return numbers


def data_digest() -> str:
    """Fingerprint of the scenes."""
    return twins.scenes_digest()


def _measure(model: YoloNAS, recipe: TrainConfig) -> dict[str, float]:
    """AP by arm."""
    s = SETTINGS
    train_set, _ = twins.scenes()
    config = qat_recipe(recipe, s["lr_ratio"])
    fused = reparameterize(model)
    found = {"float": twins.measured_ap(fused)}
    fit(fused, train_set, None, config)
    found["float, trained on"] = twins.measured_ap(fused)
    for bits in s["bits"]:
        policy = QuantPolicy(weight_bits=bits, per_channel=False, weight_calibrator=s["weight_calibrator"])
        for scales in ("fixed", "learned") if bits in s["learned_scale_bits"] else ("fixed",):
            qmodel = twins.quantized(model, policy, s["calibrator"])
            if scales == "fixed":
                found[f"W{bits} PTQ"] = twins.measured_ap(qmodel)
            fine_tune(qmodel, train_set, None, config, scales=scales)
            found[f"W{bits} QAT" if scales == "fixed" else f"W{bits} QAT, learned scales"] = twins.measured_ap(qmodel)
    return found
