"""The moving average: by hand, and against torch's own."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from yolonas_lab.training import WeightAverage, ema_decay


def small_net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def test_the_ramp_by_hand():
    assert ema_decay(1, 0.98) == 2 / 11
    assert ema_decay(8, 0.98) == 0.5
    assert ema_decay(10_000, 0.98) == 0.98
    decays = [ema_decay(t, 0.9997) for t in range(1, 50_000)]
    assert decays == sorted(decays) and decays[-1] == 0.9997


def test_two_updates_by_hand():
    live, model = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        live.weight.fill_(11.0)
        model.weight.zero_()
    average = WeightAverage(model, live, 0.98)
    average.update(1)  # 2/11 of the old, 9/11 of the new
    assert float(model.weight.detach()) == pytest.approx(9.0)
    average.update(2)  # 3/12 of 9 and 9/12 of 11
    assert float(model.weight.detach()) == pytest.approx(10.5)
    assert live.weight == 11


def test_it_agrees_with_torchs_own_average():
    live = small_net()
    model = copy.deepcopy(live)

    def ramp(averaged, new, update):
        decay = ema_decay(int(update), 0.9)
        for old, now in zip(averaged, new):
            old.mul_(decay).add_(now, alpha=1 - decay) if old.is_floating_point() else old.copy_(now)

    oracle = AveragedModel(live, multi_avg_fn=ramp, use_buffers=True)
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
    assert all(p.grad is None for p in model.parameters())


def test_without_averaging_the_model_is_the_live_one():
    live, model = small_net(0), small_net(1)
    WeightAverage(model, live, 0.0).update(5)
    torch.testing.assert_close(model.state_dict(), live.state_dict(), rtol=1e-6, atol=1e-7)


def test_other_memory_layouts_change_nothing():
    plain, live = small_net(0), small_net(1)
    average, other = copy.deepcopy(plain), copy.deepcopy(live)
    other.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    WeightAverage(plain, live, 0.9).update(3)
    WeightAverage(average, other, 0.9).update(3)
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), average.state_dict().values()))


def test_models_that_differ_are_refused():
    for other in (nn.Conv2d(3, 4, 3), nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))):
        with pytest.raises(ValueError, match="have different tensors"):
            WeightAverage(small_net(), other, 0.9)
