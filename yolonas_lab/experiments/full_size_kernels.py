"""A probe at full size: the fused kernels of S, M and L with QARepVGG and with RepVGG blocks, before any training.

Notebook 10. Weights are random and only the BatchNorm statistics are estimated, on scenes: that shows what the blocks'
structure does to the kernels (Chu et al., arXiv 2212.01593, section 3), and nothing about trained weights or AP.
"""

import torch
from torch import Tensor, nn

from yolonas_lab.data import CocoDataset, ScenesSummary, digest
from yolonas_lab.detect import prepare
from yolonas_lab.experiments.claim import Numbers
from yolonas_lab.experiments.scenes import draw
from yolonas_lab.experiments.weight_noise import kernel_numbers, sqnr_db
from yolonas_lab.models import CONFIGS, RepVGGBlock, YoloNAS, YoloNASConfig, reparameterize
from yolonas_lab.models.configs import with_block
from yolonas_lab.quantization import QuantPolicy, calibrate, quantize

QUESTION = (
    "Before training, are the fused kernels of S, M and L easier to quantize with QARepVGG than with RepVGG blocks?"
)
SIZES = {"S": "yolo_nas_s", "M": "yolo_nas_m", "L": "yolo_nas_l"}
SETTINGS = {
    "models": SIZES,
    "image_size": 128,  # px
    "images": 48,  # the last third for the outputs, the others for the statistics
    "batch_size": 8,
    "data_seed": 0,
    "difficulty": 0.5,
    "classes": 6,
    "policy": {"weight_bits": 8, "per_channel": False},  # and activations at 8 bits
}
METRICS = ("weight_sqnr_db", "output_sqnr_db", "largest_over_sigma", "channel_spread")
COMPARISONS = tuple((f"{size} QARepVGG", f"{size} RepVGG") for size in SIZES)


def run(seed: int, budget: float = 1.0) -> Numbers:
    """Numbers of each size and block, from random weights of this seed and budget times the images."""
    s = SETTINGS
    count = max(3, round(budget * s["images"]))
    images = _images(count)
    numbers = {}
    for size, name in SIZES.items():
        config = CONFIGS[name]
        for block, wanted in (("QARepVGG", config), ("RepVGG", with_block(config, RepVGGBlock, f"{name}_repvgg"))):
            numbers[f"{size} {block}"] = _measure(wanted, images, seed)
    return numbers


def data_digest() -> str:
    """Fingerprint of the scenes."""
    return digest(_scenes().folder)


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


def _measure(config: YoloNASConfig, images: Tensor, seed: int) -> dict[str, float]:
    s = SETTINGS
    torch.manual_seed(seed)
    model = YoloNAS(config, s["classes"])
    kept = max(1, len(images) // 3)
    batches = list(images[:-kept].split(s["batch_size"]))
    if len(batches) > 1 and len(batches[-1]) == 1:  # BatchNorm needs two values
        batches.pop()
    estimate_statistics(model, batches)
    policy = QuantPolicy(**s["policy"])
    qmodel = calibrate(quantize(model, policy), batches)
    with torch.inference_mode():
        exact, rounded = (m(images[-kept:]) for m in (reparameterize(model), qmodel))
    classes = sqnr_db(exact.class_logits, rounded.class_logits)
    boxes = sqnr_db(exact.box_logits, rounded.box_logits)
    return {**kernel_numbers(model, policy), "output_sqnr_db": (classes + boxes) / 2}


def _images(count: int) -> Tensor:
    """The first scenes as one tensor (b, 3, s, s)."""
    made = _scenes()
    scenes = CocoDataset(made.images_dir("train"), made.annotations("train"))
    return prepare([scenes[index].image for index in range(count)], SETTINGS["image_size"])[0]


def _scenes() -> ScenesSummary:
    s = SETTINGS
    return draw(s["images"], 0, s["image_size"], s["difficulty"], s["data_seed"])
