"""Fake quantization: round to a grid of 2–8 bits and come back to float, with gradients that pass straight through.

Notebook 10 builds the grid, notebook 11 its gradient. Jacob et al., "Quantization and Training of Neural Networks",
arXiv 1712.05877, section 3; the gradient of the scale is that of Esser et al., "Learned Step Size Quantization",
arXiv 1902.08153, section 2.1. Rounding as in ONNX: x / scale to the nearest integer, halves to the even one.
"""

from typing import Any

import torch
from torch import Tensor


def check_bits(bits: int, what: str = "bits") -> None:
    """Raise ValueError unless bits is a whole number from 2 to 8."""
    if isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 8:
        raise ValueError(f"{what} is {bits!r}: give a whole number of bits from 2 to 8.")


def integer_range(bits: int, symmetric: bool) -> tuple[int, int]:
    """The smallest and the largest integer: -2^(bits-1) … 2^(bits-1)-1 if symmetric, else 0 … 2^bits-1."""
    check_bits(bits)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if symmetric else (0, 2**bits - 1)


def scale_and_zero_point(low: Tensor, high: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """The grid for values from low to high (any shape): scale > 0, and the integer that stands for 0 (int32).

    Symmetric: the larger magnitude becomes 2^(bits-1)-1, and 0 is 0. Affine: low and high, widened to hold 0, become
    0 and 2^bits-1. A range without extent gets scale 1. Raises ValueError for bits outside 2 … 8, for a range that is
    not finite and for low > high.
    """
    check_bits(bits)
    if not (torch.isfinite(low).all() and torch.isfinite(high).all()):
        raise ValueError("The range to quantize holds NaN or infinite values; look for them in weights and images.")
    if (low > high).any():
        raise ValueError("The range to quantize must go from low to high, but somewhere low is the larger one.")
    # 0 must be on the grid without error: ReLU writes it, and padding is made of it.
    low, high = low.clamp(max=0), high.clamp(min=0)
    extent = torch.maximum(-low, high) if symmetric else high - low
    scale = extent / (2 ** (bits - 1) - 1 if symmetric else 2**bits - 1)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    zero_point = torch.zeros_like(scale) if symmetric else (-low / scale).round()
    return scale, zero_point.to(torch.int32)


def to_integers(x: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int, axis: int | None = None) -> Tensor:
    """The integers that stand for x on its grid: clamp(round(x / scale) + zero_point, low, high), in the type of
    zero_point; arguments as in `fake_quantize`.
    """
    scale, origin = along(axis, x, scale), along(axis, x, zero_point)
    return ((x.detach() / scale).round() + origin).clamp(low, high).to(zero_point.dtype)


def fake_quantize(
    x: Tensor, scale: Tensor, zero_point: Tensor | None, low: int, high: int, axis: int | None = None
) -> Tensor:
    """x on its grid, as floats: scale · (clamp(round(x / scale) + zero_point, low, high) - zero_point).

    scale (> 0) and zero_point (None: 0) have one value, or one per index of `axis`. The gradient passes straight
    through to x where the integer lies in low … high and is 0 elsewhere. A scale that wants a gradient gets that of the
    rounding error inside and of the bound outside.

    >>> fake_quantize(torch.tensor([0.26, 0.75, 9.0]), torch.tensor(0.5), None, low=-8, high=7)
    tensor([0.5000, 1.0000, 3.5000])
    """
    scale = along(axis, x, scale)
    zero_point = None if zero_point is None else along(axis, x, zero_point)
    if torch.is_grad_enabled() and (x.requires_grad or scale.requires_grad):
        return _StraightThrough.apply(x, scale, zero_point, low, high)  # type: ignore[return-value]
    return _clamp_(torch.round_(x / scale), zero_point, low, high).mul_(scale)


class _StraightThrough(torch.autograd.Function):
    """`fake_quantize` with a gradient: that of rounding is 0 almost everywhere, so it is taken for the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor | None, low: int, high: int) -> Tensor:
        steps = x / scale
        whole = steps.round()
        kept = _clamp_(whole.clone(), zero_point, low, high)
        inside = whole == kept
        # The output is scale · round(x / scale) inside, and scale · bound outside. Its slope over the scale is, by the
        # product rule with round' = 1, round(x / scale) - x / scale inside, and the bound outside.
        slope = torch.where(inside, whole - steps, kept) if ctx.needs_input_grad[1] else None
        ctx.save_for_backward(inside, slope)
        ctx.scale_shape = scale.shape
        return kept * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        inside, slope = ctx.saved_tensors
        scale_grad = None if slope is None else (grads[0] * slope).sum_to_size(ctx.scale_shape)
        return grads[0] * inside, scale_grad, None, None, None


def along(axis: int | None, x: Tensor, values: Tensor) -> Tensor:
    """Values for the indices of `axis`, shaped to meet x; a single value as it is."""
    return values if axis is None else values.view([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])


def _clamp_(steps: Tensor, zero_point: Tensor | None, low: int, high: int) -> Tensor:
    """Whole steps, kept where step + zero_point lies in low … high; in place, as memory is what rounding waits for.

    Bounds that are tensors, low - zero_point and high - zero_point, would cost three times as much.
    """
    if zero_point is None:
        return steps.clamp_(low, high)
    return steps.add_(zero_point).clamp_(low, high).sub_(zero_point)
