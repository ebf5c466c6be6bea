"""How good a network is with inherited weights: AP in about a second, without training it. Notebook 09.

The weights are the supernet's; BatchNorm's statistics belong to no part of it and are measured anew for each network,
as in Yu et al., "BigNAS", arXiv 2003.11142, and Yu and Huang, arXiv 1903.05134, section 3.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from yolonas_lab.data.loader import Loader
from yolonas_lab.evaluate import evaluate
from yolonas_lab.models.configs import YoloNASConfig
from yolonas_lab.models.reparameterize import reparameterize
from yolonas_lab.models.yolo_nas import YoloNAS
from yolonas_lab.search.supernet import subnetwork

LEAST_CONFIDENCE = 0.05  # fainter boxes hardly move AP (1e-4 in the lab), but counting them takes half of the time


def score(supernet: YoloNAS, config: YoloNASConfig, calibration: Sequence[Tensor], val_set: Any) -> float:
    """AP in [0, 1] on val_set of the network `config` with the supernet's weights.

    calibration: batches of images (b, 3, h, w) for BatchNorm, as `calibration_batches` makes them. Boxes of a
    confidence below 0.05 are left out. The same inputs give the same AP. Raises ValueError where config is no part of
    the supernet, and as `evaluate`.
    """
    network = reparameterize(inherited(supernet, config, calibration))
    return evaluate(network, val_set, conf=LEAST_CONFIDENCE, progress=False).ap


def inherited(supernet: YoloNAS, config: YoloNASConfig, calibration: Sequence[Tensor]) -> YoloNAS:
    """A ready detector with the supernet's weights and BatchNorm statistics of its own, in eval mode."""
    network = subnetwork(supernet, config)
    reestimate_batch_norm(network, calibration)
    return network


def reestimate_batch_norm(network: nn.Module, batches: Sequence[Tensor]) -> None:
    """Replace the running statistics of a network by the mean of those of these batches (b, 3, h, w), each weighted
    alike; the network is in eval mode then. Weights stay. Raises ValueError for no batches.
    """
    if not batches:
        raise ValueError("There are no batches to take BatchNorm's statistics from: give at least one.")
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # PyTorch's word for the plain mean over all batches
    network.train()
    with torch.no_grad():
        for images in batches:
            network(images)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    network.eval()


def calibration_batches(
    dataset: Any, image_size: int, batches: int = 4, batch_size: int = 32, seed: int = 0
) -> list[Tensor]:
    """Batches of images (b, 3, s, s) of a data set, chosen by the seed and not augmented. Raises ValueError for a data
    set that is too small, as `Loader` does.
    """
    loader = Loader(dataset, batch_size, image_size, seed=seed)
    if batches < 1 or batches > len(loader):
        raise ValueError(f"batches is {batches}: the data set has 1 to {len(loader)} of {batch_size} images.")
    return [batch.images for batch, _ in zip(loader.batches(0), range(batches))]
