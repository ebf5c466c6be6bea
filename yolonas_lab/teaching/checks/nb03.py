"""Exercises of notebook 03 (re-parameterization): fold_bn, identity_kernel, fuse_block."""

import torch
import torch.nn.functional as F
from torch import Tensor

from yolonas_lab.teaching.exercises import Case, Exercise, Exercises


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


def random_pair(seed: int, c_out: int, c_in: int, size: int) -> tuple:
    """A convolution and the BatchNorm behind it, as fold_bn gets them."""
    g = torch.Generator().manual_seed(seed)
    vectors = [torch.randn(c_out, generator=g) for _ in range(4)]
    var = torch.rand(c_out, generator=g) * 0.05 + 0.01  # small, so that a forgotten eps shows
    return (torch.randn(c_out, c_in, size, size, generator=g), *vectors, var, 1e-2)


def _random_block(seed: int, c_out: int, c_in: int, has_identity: bool) -> tuple:
    g = torch.Generator().manual_seed(100 + seed)
    w3, w1 = torch.randn(c_out, c_in, 3, 3, generator=g), torch.randn(c_out, c_in, 1, 1, generator=g)
    b3, b1, gain, shift = (torch.randn(c_out, generator=g) for _ in range(4))
    return w3, b3, w1, b1, has_identity, gain, shift


EXERCISES = Exercises(
    Exercise(
        fold_bn,
        hints=(
            "Write BatchNorm in eval mode as one multiplication and one addition per channel: y = gain · x + shift.",
            "With x = conv(image) + bias, gain · x + shift spreads over the convolution. What becomes of weight and "
            "bias?",
            "gain = gamma / sqrt(var + eps) has one number per output channel: give it the shape (c_out, 1, 1, 1) for "
            "the weight. The new bias is (bias - mean) · gain + beta.",
        ),
        cases=[
            Case(
                (torch.full((1, 1, 1, 1), 3.0), *torch.tensor([[2.0], [4.0], [1.0], [0.5], [16.0]]), 0.0),
                "one channel by hand: gain 4 / √16 = 1",
            ),
            Case(random_pair(0, c_out=4, c_in=3, size=3), "3×3, 3 to 4 channels, random"),
            Case(random_pair(1, c_out=2, c_in=5, size=1), "1×1, 5 to 2 channels, random"),
        ],
        mistakes={
            "torch.sqrt(var + eps) -> (var + eps)": "BatchNorm divides by the standard deviation, the square root of "
            "var + eps, not by the variance.",
            "- mean) * gain -> - mean) * gamma / torch.sqrt(var)": "eps belongs under the square root for the bias "
            "too.",
            "(bias - mean) -> bias": "the running mean is missing: BatchNorm subtracts it, and so must the new bias.",
            "(bias - mean) -> -mean": "the convolution's own bias got lost; it passes through the BatchNorm as well.",
            "(bias - mean) * gain -> bias - mean * gain": "the convolution's bias must be multiplied by the gain too.",
        },
    ),
    Exercise(
        identity_kernel,
        hints=(
            "Output channel i must see input channel i and no other, and only the pixel under the kernel's center.",
            "Start from torch.zeros(channels, channels, 3, 3). Which entries [out, in, row, column] must be 1?",
            "kernel[i, i, 1, 1] = 1 for every channel i; torch.arange(channels) does all of them in one line.",
        ),
        cases=[Case((1,), "1 channel"), Case((2,), "2 channels"), Case((5,), "5 channels")],
        mistakes={
            "torch.arange(channels), torch.arange(channels), 1, 1] -> :, :, 1, 1]": "this adds all channels up: output "
            "channel i should see input channel i alone.",
            ", 1, 1] -> ]": "this blurs: only the center of the 3×3 window may be 1, the other eight are 0.",
            "torch.arange(channels), torch.arange(channels), 1, 1] -> :, :, [0, 1, 2], [0, 1, 2]]": "the diagonal runs "
            "over channels [out, in], not over the rows and columns of the window.",
        },
    ),
    Exercise(
        fuse_block,
        hints=(
            "Bring all branches to the shape of the 3×3 kernel and add them; only then apply the outer BatchNorm.",
            "F.pad(w1, (1, 1, 1, 1)) puts a border of zeros around the 1×1 kernel. The identity adds no bias.",
            "weight = w3 + padded w1 (+ identity kernel); bias = b3 + b1; then weight · gain[:, None, None, None] and "
            "bias · gain + shift.",
        ),
        cases=[
            Case(_random_block(0, c_out=1, c_in=1, has_identity=True), "1 to 1 channels, with identity"),
            Case(_random_block(1, c_out=4, c_in=4, has_identity=True), "4 to 4 channels, with identity"),
            Case(_random_block(2, c_out=4, c_in=2, has_identity=False), "2 to 4 channels, without identity"),
        ],
        mistakes={
            "if has_identity -> if False": "the identity branch is missing where the block has one.",
            "(b3 + b1) -> b3": "the 1×1 branch has a bias; add it to the 3×3 branch's.",
            ("* gain[:, None, None, None] ->", "(b3 + b1) * gain -> (b3 + b1)"): "the outer BatchNorm's gain must "
            "multiply the summed kernel and bias.",
            "identity_kernel(len(b3)) -> identity_kernel(len(b3)) / gain[:, None, None, None]": "the identity enters "
            "the sum before the outer BatchNorm, so the gain multiplies it as well.",
            "F.pad(w1, (1, 1, 1, 1)) -> w1": "adding a 1×1 kernel to a 3×3 one by broadcasting puts it on all nine "
            "taps; pad it with zeros instead.",
        },
    ),
)
hint, solution = EXERCISES.hint, EXERCISES.solution
check_fold_bn = EXERCISES["fold_bn"].check
check_identity_kernel = EXERCISES["identity_kernel"].check
check_fuse_block = EXERCISES["fuse_block"].check
