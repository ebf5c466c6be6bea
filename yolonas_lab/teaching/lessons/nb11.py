"""Drawings of the gradient through rounding, of a training on a grid, and of the AP that it wins back (notebook 11)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from yolonas_lab.experiments import Result
from yolonas_lab.quantization.fake_quant import fake_quantize, integer_range
from yolonas_lab.teaching.figures import FP32, HIGHLIGHT, INT8, MUTED, draw_means

WEIGHT_COLORS = (HIGHLIGHT, INT8, FP32)


def draw_staircase(value: Any, slope: Any, bits: int, scale: float) -> None:
    """Rounding to a symmetric grid with step `scale` on one ax; its true and straight-through slope on the other."""
    low, high = integer_range(bits, symmetric=True)
    x = torch.linspace(-1.5, 1.5, 1201, requires_grad=True)
    y = fake_quantize(x, torch.tensor(scale), torch.tensor(0), low, high)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    at = x.detach().numpy()
    value.plot(at, at, color=MUTED, linewidth=1.2, label="x")
    value.plot(at, y.detach().numpy(), color=INT8, label=f"x on the grid, {high - low + 1} values")
    value.set(title="The value is a staircase", xlabel="x", ylabel="value", ylim=(-1.65, 1.65))
    value.legend(loc="upper left")
    slope.plot(at, np.zeros_like(at), color=MUTED, linewidth=3, label="true slope: 0 wherever there is one")
    slope.plot(at, gradient.numpy(), color=INT8, label="straight through: 1 inside, 0 outside")
    slope.set(title="… and so its slope says nothing", xlabel="x", ylabel="slope", ylim=(-0.25, 1.6))
    slope.legend(loc="upper left")


def draw_weights_on_grid(ax: Any, weights: Any, scale: float, names: Sequence[str]) -> Any:
    """Float weights (steps, n) of a training as thin lines, on the grid as steps; tipping points are dotted."""
    weights = np.asarray(weights)
    steps = np.arange(len(weights))
    edges = (np.arange(np.floor(weights.min() / scale), np.ceil(weights.max() / scale)) + 0.5) * scale
    for number, edge in enumerate(edges):
        ax.axhline(edge, color="black", linestyle=":", linewidth=1, label="tipping point" if number == 0 else None)
    for column, (name, color) in enumerate(zip(names, WEIGHT_COLORS)):
        ax.plot(steps, weights[:, column], color=color, linewidth=1.4, label=f"{name}, float")
        on_grid = np.round(weights[:, column] / scale) * scale
        ax.step(steps, on_grid, where="mid", color=color, linewidth=2.8, alpha=0.35, label=f"{name}, on the grid")
    bottom, top = ax.get_ylim()
    ax.set(xlabel="step", ylabel="weight", ylim=(bottom, top + 0.4 * (top - bottom)))  # room for a legend
    ax.legend(loc="upper right", fontsize=8, ncols=3)
    return ax


def draw_recovery(ax: Any, steps: Sequence[int], ap: Sequence[float], reference: float, title: str) -> Any:
    """AP of a quantized model over the steps of its fine-tuning, from step 0 on, below the float model's AP."""
    ax.axhline(reference, color=FP32, linewidth=2, label=f"float, {reference:.2f}")
    ax.plot(steps, ap, "o-", color=INT8, label=f"4-bit weights, {ap[0]:.2f} to {ap[-1]:.2f}")
    ax.fill_between(steps, ap, [max(reference, a) for a in ap], color=MUTED, alpha=0.25, label="still lost")
    ax.set(xlabel="step of the fine-tuning", ylabel="AP", ylim=(0, None), title=title)
    ax.legend(loc="lower right")
    return ax


def draw_bits(ax: Any, result: Result, block: str) -> Any:
    """AP lost by weight bits in the claim qat_recovery: quantized after training (PTQ), trained on the grid (QAT)."""
    bits = (8, 6, 4)
    places = np.arange(len(bits))
    for kind, color, shift in (("PTQ", MUTED, -0.06), ("QAT", INT8, 0.06)):
        drops = [result.values(f"{block} W{b} {kind}", "drop") for b in bits]
        draw_means(ax, places + shift, drops, color, f"{kind}, mean")
    trained_on = np.mean(result.values(f"{block} float, trained on", "drop"))
    ax.axhline(0, color=FP32, linewidth=1.5, label="float")
    ax.axhline(trained_on, color=FP32, linewidth=1.5, linestyle=":", label="float, trained as long")
    ax.set_xticks(places, [f"{b} bits" for b in bits])
    ax.set(xlim=(-0.3, len(bits) - 0.7))
    ax.set(xlabel="weights, one scale per layer", ylabel="AP lost", title=f"{block} blocks")
    return ax
