"""Guesses at how good a network will be, from its size, from its fresh weights, or from a little training. Notebook 09.

Each is config -> float, the larger the better; bind the rest with functools.partial, as that of `supernet.score`.
What such guesses are worth is for `rank` to measure: White et al., "A Deeper Look at Zero-Cost Proxies", ICLR 2022.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from yolonas_lab.data.coco import Batch
from yolonas_lab.evaluate import evaluate
from yolonas_lab.latency import network_layers
from yolonas_lab.losses import DetectionLoss
from yolonas_lab.models.configs import YoloNASConfig
from yolonas_lab.models.yolo_nas import YoloNAS
from yolonas_lab.training.config import TrainConfig
from yolonas_lab.training.fit import fit
from yolonas_lab.training.optim import start_with_small_boxes


def parameters(config: YoloNASConfig, num_classes: int) -> float:
    """The number of parameters, before fusion."""
    return float(sum(p.numel() for p in fresh(config, num_classes).parameters()))


def macs(config: YoloNASConfig, image_size: int, num_classes: int) -> float:
    """Multiply-accumulates of the fused network for one image of image_size px."""
    return float(sum(layer.macs for layer in network_layers(config, image_size, num_classes).values()))


def naswot(config: YoloNASConfig, images: Tensor, num_classes: int, seed: int = 0) -> float:
    """How differently the ReLUs of a fresh network see the images (b, 3, h, w): log-determinant of how many of them two
    images switch alike, -inf where it is all of them. Mellor et al., arXiv 2006.04647, section 3.
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
    """How long the gradient of the loss is in a fresh network: the norms of all its tensors, summed. The box heads
    start as in a training of the lab recipe. Abdelfattah et al., arXiv 2101.08134, section 3.1.
    """
    network = fresh(config, num_classes, seed).train()
    start_with_small_boxes(network, slope=0.5)
    DetectionLoss(num_classes)(network(batch.images), batch.targets).total.backward()
    return float(sum(p.grad.norm() for p in network.parameters() if p.grad is not None))


def synflow(config: YoloNASConfig, image_size: int, num_classes: int, seed: int = 0) -> float:
    """How much flows through a fresh network whose weights are all made positive: log of the sum of weight · gradient.

    BatchNorm passes everything on as it is, biases carry no flow. Tanaka et al., arXiv 2006.05467, section 4.
    """
    network = fresh(config, num_classes, seed).eval().double()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                parameter.abs_()
            else:
                parameter.fill_(0 if name.endswith("bias") else 1)
    raw = network(torch.ones(1, 3, image_size, image_size, dtype=torch.float64))
    (raw.class_logits.sum() + raw.box_logits.sum()).backward()
    kernels = [p for p in network.parameters() if p.ndim > 1 and p.grad is not None]
    return float(sum((p.detach() * p.grad).sum() for p in kernels).log())  # type: ignore[operator, union-attr]


def trained(config: YoloNASConfig, train_set: Any, val_set: Any, recipe: TrainConfig, seed: int = 0) -> float:
    """AP in [0, 1] of a fresh network after a training, which may be short; the seed is that of its weights. With
    recipe.out_dir, one that was stopped goes on, and one that was finished is only loaded.
    """
    network = fresh(config, len(train_set.class_names), seed)
    fit(network, train_set, None, recipe)
    return evaluate(network, val_set, image_size=recipe.image_size, progress=False).ap


def fresh(config: YoloNASConfig, num_classes: int, seed: int = 0) -> YoloNAS:
    """A network with initial weights that follow from the seed alone."""
    with torch.random.fork_rng(devices=[]):  # others' random numbers go on as if nothing had happened
        torch.manual_seed(seed)
        return YoloNAS(config, num_classes)


FEWEST_NETWORKS = 5  # below that an interval says nothing


class RankCorrelation(NamedTuple):
    """Kendall's tau (tau-b, which allows for ties) over some networks, with its 95 % interval."""

    tau: float
    low: float
    high: float
    networks: int

    def __str__(self) -> str:
        return f"{self.tau:+.2f} [{self.low:+.2f}, {self.high:+.2f}] over {self.networks} networks"


def kendall(guesses: Sequence[float], truth: Sequence[float], resamples: int = 2000) -> RankCorrelation:
    """Does a guess (n,) order networks as training does (n,)? Kendall's tau, and the percentile interval of resampled
    networks, the same each time; few networks make it too narrow. Raises ValueError for fewer than 5, for lengths that
    differ, NaN, and where all values are the same.
    """
    from scipy.stats import bootstrap

    one, other = np.asarray(guesses, dtype=float), np.asarray(truth, dtype=float)  # (n,) each
    if one.shape != other.shape or one.ndim != 1 or len(one) < FEWEST_NETWORKS:
        raise ValueError(
            f"There are {len(one)} guesses for {len(other)} networks: give one for each of at least {FEWEST_NETWORKS}."
        )
    for name, values in (("guesses", one), ("truth", other)):
        if np.isnan(values).any() or np.all(values == values[0]):
            raise ValueError(f"The {name} are {values.tolist()}: NaN or all the same, they order nothing.")
    found = bootstrap(
        (one, other), kendall_tau, n_resamples=resamples, paired=True, vectorized=False, method="percentile",
        rng=np.random.default_rng(0),
    )  # fmt: skip
    low, high = found.confidence_interval
    return RankCorrelation(kendall_tau(one, other), float(low), float(high), len(one))


def rank(guesses: Mapping[str, Sequence[float]], truth: Sequence[float]) -> dict[str, RankCorrelation]:
    """`kendall` for each guess by its name, the largest tau first."""
    taus = {name: kendall(values, truth) for name, values in guesses.items()}
    return dict(sorted(taus.items(), key=lambda item: -item[1].tau))


def kendall_tau(one: Sequence[float] | np.ndarray, other: Sequence[float] | np.ndarray) -> float:
    """Kendall's tau-b: 1 where every pair is in the same order, 0 where as many are as not, or all values are alike."""
    from scipy.stats import kendalltau

    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(kendalltau(one, other)[0])  # type: ignore[arg-type]
