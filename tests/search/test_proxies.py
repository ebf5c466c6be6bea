# A network's modules are Tensor or Module to a type checker, whatever they are.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportIndexIssue=false

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from tests.search.spaces import IMAGE_SIZE, SHARED, batch, images, seeded
from yolonas_lab.models import YoloNAS
from yolonas_lab.models.blocks import ConvBNAct
from yolonas_lab.models.yolo_nas import RawPredictions
from yolonas_lab.search import largest, proxies, sample, smallest
from yolonas_lab.search.proxies import RankCorrelation, kendall, rank

BIG, SMALL = largest(SHARED), smallest(SHARED)
GUESSES = {
    "parameters": partial(proxies.parameters, num_classes=3),
    "macs": partial(proxies.macs, image_size=IMAGE_SIZE, num_classes=3),
    "naswot": partial(proxies.naswot, images=images(6), num_classes=3),
    "grad_norm": partial(proxies.grad_norm, batch=batch(), num_classes=3),
    "synflow": partial(proxies.synflow, image_size=IMAGE_SIZE, num_classes=3),
}


@pytest.mark.parametrize("name", GUESSES)
def test_a_finite_number_the_same_each_time_whatever_torch_drew_before(name):
    first = GUESSES[name](BIG)
    torch.rand(7)
    state = torch.get_rng_state()
    assert isinstance(first, float) and np.isfinite(first) and first == GUESSES[name](BIG)
    assert torch.equal(state, torch.get_rng_state())
    assert first != GUESSES[name](SMALL)


def test_size_by_counting():
    assert proxies.parameters(SMALL, 3) == sum(p.numel() for p in YoloNAS(SMALL, 3).parameters())
    config = sample(SHARED, seeded())
    for guess in ("parameters", "macs", "synflow"):  # more of everything, more of these
        assert GUESSES[guess](SMALL) <= GUESSES[guess](config) <= GUESSES[guess](BIG)


def test_naswot_of_two_images_by_hand(monkeypatch):
    """Of 4 ReLUs image 0 switches on 1, 2 and image 1 switches on 2, 3: both alike are 2 (on) and 4 (off)."""
    monkeypatch.setattr(proxies, "fresh", lambda config, num_classes, seed: nn.Sequential(nn.ReLU()))
    switched = torch.tensor([[1.0, 1, -1, -1], [-1, 1, 1, -1]])
    alike = np.array([[4.0, 2.0], [2.0, 4.0]])
    assert proxies.naswot(BIG, switched, 3) == pytest.approx(np.log(np.linalg.det(alike)))
    assert proxies.naswot(BIG, switched[[0, 0]], 3) == -np.inf


def test_gradient_norm_of_the_loss_by_autograd():
    network, examples = proxies.fresh(SMALL, 3).train(), batch()
    proxies.start_with_small_boxes(network, 0.5)
    loss = proxies.DetectionLoss(3)(network(examples.images), examples.targets).total
    gradients = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    expected = sum(gradient.norm().item() for gradient in gradients if gradient is not None)
    assert proxies.grad_norm(SMALL, examples, 3) == pytest.approx(expected, rel=1e-5)


def test_synflow_of_a_plain_chain_is_its_depth_times_what_flows(monkeypatch):
    """Without biases R is linear in each kernel, so that the sum over a layer of weight · gradient is R itself."""

    class Chain(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = ConvBNAct(3, 4), ConvBNAct(4, 5)

        def forward(self, x):
            y = self.b(self.a(x))
            return RawPredictions(y, 0 * y, y, y)

    chain = Chain()
    monkeypatch.setattr(proxies, "fresh", lambda config, num_classes, seed: chain)
    found = proxies.synflow(BIG, 8, 3)
    with torch.no_grad():
        flow = chain(torch.ones(1, 3, 8, 8, dtype=torch.float64)).class_logits.sum()
    assert found == pytest.approx(np.log(2 * flow.item()), rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_tau_counts_pairs(seed):
    one, other = seeded(seed).normal(size=(2, 12))
    signs = [np.sign((one[i] - one[j]) * (other[i] - other[j])) for i, j in itertools.combinations(range(12), 2)]
    found = kendall(one, other, resamples=50)
    assert found.tau == pytest.approx(np.mean(signs)) and found.networks == 12
    assert found.low <= found.tau <= found.high and found == kendall(one, other, resamples=50)


def test_the_same_order_is_certain_and_comes_first():
    values = list(range(16))
    found = rank({"bad": values[::-1], "good": values}, values)
    assert list(found) == ["good", "bad"] and found["good"] == pytest.approx(RankCorrelation(1.0, 1.0, 1.0, 16))
    assert str(found["bad"]) == "-1.00 [-1.00, -1.00] over 16 networks"


@pytest.mark.parametrize(
    ("guesses", "truth", "reason"),
    [
        ([1, 2, 3], [1, 2, 3], "at least 5"),
        ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6], "5 guesses for 6"),
        ([1, 2, 3, 4, np.nan], [1, 2, 3, 4, 5], "guesses are .*NaN"),
        ([1, 2, 3, 4, 5], [1, 1, 1, 1, 1], "truth are .*all the same"),
    ],
)
def test_what_orders_nothing_is_refused(guesses, truth, reason):
    with pytest.raises(ValueError, match=reason):
        kendall(guesses, truth)
