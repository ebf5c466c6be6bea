"""Warm-up and cosine: by hand, against torch's schedulers, and as they must be for any setting."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from yolonas_lab.training import warmup_cosine


def test_by_hand():
    def lr(step):
        return warmup_cosine(step, 30, lr=1.0, warmup_steps=10, warmup_start_lr=0.2, final_lr_ratio=0.5)

    assert [lr(0), lr(5), lr(10), lr(20), lr(30)] == pytest.approx([0.2, 0.6, 1.0, 0.75, 0.5])


def torch_rates(make_scheduler, steps, lr):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler, rates = make_scheduler(optimizer), []
    for _ in range(steps + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_without_warm_up_it_is_torchs_cosine():
    rates = torch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 40, eta_min=3e-4), 40, 3e-3)
    assert [warmup_cosine(step, 40, 3e-3) for step in range(41)] == pytest.approx(rates)


def test_the_warm_up_is_torchs_linear_one():
    rates = torch_rates(lambda o: torch.optim.lr_scheduler.LinearLR(o, 0.01, 1.0, 20), 20, 0.5)
    ours = [warmup_cosine(step, 100, 0.5, warmup_steps=20, warmup_start_lr=0.005) for step in range(21)]
    assert ours == pytest.approx(rates)


@given(st.integers(1, 400), st.integers(0, 500), st.floats(1e-6, 0.9), st.floats(0, 1))
def test_it_rises_to_the_peak_falls_to_the_end_and_never_leaves_that_range(total, warmup, lr, ratio):
    rates = [warmup_cosine(step, total, lr, warmup, 0.0, ratio) for step in range(total + 1)]
    peak = min(warmup, total)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert all(later <= earlier + 1e-12 for earlier, later in zip(rates[peak:], rates[peak + 1 :]))
    assert 0 <= min(rates) and max(rates) <= lr * (1 + 1e-12)
    if warmup < total:
        assert rates[warmup] == pytest.approx(lr) and rates[-1] == pytest.approx(lr * ratio)


@pytest.mark.parametrize("step", [-1, 11])
def test_a_step_outside_the_training_is_refused(step):
    with pytest.raises(ValueError, match=rf"step is {step}, but the training has steps 0 to 10"):
        warmup_cosine(step, 10, 0.1)
