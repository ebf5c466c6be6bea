"""Checks of notebook 04: a backbone stage from its parts, spatial pyramid pooling, parameters of a QARepVGG block."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolonas_lab.teaching.exercises import Case, Mistake, check_cases, show_hint, show_solution

HINTS = {
    "stage": [
        "Two maps leave the downsampled input: one goes through conv1 and the bottlenecks, one only through conv2.",
        "Keep a list of the maps to concatenate. With concat it starts with conv1's output and every bottleneck adds "
        "its own; without concat it holds only what comes out of the last bottleneck. conv2's map comes last.",
        "x = downsample(x); y = conv1(x); pieces = [y]; for each bottleneck: y = bottleneck(y), then pieces = "
        "[*pieces, y] if concat else [y]; at the end conv3(torch.cat([*pieces, conv2(x)], dim=1)).",
    ],
    "spp": [
        "A pooling layer can keep the size of the map: move its window by 1 and pad by half a window.",
        "F.max_pool2d(x, k, stride=1, padding=k // 2) keeps height and width. Every window looks at x itself.",
        "Concatenate along the channels: torch.cat([x, *(the pooled map of each k)], dim=1).",
    ],
    "count_parameters": [
        "List what the block holds while it trains: a 3×3 convolution without bias, its BatchNorm, a 1×1 convolution "
        "with bias, and one BatchNorm after the sum. The identity holds nothing.",
        "A k×k convolution has k² · c_in · c_out weights. A BatchNorm has 2 parameters per channel: weight and bias; "
        "its running mean and variance are buffers, not parameters.",
        "Training: 9·c_in·c_out + 2·c_out (3×3 and BatchNorm), plus c_in·c_out + c_out (1×1 with bias), plus 2·c_out. "
        "Fused: one 3×3 convolution with bias.",
    ],
}


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


def check_stage(fn: Callable[..., Tensor]) -> None:
    """Check a stage's forward from given parts: with and without concat, first without a last convolution."""
    check_cases("stage", fn, _stage_cases(), _STAGE_MISTAKES)


def check_spp(fn: Callable[..., Tensor]) -> None:
    """Check spatial pyramid pooling: a single bright pixel, then negative values, then random maps."""
    check_cases("spp", fn, _spp_cases(), _SPP_MISTAKES)


def check_count_parameters(fn: Callable[..., Sequence[int]]) -> None:
    """Check the parameters of a QARepVGG block, as trained and fused."""
    sizes = [(1, 1, "one channel"), (2, 3, "small"), (3, 48, "S's stem"), (96, 192, ""), (192, 192, "")]
    cases = [Case((a, b), count_parameters(a, b), about) for a, b, about in sizes]
    check_cases("count_parameters", fn, cases, _COUNT_MISTAKES)


def hint(name: str, level: int = 1) -> None:
    """Print a hint for an exercise of this notebook; higher levels say more."""
    show_hint(HINTS, name, level)


def solution(name: str) -> None:
    """Print the reference solution of an exercise of this notebook."""
    show_solution({"stage": stage, "spp": spp, "count_parameters": count_parameters}, name)


def _stage_cases() -> list[Case]:
    """Parts with fixed weights; the first cases end in an Identity, so that the concatenated map itself is compared."""
    generator = torch.Generator().manual_seed(4)

    def conv(c_in: int, c_out: int, stride: int = 1) -> nn.Conv2d:
        layer = nn.Conv2d(c_in, c_out, 1, stride).requires_grad_(False)
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        return layer

    x = torch.randn(1, 2, 4, 4, generator=generator)
    down, conv1, conv2 = conv(2, 3, stride=2), conv(3, 1), conv(3, 1)
    chain = [conv(1, 1), conv(1, 1)]
    kept, joined = "concat: every bottleneck's output is kept", nn.Identity()
    cases = [
        (joined, False, ""),
        (joined, True, kept),
        (conv(2, 5), False, "with conv3"),
        (conv(4, 5), True, "with conv3, concat"),
    ]
    arguments = [((x, down, conv1, chain, conv2, conv3, concat), about) for conv3, concat, about in cases]
    return [Case(values, stage(*values), about) for values, about in arguments]


def _wrong_stage(kind: str) -> Callable[..., Tensor]:
    """A plausible wrong stage."""

    def wrong(x, downsample, conv1, bottlenecks, conv2, conv3, concat):
        x = downsample(x)
        y = first = conv1(x)
        outputs = []
        for bottleneck in bottlenecks:
            y = bottleneck(first if kind == "parallel" else y)
            outputs.append(y)
        pieces = outputs if concat else [y]
        if concat and kind != "without conv1":
            pieces = [first, *outputs]
        if kind == "always concat":
            pieces = [first, *outputs]
        if kind == "never concat":
            pieces = [y]
        around = conv2(first if kind == "conv2 of conv1" and conv2.in_channels == first.shape[1] else x)
        pieces = [around, *pieces] if kind == "conv2 first" else [*pieces, around]
        if kind == "sum":
            return conv3(torch.stack(pieces).sum(dim=0))
        joined = torch.cat(pieces, dim=1)
        return joined if kind == "no conv3" else conv3(joined)

    return wrong


_STAGE_MISTAKES = [
    Mistake(_wrong_stage(kind), says)
    for kind, says in {
        "conv2 first": "the order of the concatenation: the bottlenecks' maps come first and conv2's map last, or the "
        "checkpoint's conv3 weights meet the wrong channels.",
        "without conv1": "with concat, conv1's own output belongs to the pieces too, before the first bottleneck's.",
        "always concat": "without concat only the last bottleneck's output is kept (and conv2's map).",
        "never concat": "with concat all intermediate maps are kept: conv1's output and every bottleneck's.",
        "parallel": "the bottlenecks form a chain: each takes the output of the one before it, not conv1's output.",
        "sum": "the two ways are concatenated along the channels (torch.cat(..., dim=1)), not added.",
        "no conv3": "the concatenated map still goes through conv3.",
    }.items()
]


def _spp_cases() -> list[Case]:
    spike = torch.zeros(1, 1, 5, 5)
    spike[0, 0, 2, 2] = 1.0
    below_zero = -torch.arange(1.0, 10).reshape(1, 1, 3, 3)
    generator = torch.Generator().manual_seed(4)
    maps = torch.randn(2, 3, 8, 6, generator=generator)
    return [
        Case((spike, (3, 5)), spp(spike, (3, 5)), "one bright pixel, two windows"),
        Case((below_zero, (3,)), spp(below_zero, (3,)), "only negative values"),
        Case((maps, (3, 5)), spp(maps, (3, 5)), "two windows"),
        Case((maps, (5, 9, 13)), spp(maps, (5, 9, 13)), "YOLO-NAS's windows"),
    ]


def _chained(x: Tensor, kernel_sizes: Sequence[int]) -> Tensor:
    pieces = [x]
    for k in kernel_sizes:
        pieces.append(F.max_pool2d(pieces[-1], k, stride=1, padding=k // 2))
    return torch.cat(pieces, dim=1)


def _zero_padded(x: Tensor, kernel_sizes: Sequence[int]) -> Tensor:
    return torch.cat([x, *(F.max_pool2d(F.pad(x, (k // 2,) * 4), k, stride=1) for k in kernel_sizes)], dim=1)


def _averaged(x: Tensor, kernel_sizes: Sequence[int]) -> Tensor:
    return torch.cat([x, *(F.avg_pool2d(x, k, stride=1, padding=k // 2) for k in kernel_sizes)], dim=1)


_SPP_MISTAKES = [
    Mistake(lambda x, ks: spp(x, ks)[:, x.shape[1] :], "the map itself belongs to the result too, before its maxima."),
    Mistake(lambda x, ks: torch.cat([spp(x, ks)[:, x.shape[1] :], x], dim=1), "the map itself comes first."),
    Mistake(_chained, "each window looks at x, not at the map that was pooled before it."),
    Mistake(
        _zero_padded,
        "zeros around the map beat negative values: let max_pool2d pad by itself (padding=k // 2), it pads with -∞.",
    ),
    Mistake(_averaged, "this is the mean over the window; SPP takes the maximum."),
    Mistake(
        lambda x, ks: torch.stack([x, *spp(x, ks)[:, x.shape[1] :].chunk(len(ks), 1)]).amax(0),
        "the maps are concatenated along the channels, so that the next convolution can weigh each of them.",
    ),
]

_COUNT_MISTAKES = [
    Mistake(
        lambda a, b: (10 * a * b + 9 * b, 9 * a * b + b),
        "running mean and variance are buffers: a BatchNorm has 2 parameters per channel, not 4.",
    ),
    Mistake(lambda a, b: (10 * a * b + 6 * b, 9 * a * b + b), "the 3×3 convolution has no bias: a BatchNorm follows."),
    Mistake(lambda a, b: (10 * a * b + 4 * b, 9 * a * b + b), "the 1×1 convolution has a bias."),
    Mistake(
        lambda a, b: (10 * a * b + 3 * b, 9 * a * b + b),
        "there are two BatchNorms: one behind the 3×3 convolution and one behind the sum.",
    ),
    Mistake(
        lambda a, b: (10 * a * b + 6 * b + (2 * b if a == b else 0), 9 * a * b + b),
        "this is a RepVGG block, with a BatchNorm in each branch; QARepVGG has one in the 3×3 branch and one at the "
        "end.",
    ),
    Mistake(
        lambda a, b: (10 * a * b + 5 * b, 9 * a * b), "the fused convolution has a bias: BatchNorm's shift goes there."
    ),
    Mistake(
        lambda a, b: (10 * a * b + 5 * b, 10 * a * b + b),
        "the 1×1 kernel is added onto the middle of the 3×3 kernel: nothing of it is left to count once fused.",
    ),
    Mistake(lambda a, b: (9 * a * b + b, 10 * a * b + 5 * b), "the order: first as trained, then fused."),
]
