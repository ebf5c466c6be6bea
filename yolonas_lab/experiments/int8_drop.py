"""Claim: INT8 costs YOLO-NAS little AP.

Notebook 10. Deci announced losses of 0.51, 0.65 and 0.45 points of mAP for S, M and L and 1 to 2 points for other
detectors (`teaching.published`). Here: the lab models that the package ships, and their twins with RepVGG blocks, on
freshly drawn scenes; each seed draws others.
"""

from yolonas_lab.data import ScenesSummary, digest
from yolonas_lab.evaluate import evaluate
from yolonas_lab.experiments.claim import Numbers
from yolonas_lab.experiments.scenes import datasets, draw
from yolonas_lab.models import get, reparameterize
from yolonas_lab.quantization import QuantPolicy, calibrate, quantize

QUESTION = "How much AP do the shipped lab models lose to INT8, on scenes that nobody has seen?"
MODELS = {
    "pico": "yolo_nas_pico",
    "nano": "yolo_nas_nano",
    "pico RepVGG": "yolo_nas_pico_repvgg",
    "nano RepVGG": "yolo_nas_nano_repvgg",
}
SETTINGS = {
    "models": MODELS,
    "image_size": 64,  # px
    "calibration_images": 256,
    "val_images": 500,
    "difficulty": 0.5,
    "first_data_seed": 1000,  # far from the seed of the scenes that the models were trained on
    "calibrator": "percentile",
}
METRICS = ("ap", "ap50", "ap75")
COMPARISONS = tuple((f"{name} INT8", f"{name} float") for name in MODELS)


def run(seed: int, budget: float = 1.0) -> Numbers:
    """AP of each model in float and in INT8, on budget times the validation images of this seed."""
    s = SETTINGS
    calibration_set, val_set = datasets(_scenes(seed, max(1, round(budget * s["val_images"]))))
    numbers: Numbers = {}
    for label, name in MODELS.items():
        model = get(name, pretrained_weights="scenes")
        quantized = calibrate(quantize(model, QuantPolicy()), calibration_set, s["calibrator"])
        for kind, candidate in (("float", reparameterize(model)), ("INT8", quantized)):
            found = evaluate(candidate, val_set, image_size=s["image_size"], batch_size=50, progress=False)
            numbers[f"{label} {kind}"] = {metric: getattr(found, metric) for metric in METRICS}
    return numbers


def data_digest() -> str:
    """Fingerprint of the first seed's scenes, which stand for the way all of them are drawn."""
    return digest(_scenes(0, SETTINGS["val_images"]).folder)


def _scenes(seed: int, val_images: int) -> ScenesSummary:
    s = SETTINGS
    return draw(s["calibration_images"], val_images, s["image_size"], s["difficulty"], s["first_data_seed"] + seed)
