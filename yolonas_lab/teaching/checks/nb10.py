"""Exercises of notebook 10 (post-training quantization): quantize, choose_scale, select_layers."""

from collections.abc import Sequence

import torch
from torch import Tensor

from yolonas_lab.teaching.exercises import Case, Exercise, Exercises


def quantize(x: Tensor, scale: float, zero_point: int, low: int, high: int) -> tuple[Tensor, Tensor]:
    integers = ((x / scale).round() + zero_point).clamp(low, high).int()
    return integers, (integers - zero_point) * scale


def choose_scale(values: Tensor, bits: int, shares: Sequence[float]) -> float:
    largest_integer = 2 ** (bits - 1) - 1
    best_scale, least = 0.0, float("inf")
    for share in shares:
        scale = share * values.abs().max().item() / largest_integer
        restored = (values / scale).round().clamp(-largest_integer, largest_integer) * scale
        error = (restored - values).square().sum().item()
        if error < least:
            best_scale, least = scale, error
    return best_scale


def select_layers(harm: Sequence[float], saved_ms: Sequence[float], allowed: float) -> list[int]:
    layers = range(len(harm))
    in_float = [i for i in layers if saved_ms[i] <= 0]
    faster = sorted((i for i in layers if saved_ms[i] > 0), key=lambda i: harm[i] / saved_ms[i], reverse=True)
    while sum(harm[i] for i in faster) > allowed:
        in_float.append(faster.pop(0))
    return sorted(in_float)


def heavy_tailed(seed: int, n: int = 400) -> Tensor:
    """Random values (n,), most of them small and a few far out, the farthest of them negative."""
    random = torch.Generator().manual_seed(seed)
    values = torch.randn(n, generator=random) * (1 + torch.rand(n, generator=random) ** 8 * 4)
    values[0] = -1.3 * values.abs().max()
    return values


def random_layers(seed: int, n: int = 12) -> tuple[list[float], list[float]]:
    """Harm and milliseconds saved of n layers, two of which save nothing."""
    random = torch.Generator().manual_seed(seed)
    harm = (torch.rand(n, generator=random) ** 3).tolist()
    saved = torch.rand(n, generator=random) + 0.05
    saved[[3, 8]] *= -1
    return [round(h, 4) for h in harm], [round(s, 3) for s in saved.tolist()]


def _random_values(seed: int) -> Tensor:
    return torch.randn(12, generator=torch.Generator().manual_seed(seed))


HAND = torch.tensor([-0.9, -0.26, 0.0, 0.35, 0.8, 1.3])
FAR_OUT = torch.tensor([0.1, -0.2, 0.3, -0.4, 0.5, 0.6, -0.7, -2.1] * 2)
SHARES = [round(0.05 * i, 2) for i in range(1, 21)]
SIX_LAYERS = [0.05, 0.02, 0.012, 0.03, 0.01, 0.04], [0.1, 0.01, 0.9, -0.02, 0.1, 0.2]  # harm, ms saved

EXERCISES = Exercises(
    Exercise(
        quantize,
        hints=(
            "Four steps there: divide by the scale, round, add the zero-point, clip. Two steps back.",
            "(x / scale).round() + zero_point, then .clamp(low, high) and .int(). Clip last: the bounds are those of "
            "the integers.",
            "Back: (integers - zero_point) * scale. Return the pair (integers, restored).",
        ),
        cases=[
            Case((HAND, 0.25, 0, -4, 3), "3 bits, symmetric"),
            Case((HAND.abs(), 0.25, 0, 0, 7), "3 bits, nothing below 0"),
            Case((HAND, 0.3, 3, 0, 7), "3 bits, zero-point 3"),
            Case((_random_values(0), 3.1 / 256, 0, -128, 127), "8 bits, random"),
            Case((_random_values(1), 3.1 / 16, 5, 0, 15), "4 bits, random"),
        ],
        mistakes={
            ".round() -> .trunc()": "this cuts the decimals off (as .int() does); round to the nearest integer first.",
            ".round() -> .floor()": "this always rounds down (as // and floor do); round to the nearest integer.",
            ".clamp(low, high) ->": "values beyond the grid need its outermost integer: clamp to low … high.",
            " + zero_point).clamp(low, high) -> .clamp(low, high) + zero_point)": "this clips before adding the "
            "zero-point; low and high bound the final integers.",
            "(integers - zero_point) * -> integers *": "the way back forgot the zero-point: subtract it before "
            "multiplying by the scale.",
            "(integers - zero_point) * scale -> integers": "the second result is the integers again; multiply back to "
            "floats: (integers - zero_point) * scale.",
            ".int() ->": "the values are right, but the integers are still stored as floats: end with .int().",
        },
    ),
    Exercise(
        choose_scale,
        hints=(
            "Loop over the shares; for each one quantize and restore all values, and keep the scale with the smallest "
            "sum of squared differences.",
            "For b bits the largest integer is 2 ** (b - 1) - 1, so the scale is share * values.abs().max() / that.",
            "restored = (values / scale).round().clamp(-largest, largest) * scale; without the clamp nothing would be "
            "lost to clipping, and the smallest share would always win.",
        ),
        cases=[
            Case((FAR_OUT, 3, [0.25, 0.5, 1.0]), "16 numbers, one of them far out"),
            *(Case((heavy_tailed(i), bits, SHARES), f"{bits} bits, heavy tails") for i, bits in enumerate((2, 4, 8))),
        ],
        tolerance=1e-4,
        mistakes={
            "in shares -> in [max(shares)]": "this always reaches the largest value; a smaller share can have a "
            "smaller error, try them all.",
            ".clamp(-largest_integer, largest_integer) ->": "without clamping, values beyond the grid cost nothing, so "
            "the finest grid always wins.",
            "2 ** (bits - 1) - 1 -> 2 ** (bits - 1)": "for b bits the largest integer is 2^(b-1) - 1, such as 127 for "
            "8 bits.",
            "2 ** (bits - 1) - 1 -> 2**bits - 1": "a symmetric grid spends half its integers on negative numbers: the "
            "largest is 2^(b-1) - 1.",
            ".abs().max() -> .max()": "the largest value is the largest magnitude, values.abs().max(); here it is "
            "negative.",
            ".square().sum() -> .abs().max()": "this judges by the largest error of a single value; sum the squares "
            "over all values.",
            "return best_scale -> return best_scale * largest_integer": "this is the limit that the grid reaches; its "
            "scale is the limit divided by the largest integer.",
            "return best_scale -> return least": "this is the error; return the scale that had it.",
        },
    ),
    Exercise(
        select_layers,
        hints=(
            "Start with the layers that save nothing. Sort the others by harm for each millisecond saved, the worst "
            "bargain first.",
            "The harm that counts is that of the layers which are still quantized: sum(harm[i] for i in the rest).",
            "while sum(harm[i] for i in rest) > allowed: in_float.append(rest.pop(0)). Return sorted(in_float).",
        ),
        cases=[
            Case((*SIX_LAYERS, 0.065), "six layers, one of them slower in INT8"),
            Case((*SIX_LAYERS, 0.01), "the same, but less may be lost"),
            Case((*SIX_LAYERS, 1.0), "the same, and any loss is allowed"),
            Case((*random_layers(0), 0.3), "12 layers, random"),
            Case((*random_layers(1), 0.1), "12 layers, random"),
        ],
        mistakes={
            "harm[i] / saved_ms[i] -> harm[i]": "this takes the most harmful layers first; take those with the most "
            "harm for each millisecond saved.",
            "harm[i] / saved_ms[i] -> harm[i] * saved_ms[i]": "harm is multiplied by the time saved; divide: a layer "
            "that saves much should stay quantized.",
            ", reverse=True ->": "the order is upside down: the layer with the most harm per millisecond goes back to "
            "float first.",
            ("[i for i in layers if saved_ms[i] <= 0] -> []", "(i for i in layers if saved_ms[i] > 0) -> layers"): (
                "a layer that INT8 does not make faster belongs in float, whatever its harm."
            ),
            "sorted(in_float) -> sorted(in_float + faster[:1])": "this goes on for one layer too many: stop as soon as "
            "the harm that is left is allowed.",
            "sum(harm[i] for i in faster) > allowed -> "
            "sum(harm[i] for i in in_float + faster[:1] if saved_ms[i] > 0) <= allowed": "this limits the harm of the "
            "layers in float; what counts is that of those still quantized.",
            "sorted(in_float) -> sorted(faster)": "these are the layers that stay quantized; return the others.",
        },
    ),
)
hint, solution = EXERCISES.hint, EXERCISES.solution
check_quantize, check_choose_scale = EXERCISES["quantize"].check, EXERCISES["choose_scale"].check
check_select_layers = EXERCISES["select_layers"].check
