"""Guesses at how good a network will be, from its size, from its fresh weights, or from a little training. Notebook 09.

Each is config -> float, the larger the better; bind the rest with functools.partial, as that of `scoring.score`. What
such guesses are worth is for `ranking` to measure: White et al., "A Deeper Look at Zero-Cost Proxies", ICLR 2022.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from yolonas_lab.data.targets import Batch
from yolonas_lab.evaluate import evaluate
from yolonas_lab.losses import DetectionLoss
from yolonas_lab.models.configs import YoloNASConfig
from yolonas_lab.models.yolo_nas import YoloNAS
from yolonas_lab.search.layers import count_macs, network_layers
from yolonas_lab.training.config import TrainConfig
from yolonas_lab.training.fit import fit
from yolonas_lab.training.optimizer import start_with_small_boxes


def parameters(config: YoloNASConfig, num_classes: int) -> float:
    """The number of parameters, before fusion."""
    return float(sum(p.numel() for p in fresh(config, num_classes).parameters()))


def macs(config: YoloNASConfig, image_size: int, num_classes: int) -> float:
    """Multiply-accumulates of the fused network for one image of image_size px."""
    return float(count_macs(network_layers(config, image_size, num_classes).values()))


def naswot(config: YoloNASConfig, images: Tensor, num_classes: int, seed: int = 0) -> float:
    """How differently the ReLUs of a fresh network see the images (b, 3, h, w): log-determinant of how many of them two
    images switch alike.

    Mellor et al., "Neural Architecture Search without Training", arXiv 2006.04647, section 3. -inf where two images
    switch all alike.
    """
    network = fresh(config, num_classes, seed).train()
    alike = torch.zeros(len(images), len(images), dtype=torch.float64)  # (b, b)

    def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
        on = (output > 0).flatten(1).float()  # (b, units)
        alike.add_((on @ on.T + (1 - on) @ (1 - on).T).double())

    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(images)
    return float(torch.linalg.slogdet(alike).logabsdet)


def grad_norm(config: YoloNASConfig, batch: Batch, num_classes: int, seed: int = 0) -> float:
    """How long the gradient of the loss is in a fresh network: the norms of all its tensors, summed.

    Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", arXiv 2101.08134, section 3.1. The box heads start as
    in a training of the lab recipe.
    """
    network = fresh(config, num_classes, seed).train()
    start_with_small_boxes(network, slope=0.5)
    DetectionLoss(num_classes)(network(batch.images), batch.targets).total.backward()
    return float(sum(p.grad.norm() for p in network.parameters() if p.grad is not None))


def synflow(config: YoloNASConfig, image_size: int, num_classes: int, seed: int = 0) -> float:
    """How much flows through a fresh network whose weights are all made positive: log of the sum of weight · gradient.

    Tanaka et al., "Pruning neural networks without any data by iteratively conserving synaptic flow", arXiv 2006.05467,
    section 4; no data is needed. BatchNorm passes everything on as it is; biases carry no flow and are left out.
    """
    network = fresh(config, num_classes, seed).eval().double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(parameter.abs() if parameter.ndim > 1 else torch.ones_like(parameter))
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    raw = network(torch.ones(1, 3, image_size, image_size, dtype=torch.float64))
    (raw.class_logits.sum() + raw.box_logits.sum()).backward()
    kernels = [p for p in network.parameters() if p.ndim > 1 and p.grad is not None]
    return float(sum((p.detach() * p.grad).sum() for p in kernels).log())  # type: ignore[operator, union-attr]


def short_training(
    config: YoloNASConfig, train_set: Any, val_set: Any, recipe: TrainConfig, steps: int, seed: int = 0
) -> float:
    """AP in [0, 1] after a whole training of so few steps, its learning rate falling all the way."""
    return trained(config, train_set, val_set, replace(recipe, steps=steps, epochs=None, evaluate_every=None), seed)


def trained(config: YoloNASConfig, train_set: Any, val_set: Any, recipe: TrainConfig, seed: int = 0) -> float:
    """AP in [0, 1] of a fresh network after a training; the seed is that of its weights, the recipe's of the rest.

    With recipe.out_dir, one that was stopped goes on, and one that was finished is only loaded.
    """
    network = fresh(config, len(train_set.class_names), seed)
    fit(network, train_set, None, recipe)
    return evaluate(network, val_set, image_size=recipe.image_size, progress=False).ap


def fresh(config: YoloNASConfig, num_classes: int, seed: int = 0) -> YoloNAS:
    """A network with initial weights that follow from the seed alone."""
    with torch.random.fork_rng(devices=[]):  # others' random numbers go on as if nothing had happened
        torch.manual_seed(seed)
        return YoloNAS(config, num_classes)
