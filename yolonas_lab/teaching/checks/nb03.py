"""Exercises of notebook 03 (re-parameterization): fold_bn, identity_kernel, fuse_block."""

import torch
import torch.nn.functional as F
from torch import Tensor

from yolonas_lab.teaching.exercises import Case, Mistake, check_cases, show_hint, show_solution


def fold_bn(weight: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor, eps: float):
    gain = gamma / torch.sqrt(var + eps)  # (c_out,)
    return weight * gain[:, None, None, None], (bias - mean) * gain + beta


def identity_kernel(channels: int) -> Tensor:
    kernel = torch.zeros(channels, channels, 3, 3)
    kernel[torch.arange(channels), torch.arange(channels), 1, 1] = 1
    return kernel


def fuse_block(w3: Tensor, b3: Tensor, w1: Tensor, b1: Tensor, has_identity: bool, gain: Tensor, shift: Tensor):
    weight = w3 + F.pad(w1, (1, 1, 1, 1))
    if has_identity:
        weight = weight + identity_kernel(len(b3))
    return weight * gain[:, None, None, None], (b3 + b1) * gain + shift


SOLUTIONS = {"fold_bn": fold_bn, "identity_kernel": identity_kernel, "fuse_block": fuse_block}
HINTS = {
    "fold_bn": (
        "Write BatchNorm in eval mode as one multiplication and one addition per channel: y = gain · x + shift.",
        "With x = conv(image) + bias, gain · x + shift spreads over the convolution. What becomes of weight and bias?",
        "gain = gamma / sqrt(var + eps) has one number per output channel: give it the shape (c_out, 1, 1, 1) for the "
        "weight. The new bias is (bias - mean) · gain + beta.",
    ),
    "identity_kernel": (
        "Output channel i must see input channel i and no other, and only the pixel under the kernel's center.",
        "Start from torch.zeros(channels, channels, 3, 3). Which entries [out, in, row, column] must be 1?",
        "kernel[i, i, 1, 1] = 1 for every channel i; torch.arange(channels) does all of them in one line.",
    ),
    "fuse_block": (
        "Bring all branches to the shape of the 3×3 kernel and add them; only then apply the outer BatchNorm.",
        "F.pad(w1, (1, 1, 1, 1)) puts a border of zeros around the 1×1 kernel. The identity adds no bias.",
        "weight = w3 + padded w1 (+ identity kernel); bias = b3 + b1; then weight · gain[:, None, None, None] and "
        "bias · gain + shift.",
    ),
}


def hint(name: str, level: int = 1) -> None:
    """Print a hint for an exercise of this notebook; level 1 is the gentlest."""
    show_hint(HINTS, name, level)


def solution(name: str) -> None:
    """Print the reference solution of an exercise of this notebook."""
    show_solution(SOLUTIONS, name)


def check_fold_bn(fn) -> None:
    """Check fold_bn(weight, bias, gamma, beta, mean, var, eps) -> (weight, bias)."""
    bias, gamma, beta, mean, var = torch.tensor([[2.0], [4.0], [1.0], [0.5], [16.0]])
    hand = (torch.full((1, 1, 1, 1), 3.0), bias, gamma, beta, mean, var, 0.0)
    cases = [Case(hand, fold_bn(*hand), "one channel by hand: gain 4 / √16 = 1")]
    for seed, (c_out, c_in, size) in enumerate([(4, 3, 3), (2, 5, 1)]):
        arguments = _random_pair(seed, c_out, c_in, size)
        cases.append(Case(arguments, fold_bn(*arguments), f"{size}×{size}, {c_in} to {c_out} channels, random"))
    check_cases(
        "fold_bn",
        fn,
        cases,
        [
            Mistake(
                lambda w, b, g, be, m, v, e: (w * (g / (v + e))[:, None, None, None], (b - m) * g / (v + e) + be),
                "BatchNorm divides by the standard deviation, the square root of var + eps, not by the variance.",
            ),
            Mistake(
                lambda w, b, g, be, m, v, e: (w * _gain(g, v, e), (b - m) * g / v.sqrt() + be),
                "eps belongs under the square root for the bias too.",
            ),
            Mistake(
                lambda w, b, g, be, m, v, e: (w * _gain(g, v, e), b * g / (v + e).sqrt() + be),
                "the running mean is missing: BatchNorm subtracts it, and so must the new bias.",
            ),
            Mistake(
                lambda w, b, g, be, m, v, e: (w * _gain(g, v, e), be - m * g / (v + e).sqrt()),
                "the convolution's own bias got lost; it passes through the BatchNorm as well.",
            ),
            Mistake(
                lambda w, b, g, be, m, v, e: (w * _gain(g, v, e), b - m * g / (v + e).sqrt() + be),
                "the convolution's bias must be multiplied by the gain too.",
            ),
        ],
    )


def check_identity_kernel(fn) -> None:
    """Check identity_kernel(channels) -> (channels, channels, 3, 3)."""
    cases = [Case((c,), identity_kernel(c), f"{c} channel{'s' * (c > 1)}") for c in (1, 2, 5)]
    check_cases(
        "identity_kernel",
        fn,
        cases,
        [
            Mistake(
                lambda c: F.pad(torch.ones(c, c, 1, 1), (1, 1, 1, 1)),
                "this adds all channels up: output channel i should see input channel i alone.",
            ),
            Mistake(
                lambda c: torch.eye(c)[:, :, None, None].expand(c, c, 3, 3),
                "this blurs: only the center of the 3×3 window may be 1, the other eight are 0.",
            ),
            Mistake(
                lambda c: torch.eye(3).expand(c, c, 3, 3),
                "the diagonal runs over channels [out, in], not over the rows and columns of the window.",
            ),
        ],
    )


def check_fuse_block(fn) -> None:
    """Check fuse_block(w3, b3, w1, b1, has_identity, gain, shift) -> (weight, bias)."""
    cases = []
    for seed, (c_out, c_in, has_identity) in enumerate([(1, 1, True), (4, 4, True), (4, 2, False)]):
        arguments = _random_block(seed, c_out, c_in, has_identity)
        about = f"{c_in} to {c_out} channels, {'with' if has_identity else 'without'} identity"
        cases.append(Case(arguments, fuse_block(*arguments), about))
    check_cases(
        "fuse_block",
        fn,
        cases,
        [
            Mistake(
                lambda w3, b3, w1, b1, has, g, s: fuse_block(w3, b3, w1, b1, False, g, s),
                "the identity branch is missing where the block has one.",
            ),
            Mistake(
                lambda w3, b3, w1, b1, has, g, s: fuse_block(w3, b3, w1, torch.zeros_like(b1), has, g, s),
                "the 1×1 branch has a bias; add it to the 3×3 branch's.",
            ),
            Mistake(
                lambda w3, b3, w1, b1, has, g, s: fuse_block(w3, b3, w1, b1, has, torch.ones_like(g), s),
                "the outer BatchNorm's gain must multiply the summed kernel and bias.",
            ),
            Mistake(
                _identity_after_gain,
                "the identity enters the sum before the outer BatchNorm, so the gain multiplies it as well.",
            ),
            Mistake(
                lambda w3, b3, w1, b1, has, g, s: fuse_block(w3 + w1, b3, 0 * w1, b1, has, g, s),
                "adding a 1×1 kernel to a 3×3 one by broadcasting puts it on all nine taps; pad it with zeros instead.",
            ),
        ],
    )


def _gain(gamma: Tensor, var: Tensor, eps: float) -> Tensor:
    return (gamma / (var + eps).sqrt())[:, None, None, None]


def _identity_after_gain(w3, b3, w1, b1, has_identity, gain, shift):
    weight, bias = fuse_block(w3, b3, w1, b1, False, gain, shift)
    return (weight + identity_kernel(len(b3)) if has_identity else weight), bias


def _random_pair(seed: int, c_out: int, c_in: int, size: int) -> tuple:
    g = torch.Generator().manual_seed(seed)
    vectors = [torch.randn(c_out, generator=g) for _ in range(4)]
    var = torch.rand(c_out, generator=g) * 0.05 + 0.01  # small, so that a forgotten eps shows
    return (torch.randn(c_out, c_in, size, size, generator=g), *vectors, var, 1e-2)


def _random_block(seed: int, c_out: int, c_in: int, has_identity: bool) -> tuple:
    g = torch.Generator().manual_seed(100 + seed)
    w3, w1 = torch.randn(c_out, c_in, 3, 3, generator=g), torch.randn(c_out, c_in, 1, 1, generator=g)
    b3, b1, gain, shift = (torch.randn(c_out, generator=g) for _ in range(4))
    return w3, b3, w1, b1, has_identity, gain, shift
