"""Optimizer, learning rate and moving average: by hand, and against torch's own."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from yolonas_lab.training import WeightAverage, ema_decay, make_optimizer, warmup_cosine


def small_net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def test_only_kernels_are_decayed():
    net = small_net()
    decayed, others = make_optimizer(net, 0.1, 0.01).param_groups
    assert decayed["weight_decay"] == 0.01 and [p.shape for p in decayed["params"]] == [(4, 3, 3, 3)]
    assert others["weight_decay"] == 0 and len(others["params"]) == 3


def torch_rates(make_scheduler, steps, lr):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler, rates = make_scheduler(optimizer), []
    for _ in range(steps + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_warm_up_and_cosine_by_hand_and_as_torchs():
    by_hand = [warmup_cosine(step, 30, 1.0, 10, 0.2, 0.5) for step in (0, 5, 10, 20, 30)]
    assert by_hand == pytest.approx([0.2, 0.6, 1.0, 0.75, 0.5])
    cosine = torch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 40, eta_min=3e-4), 40, 3e-3)
    assert [warmup_cosine(step, 40, 3e-3) for step in range(41)] == pytest.approx(cosine)
    linear = torch_rates(lambda o: torch.optim.lr_scheduler.LinearLR(o, 0.01, 1.0, 20), 20, 0.5)
    assert [warmup_cosine(step, 100, 0.5, 20, 0.005) for step in range(21)] == pytest.approx(linear)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_average_agrees_with_torchs_own(layout):
    live = small_net().to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    model = small_net()

    def ramp(averaged, new, update):
        decay = ema_decay(int(update), 0.9)
        for old, now in zip(averaged, new):
            old.mul_(decay).add_(now, alpha=1 - decay) if old.is_floating_point() else old.copy_(now)

    oracle = AveragedModel(copy.deepcopy(model), multi_avg_fn=ramp, use_buffers=True)
    oracle.n_averaged += 1  # so that its first call averages, instead of copying
    average = WeightAverage(model, live, 0.9)
    optimizer = torch.optim.SGD(live.parameters(), lr=0.1)
    for step in range(1, 21):
        live(torch.randn(2, 3, 6, 6)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update(step)
        oracle.update_parameters(live)
    for ours, torchs in zip(model.state_dict().values(), oracle.module.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, torchs)
    ours, trained = model.state_dict(), live.state_dict()
    assert ours["1.num_batches_tracked"] == trained["1.num_batches_tracked"] == 20  # copied, not averaged
    assert not torch.equal(ours["1.running_mean"], trained["1.running_mean"])
