"""Claim: a network that was searched for is better than S scaled by hand that takes the same time.

Notebook 09. Each seed searches anew, for float and for INT8 milliseconds of onnxruntime, takes what fits the measured
time of a scaled network, and trains every network from scratch with equally many steps. Deci's search counted INT8 in
(YOLONAS.md of super-gradients); hence a search for INT8 milliseconds too.
"""

import dataclasses

import torch

from yolonas_lab.data import CocoDataset, ScenesSummary, digest
from yolonas_lab.evaluate import evaluate
from yolonas_lab.experiments import rivals, searches
from yolonas_lab.experiments.claim import Numbers
from yolonas_lab.experiments.scenes import datasets, draw
from yolonas_lab.models import YoloNAS, reparameterize
from yolonas_lab.models.configs import YoloNASConfig
from yolonas_lab.quantization import QuantPolicy, calibrate, quantize
from yolonas_lab.search import proxies
from yolonas_lab.training import LAB, fit

QUESTION = "Does a searched network reach more AP than S scaled by hand that takes as many milliseconds?"
SETTINGS = {
    "rivals": rivals.SETTINGS,
    "steps": 1000,  # of each final training
    "image_size": 64,  # px
    "train_images": 4000,
    "val_images": 500,
    "calibration_images": 256,
    "difficulty": 0.5,
    "data_seed": 6,  # no search has seen these scenes
    "recipe": dataclasses.replace(LAB, steps=1).decisive(),  # image_size, steps and seed are set in each run
}
METRICS = ("ap", "ap_int8", "ms", "ms_int8", "mega_macs")
COMPARISONS = (
    ("searched small", "hand small"),
    ("searched large", "hand large"),
    ("searched large", "hand narrow"),
    ("searched INT8 small", "hand small"),
    ("searched INT8 large", "hand large"),
    ("searched INT8 small", "searched small"),
    ("searched INT8 large", "searched large"),
)


def run(seed: int, budget: float = 1.0) -> Numbers:
    """AP in float and in INT8 of each network after its training, and its milliseconds and multiply-accumulates.

    budget is the share of the steps, and of the networks that a search looks at.
    """
    train_set, val_set = datasets(_drawn())
    numbers = {}
    for arm, rival in rivals.rivals(seed, budget).items():
        macs = proxies.macs(rival.config, SETTINGS["image_size"], len(val_set.class_names))
        times = {"ms": rival.ms, "ms_int8": rival.ms_int8, "mega_macs": macs / 1e6}
        numbers[arm] = _trained_ap(rival.config, train_set, val_set, seed, budget) | times
    return numbers


def data_digest() -> str:
    """Fingerprint of the scenes of the final trainings; prepares the searches if that was not done yet."""
    searches.prepare()
    return digest(_drawn().folder)


def _trained_ap(
    config: YoloNASConfig, train_set: CocoDataset, val_set: CocoDataset, seed: int, budget: float
) -> dict[str, float]:
    """AP after a training from scratch, in float and after calibration in INT8."""
    s = SETTINGS
    steps = max(1, round(budget * s["steps"]))
    recipe = dataclasses.replace(LAB, steps=steps, seed=seed, image_size=s["image_size"], evaluate_every=None)
    torch.manual_seed(seed)
    network = YoloNAS(config, len(train_set.class_names))
    network.image_size = s["image_size"]
    fit(network, train_set, None, recipe)
    network.eval()
    calibration_set = train_set.subset(range(s["calibration_images"]))
    quantized = calibrate(quantize(network, QuantPolicy.cpu()), calibration_set)
    candidates = {"ap": reparameterize(network), "ap_int8": quantized}
    return {
        metric: evaluate(candidate, val_set, image_size=s["image_size"], batch_size=50, progress=False).ap
        for metric, candidate in candidates.items()
    }


def _drawn() -> ScenesSummary:
    s = SETTINGS
    return draw(s["train_images"], s["val_images"], s["image_size"], s["difficulty"], s["data_seed"])
