"""Claims about quantization: what INT8 and fewer bits cost, by block, and what gets the lost AP back.

Notebooks 10 and 11. Chu et al., "Make RepVGG Greater Again", arXiv 2212.01593, sections 3 and 4: per tensor, RepVGG
blocks lose much and QARepVGG little. "twins" are the two picos that are compared, trained alike, a pair for each seed.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from yolonas_lab.detect import prepare
from yolonas_lab.experiments import scenes
from yolonas_lab.experiments.harness import Claim, Numbers
from yolonas_lab.models import CONFIGS, QARepVGGBlock, RepVGGBlock, YoloNAS, YoloNASConfig, get, reparameterize
from yolonas_lab.models.configs import with_block
from yolonas_lab.quantization import QuantPolicy, calibrate, quantizable_layers, quantize, quantized_only
from yolonas_lab.quantization.qat import fine_tune, qat_recipe
from yolonas_lab.quantization.selective import random_order, sensitivity
from yolonas_lab.training import LAB, TrainConfig, fit

BLOCKS = {"QARepVGG": "yolo_nas_pico", "RepVGG": "yolo_nas_pico_repvgg"}
TWINS = {  # what decides the trained twins and their calibration, in the settings of three claims
    "models": BLOCKS,
    "image_size": 64,  # px
    "train_images": 2000,
    "val_images": 500,
    "data_seed": 0,
    "difficulty": 0.5,
    "steps": 1600,
    "recipe": scenes.RECIPE,
    "calibration_images": 256,
}


def trained(block: str, seed: int, budget: float = 1.0) -> YoloNAS:
    """The pico with "QARepVGG" or "RepVGG" blocks, trained with this seed and budget times the steps; in eval mode."""
    train_set = scenes.dataset(TWINS, "train")
    how = _recipe(seed, budget)
    return scenes.trained_once(CONFIGS[BLOCKS[block]], train_set, how, "twins", {"settings": TWINS}, f"{block}-")[
        0
    ].eval()


def quantized(model: YoloNAS, policy: QuantPolicy, method: str = "percentile") -> YoloNAS:
    """The model quantized by a policy, with activation ranges from the first training images."""
    train_set = scenes.dataset(TWINS, "train")
    images = TWINS["calibration_images"]
    return calibrate(quantize(model, policy), train_set, method=method, max_images=images, batch_size=32)


def measured_ap(model: Any) -> float:
    """COCO AP on the validation images of the twins."""
    return scenes.measured(model, scenes.dataset(TWINS, "val"))["ap"]


def _recipe(seed: int, budget: float) -> TrainConfig:
    return scenes.recipe(seed, budget * TWINS["steps"])


def _of_both_twins(seed: int, budget: float, measure: Callable[[YoloNAS], dict[str, float]]) -> Numbers:
    """The AP that `measure` finds by arm, and how much less that is than the float model's, for both twins."""
    numbers: Numbers = {}
    for block in BLOCKS:
        found = measure(trained(block, seed, budget))
        numbers |= {f"{block} {arm}": {"ap": ap, "drop": found["float"] - ap} for arm, ap in found.items()}
    return numbers


def _of_both_blocks(pairs: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    pairs = list(pairs)
    return tuple((f"{block} {arm}", f"{block} {baseline}") for block in BLOCKS for arm, baseline in pairs)


def sqnr_db(signal: Tensor, noisy: Tensor) -> float:
    """Power of the signal over power of the difference, in dB."""
    return 10 * math.log10(signal.double().square().sum() / (signal - noisy).double().square().sum())


def kernel_numbers(model: YoloNAS, policy: QuantPolicy) -> dict[str, float]:
    """Means over the fused kernels of an unfused model's blocks, quantized by a policy.

    weight_sqnr_db: signal-to-quantization-noise ratio. largest_over_sigma: largest magnitude over standard deviation.
    channel_spread: largest magnitude over that of the median output channel; a grid per tensor must span it.
    """
    qmodel = quantize(model, policy)
    names = [name for name, module in model.named_modules() if isinstance(module, (QARepVGGBlock, RepVGGBlock))]
    rows = [_kernel_numbers(qmodel.get_submodule(f"{name}.conv")) for name in names]
    return {metric: sum(row[metric] for row in rows) / len(rows) for metric in rows[0]}


def _kernel_numbers(conv: nn.Module) -> dict[str, float]:
    weight: Tensor = conv.weight.detach()  # type: ignore[assignment]
    rounded: Tensor = conv.weight_quantizer(weight)  # type: ignore[operator]
    largest = weight.abs().amax(dim=(1, 2, 3))  # (c_out,)
    return {
        "weight_sqnr_db": sqnr_db(weight, rounded),
        "largest_over_sigma": (weight.abs().max() / weight.std()).item(),
        "channel_spread": (largest.max() / largest.median()).item(),
    }


INT8_DROP = {
    "models": {
        "pico": "yolo_nas_pico",
        "nano": "yolo_nas_nano",
        "pico RepVGG": "yolo_nas_pico_repvgg",
        "nano RepVGG": "yolo_nas_nano_repvgg",
    },
    "image_size": 64,  # px
    "calibration_images": 256,
    "val_images": 500,
    "difficulty": 0.5,
    "first_data_seed": 1000,  # far from the seed of the scenes that the models were trained on
    "calibrator": "percentile",
}
INT8_METRICS = ("ap", "ap50", "ap75")


def run_int8_drop(seed: int, budget: float = 1.0) -> Numbers:
    """AP of each shipped model in float and in INT8, on budget times the validation images that this seed draws."""
    s = INT8_DROP
    calibration_set, val_set = scenes.datasets(_fresh(seed, max(1, round(budget * s["val_images"]))))
    numbers: Numbers = {}
    for label, name in s["models"].items():
        model = get(name, pretrained_weights="scenes")
        int8 = calibrate(quantize(model, QuantPolicy()), calibration_set, s["calibrator"])
        numbers[f"{label} float"] = scenes.measured(reparameterize(model), val_set, INT8_METRICS)
        numbers[f"{label} INT8"] = scenes.measured(int8, val_set, INT8_METRICS)
    return numbers


def int8_drop_digest() -> str:
    """Fingerprint of the first seed's scenes, which stand for the way all of them are drawn."""
    return scenes.scenes_digest(_fresh(0, INT8_DROP["val_images"]))


def _fresh(seed: int, val_images: int) -> dict[str, Any]:
    s = INT8_DROP
    data_seed = s["first_data_seed"] + seed
    return s | {"train_images": s["calibration_images"], "val_images": val_images, "data_seed": data_seed}


BITS: dict[str, Any] = {
    "twins": TWINS,
    "weight_bits": (8, 6, 5, 4, 3),  # activations at 8 bits, by percentile
    "mse_weight_bits": (4, 3),  # the same with weight ranges of the least squared error
    "activation_bits": (8, 4),  # weights at 8 bits per channel, by each of
    "activation_calibrators": ("max", "percentile", "entropy", "mse"),
    "all_bits": (6, 4),  # weights and activations alike, weights per tensor
}
BITS_METRICS = ("drop", "ap", "weight_sqnr_db", "largest_over_sigma")


def _bits_conditions() -> dict[str, tuple[QuantPolicy, str]]:
    """Policy and activation calibrator by name: where the bits of the weights change, then those of activations."""
    found = {}
    for name, per_channel in (("per tensor", False), ("per channel", True)):
        for bits in BITS["weight_bits"]:
            found[f"W{bits} {name}"] = (QuantPolicy(weight_bits=bits, per_channel=per_channel), "percentile")
        for bits in BITS["mse_weight_bits"]:
            policy = QuantPolicy(weight_bits=bits, per_channel=per_channel, weight_calibrator="mse")
            found[f"W{bits} {name}, mse"] = (policy, "percentile")
    for bits in BITS["activation_bits"]:
        for method in BITS["activation_calibrators"]:
            found[f"A{bits} {method}"] = (QuantPolicy(activation_bits=bits), method)
    for bits in BITS["all_bits"]:
        policy = QuantPolicy(weight_bits=bits, activation_bits=bits, per_channel=False)
        found[f"W{bits}A{bits} per tensor"] = (policy, "mse")
    return found


BITS_CONDITIONS = _bits_conditions()


def run_quantization_bits(seed: int, budget: float = 1.0) -> Numbers:
    """AP, its drop and the weights' noise of both twins in each condition ("QARepVGG W4 per tensor", …)."""
    numbers: Numbers = {}
    for block in BLOCKS:
        model = trained(block, seed, budget)
        float_ap = measured_ap(reparameterize(model))
        for name, (policy, method) in BITS_CONDITIONS.items():
            ap = measured_ap(quantized(model, policy, method))
            row = {"drop": float_ap - ap, "ap": ap, **kernel_numbers(model, policy)}
            numbers[f"{block} {name}"] = {metric: row[metric] for metric in BITS_METRICS}
    return numbers


SELECTIVE = {
    "twins": TWINS,
    "bits": (8, 4),  # of the weights, per tensor; activations at 8 bits
    "weight_calibrator": "max",
    "calibrator": "percentile",
    "float_layers": (4, 8, 16, 32),  # at 4 bits: how many
    "random_choices": 3,  # their mean is the baseline
    "sensitivity_images": 64,
}


def run_selective_quantization(seed: int, budget: float = 1.0) -> Numbers:
    """AP of both twins with some layers in float: those that, quantized alone, put most noise on the outputs, or as
    many chosen at random.
    """

    def measure(model: YoloNAS) -> dict[str, float]:
        s, found = SELECTIVE, {}
        for bits in s["bits"]:
            policy = QuantPolicy(weight_bits=bits, per_channel=False, weight_calibrator=s["weight_calibrator"])
            qmodel = quantized(model, policy, s["calibrator"])
            found[f"W{bits} all"] = measured_ap(qmodel)
        layers = quantizable_layers(qmodel)
        found["float"] = _ap_with_float(qmodel, layers)
        train_set = scenes.dataset(TWINS, "train")
        ranked = sensitivity(qmodel, train_set, max_images=s["sensitivity_images"]).ranked()
        shuffled = [random_order(layers, s["random_choices"] * seed + choice) for choice in range(s["random_choices"])]
        for count in s["float_layers"]:
            found[f"W4 but {count} sensitive"] = _ap_with_float(qmodel, ranked[:count])
            aps = [_ap_with_float(qmodel, order[:count]) for order in shuffled]
            found[f"W4 but {count} random"] = sum(aps) / len(aps)
        return found

    return _of_both_twins(seed, budget, measure)


def _ap_with_float(qmodel: YoloNAS, float_layers: list[str] | tuple[str, ...]) -> float:
    kept = set(float_layers)
    with quantized_only(qmodel, [name for name in quantizable_layers(qmodel) if name not in kept]):
        return measured_ap(qmodel)


QAT = {
    "twins": TWINS,
    "bits": (8, 6, 4),  # of the weights, per tensor; activations at 8 bits
    "learned_scale_bits": (4,),
    "weight_calibrator": "mse",
    "calibrator": "percentile",
    "lr_ratio": 0.1,
    "recipe": dataclasses.replace(qat_recipe(LAB), steps=1).decisive(),  # a tenth of the training's steps
}


def run_qat_recovery(seed: int, budget: float = 1.0) -> Numbers:
    """AP of both twins after quantization and after quantization-aware training (Jacob et al., arXiv 1712.05877).

    More training alone may raise AP, so a float model is trained as long, with the same learning rates, beside it.
    """

    def measure(model: YoloNAS) -> dict[str, float]:
        s, fused = QAT, reparameterize(model)
        train_set = scenes.dataset(TWINS, "train")
        config = qat_recipe(_recipe(seed, budget), s["lr_ratio"])
        found = {"float": measured_ap(fused)}
        fit(fused, train_set, None, config)
        found["float, trained on"] = measured_ap(fused)
        for bits in s["bits"]:
            policy = QuantPolicy(weight_bits=bits, per_channel=False, weight_calibrator=s["weight_calibrator"])
            for scales in ("fixed", "learned") if bits in s["learned_scale_bits"] else ("fixed",):
                qmodel = quantized(model, policy, s["calibrator"])
                if scales == "fixed":
                    found[f"W{bits} PTQ"] = measured_ap(qmodel)
                fine_tune(qmodel, train_set, None, config, scales=scales)
                found[f"W{bits} QAT" if scales == "fixed" else f"W{bits} QAT, learned scales"] = measured_ap(qmodel)
        return found

    return _of_both_twins(seed, budget, measure)


FULL_SIZE = {
    "models": {"S": "yolo_nas_s", "M": "yolo_nas_m", "L": "yolo_nas_l"},
    "image_size": 128,  # px
    "images": 48,  # the last third for the outputs, the others for the statistics
    "batch_size": 8,
    "data_seed": 0,
    "difficulty": 0.5,
    "classes": 6,
    "policy": {"weight_bits": 8, "per_channel": False},  # and activations at 8 bits
}


def run_full_size_kernels(seed: int, budget: float = 1.0) -> Numbers:
    """Numbers of each size and block, from random weights of this seed and budget times the images.

    Only the BatchNorm statistics are estimated: that shows what the blocks' structure does to the kernels, and nothing
    about trained weights or AP.
    """
    s = FULL_SIZE
    train_set, count = scenes.dataset(_full_size_scenes(), "train"), max(3, round(budget * s["images"]))
    images = prepare([train_set[index].image for index in range(count)], s["image_size"])[0]  # (b, 3, s, s)
    numbers = {}
    for size, name in s["models"].items():
        config = CONFIGS[name]
        for block, wanted in (("QARepVGG", config), ("RepVGG", with_block(config, RepVGGBlock, f"{name}_repvgg"))):
            numbers[f"{size} {block}"] = _structure_numbers(wanted, images, seed)
    return numbers


def _full_size_scenes() -> dict[str, Any]:
    return FULL_SIZE | {"train_images": FULL_SIZE["images"], "val_images": 0}


def _structure_numbers(config: YoloNASConfig, images: Tensor, seed: int) -> dict[str, float]:
    model = scenes.network(config, FULL_SIZE["classes"], seed)
    kept = max(1, len(images) // 3)
    batches = list(images[:-kept].split(FULL_SIZE["batch_size"]))
    if len(batches) > 1 and len(batches[-1]) == 1:  # BatchNorm needs two values
        batches.pop()
    estimate_statistics(model, batches)
    policy = QuantPolicy(**FULL_SIZE["policy"])
    qmodel = calibrate(quantize(model, policy), batches)
    with torch.inference_mode():
        exact, rounded = (m(images[-kept:]) for m in (reparameterize(model), qmodel))
    classes = sqnr_db(exact.class_logits, rounded.class_logits)
    boxes = sqnr_db(exact.box_logits, rounded.box_logits)
    return {**kernel_numbers(model, policy), "output_sqnr_db": (classes + boxes) / 2}


def estimate_statistics(model: nn.Module, batches: list[Tensor]) -> None:
    """Set every BatchNorm's statistics to their means over the batches (b, 3, h, w); the model ends in eval mode."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    model.train()
    with torch.no_grad():
        for batch in batches:
            model(batch)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    model.eval()


CLAIMS = (
    Claim(
        name="int8_drop",
        question="How much AP do the shipped lab models lose to INT8, on scenes that nobody has seen?",
        settings=INT8_DROP,
        metrics=INT8_METRICS,
        comparisons=tuple((f"{name} INT8", f"{name} float") for name in INT8_DROP["models"]),
        run=run_int8_drop,
        data_digest=int8_drop_digest,
    ),
    Claim(
        name="quantization_bits",
        question=(
            "Do QARepVGG blocks lose less AP to quantization than RepVGG blocks, and at how many bits does it show?"
        ),
        settings=BITS,
        metrics=BITS_METRICS,
        comparisons=tuple((f"QARepVGG {condition}", f"RepVGG {condition}") for condition in BITS_CONDITIONS),
        run=run_quantization_bits,
        data_digest=lambda: scenes.scenes_digest(TWINS),
    ),
    Claim(
        name="full_size_kernels",
        question=(
            "Before training, are the fused kernels of S, M and L easier to quantize with QARepVGG than with RepVGG "
            "blocks?"
        ),
        settings=FULL_SIZE,
        metrics=("weight_sqnr_db", "output_sqnr_db", "largest_over_sigma", "channel_spread"),
        comparisons=tuple((f"{size} QARepVGG", f"{size} RepVGG") for size in FULL_SIZE["models"]),
        run=run_full_size_kernels,
        data_digest=lambda: scenes.scenes_digest(_full_size_scenes()),
    ),
    Claim(
        name="selective_quantization",
        question=(
            "Does leaving the most sensitive layers in float restore the AP, and more so than leaving random ones?"
        ),
        settings=SELECTIVE,
        metrics=("ap", "drop"),
        comparisons=_of_both_blocks(
            [
                ("W8 all", "float"),
                ("W4 all", "float"),
                *((f"W4 but {count} sensitive", f"W4 but {count} random") for count in SELECTIVE["float_layers"]),
                *((f"W4 but {count} sensitive", "float") for count in SELECTIVE["float_layers"]),
            ]
        ),
        run=run_selective_quantization,
        data_digest=lambda: scenes.scenes_digest(TWINS),
    ),
    Claim(
        name="qat_recovery",
        question="How much of the AP lost to quantization does quantization-aware training get back?",
        settings=QAT,
        metrics=("ap", "drop"),
        comparisons=_of_both_blocks(
            [
                *((f"W{bits} QAT", f"W{bits} PTQ") for bits in QAT["bits"]),
                *((f"W{bits} QAT", "float, trained on") for bits in QAT["bits"]),
                *((f"W{bits} QAT, learned scales", f"W{bits} QAT") for bits in QAT["learned_scale_bits"]),
                ("float, trained on", "float"),
            ]
        ),
        run=run_qat_recovery,
        data_digest=lambda: scenes.scenes_digest(TWINS),
    ),
)
