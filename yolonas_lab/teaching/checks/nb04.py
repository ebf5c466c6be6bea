"""Exercises of notebook 04 (architecture): stage, spp, count_parameters."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolonas_lab.teaching.exercises import Case, Exercise, Exercises


def stage(
    x: Tensor,
    downsample: Callable[[Tensor], Tensor],
    conv1: Callable[[Tensor], Tensor],
    bottlenecks: Sequence[Callable[[Tensor], Tensor]],
    conv2: Callable[[Tensor], Tensor],
    conv3: Callable[[Tensor], Tensor],
    concat: bool,
) -> Tensor:
    x = downsample(x)
    y = conv1(x)
    pieces = [y]
    for bottleneck in bottlenecks:
        y = bottleneck(y)
        pieces = [*pieces, y] if concat else [y]
    return conv3(torch.cat([*pieces, conv2(x)], dim=1))


def spp(x: Tensor, kernel_sizes: Sequence[int]) -> Tensor:
    pooled = [F.max_pool2d(x, k, stride=1, padding=k // 2) for k in kernel_sizes]
    return torch.cat([x, *pooled], dim=1)


def count_parameters(c_in: int, c_out: int) -> tuple[int, int]:
    branch3x3 = 9 * c_in * c_out + 2 * c_out  # the convolution has no bias; its BatchNorm has weight and bias
    branch1x1 = c_in * c_out + c_out
    outer_bn = 2 * c_out
    fused = 9 * c_in * c_out + c_out
    return branch3x3 + branch1x1 + outer_bn, fused


def _stage_cases() -> list[Case]:
    """Parts with fixed weights; the first cases end in an Identity, so that the concatenated map itself is compared."""
    generator = torch.Generator().manual_seed(4)

    def conv(c_in: int, c_out: int, stride: int = 1) -> nn.Conv2d:
        layer = nn.Conv2d(c_in, c_out, 1, stride).requires_grad_(False)
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        return layer

    x = torch.randn(1, 2, 4, 4, generator=generator)
    downsample, conv1, conv2 = conv(2, 3, stride=2), conv(3, 1), conv(3, 1)
    parts = downsample, conv1, [conv(1, 1), conv(1, 1)], conv2
    return [
        Case((x, *parts, nn.Identity(), False)),
        Case((x, *parts, nn.Identity(), True), "concat: every bottleneck's output is kept"),
        Case((x, *parts, conv(2, 5), False), "with conv3"),
        Case((x, *parts, conv(4, 5), True), "with conv3, concat"),
    ]


def _spp_cases() -> list[Case]:
    spike = torch.zeros(1, 1, 5, 5)
    spike[0, 0, 2, 2] = 1.0
    maps = torch.randn(2, 3, 8, 6, generator=torch.Generator().manual_seed(4))
    return [
        Case((spike, (3, 5)), "one bright pixel, two windows"),
        Case((-torch.arange(1.0, 10).reshape(1, 1, 3, 3), (3,)), "only negative values"),
        Case((maps, (3, 5)), "two windows"),
        Case((maps, (5, 9, 13)), "YOLO-NAS's windows"),
    ]


EXERCISES = Exercises(
    Exercise(
        stage,
        hints=(
            "Two maps leave the downsampled input: one goes through conv1 and the bottlenecks, one only through conv2.",
            "Keep a list of the maps to concatenate. With concat it starts with conv1's output and every bottleneck "
            "adds its own; without concat it holds only what comes out of the last bottleneck. conv2's map comes last.",
            "x = downsample(x); y = conv1(x); pieces = [y]; for each bottleneck: y = bottleneck(y), then pieces = "
            "[*pieces, y] if concat else [y]; at the end conv3(torch.cat([*pieces, conv2(x)], dim=1)).",
        ),
        cases=_stage_cases,
        mistakes={
            "[*pieces, conv2(x)] -> [conv2(x), *pieces]": "the order of the concatenation: the bottlenecks' maps come "
            "first and conv2's map last, or the checkpoint's conv3 weights meet the wrong channels.",
            "pieces = [y] -> pieces = []": "with concat, conv1's own output belongs to the pieces too, before the "
            "first bottleneck's.",
            "[*pieces, y] if concat else [y] -> [*pieces, y]": "without concat only the last bottleneck's output is "
            "kept (and conv2's map).",
            "[*pieces, y] if concat else [y] -> [y]": "with concat all intermediate maps are kept: conv1's output and "
            "every bottleneck's.",
            "bottleneck(y) -> bottleneck(conv1(x))": "the bottlenecks form a chain: each takes the output of the one "
            "before it, not conv1's output.",
            "torch.cat([*pieces, conv2(x)], dim=1) -> sum([*pieces, conv2(x)])": "the two ways are concatenated along "
            "the channels (torch.cat(..., dim=1)), not added.",
            "return conv3 -> return ": "the concatenated map still goes through conv3.",
        },
    ),
    Exercise(
        spp,
        hints=(
            "A pooling layer can keep the size of the map: move its window by 1 and pad by half a window.",
            "F.max_pool2d(x, k, stride=1, padding=k // 2) keeps height and width. Every window looks at x itself.",
            "Concatenate along the channels: torch.cat([x, *(the pooled map of each k)], dim=1).",
        ),
        cases=_spp_cases,
        mistakes={
            "[x, *pooled] -> pooled": "the map itself belongs to the result too, before its maxima.",
            "[x, *pooled] -> [*pooled, x]": "the map itself comes first.",
            "pooled = [F.max_pool2d(x, -> last = x; pooled = [last := F.max_pool2d(last,": "each window looks at x, "
            "not at the map that was pooled before it.",
            "F.max_pool2d(x, k, stride=1, padding=k // 2) -> F.max_pool2d(F.pad(x, (k // 2,) * 4), k, stride=1)": (
                "zeros around the map beat negative values: let max_pool2d pad by itself (padding=k // 2), it pads "
                "with -∞."
            ),
            "max_pool2d -> avg_pool2d": "this is the mean over the window; SPP takes the maximum.",
            "torch.cat([x, *pooled], dim=1) -> torch.stack([x, *pooled]).amax(0)": "the maps are concatenated along "
            "the channels, so that the next convolution can weigh each of them.",
        },
    ),
    Exercise(
        count_parameters,
        hints=(
            "List what the block holds while it trains: a 3×3 convolution without bias, its BatchNorm, a 1×1 "
            "convolution with bias, and one BatchNorm after the sum. The identity holds nothing.",
            "A k×k convolution has k² · c_in · c_out weights. A BatchNorm has 2 parameters per channel: weight and "
            "bias; its running mean and variance are buffers, not parameters.",
            "Training: 9·c_in·c_out + 2·c_out (3×3 and BatchNorm), plus c_in·c_out + c_out (1×1 with bias), plus "
            "2·c_out. Fused: one 3×3 convolution with bias.",
        ),
        cases=[
            Case((1, 1), "one channel"),
            Case((2, 3), "small"),
            Case((3, 48), "S's stem"),
            Case((96, 192)),
            Case((192, 192)),
        ],
        mistakes={
            "2 * c_out -> 4 * c_out": "running mean and variance are buffers: a BatchNorm has 2 parameters per "
            "channel, not 4.",
            "2 * c_out  # -> 3 * c_out  #": "the 3×3 convolution has no bias: a BatchNorm follows.",
            "branch1x1 = c_in * c_out + c_out -> branch1x1 = c_in * c_out": "the 1×1 convolution has a bias.",
            "outer_bn = 2 * c_out -> outer_bn = 0": "there are two BatchNorms: one behind the 3×3 convolution and one "
            "behind the sum.",
            "branch1x1 = c_in * c_out + c_out -> branch1x1 = (c_in + 2 + 2 * (c_in == c_out)) * c_out": (
                "this is a RepVGG block, with a BatchNorm in each branch; QARepVGG has one in the 3×3 branch and one "
                "at the end."
            ),
            "fused = 9 * c_in * c_out + c_out -> fused = 9 * c_in * c_out": "the fused convolution has a bias: "
            "BatchNorm's shift goes there.",
            "fused = 9 -> fused = 10": "the 1×1 kernel is added onto the middle of the 3×3 kernel: nothing of it is "
            "left to count once fused.",
            "branch3x3 + branch1x1 + outer_bn, fused -> fused, branch3x3 + branch1x1 + outer_bn": "the order: first as "
            "trained, then fused.",
        },
    ),
)
hint, solution = EXERCISES.hint, EXERCISES.solution
check_stage, check_spp = EXERCISES["stage"].check, EXERCISES["spp"].check
check_count_parameters = EXERCISES["count_parameters"].check
