"""Exercises of notebook 10 (post-training quantization): quantize, choose_scale, select_layers."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from yolonas_lab.teaching.exercises import Case, Mistake, check_cases, show_hint, show_solution

# Random cases and plausible wrong answers for the exercises of notebook 10.


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


def grid_variant(
    x: Tensor,
    scale: float,
    zero_point: int,
    low: int,
    high: int,
    rounding: Callable[[Tensor], Tensor] = torch.round,
    clip: str = "late",
    back: str = "right",
    whole: bool = True,
) -> tuple[Tensor, Tensor]:
    """`quantize` with one thing changed; with none it is right."""
    steps = rounding(x / scale)
    if clip == "early":
        steps = steps.clamp(low, high)
    integers = steps + zero_point
    if clip == "late":
        integers = integers.clamp(low, high)
    if whole:
        integers = integers.int()
    ways = {"right": (integers - zero_point) * scale, "no zero-point": integers * scale, "none": integers}
    return integers, ways[back]


def scale_variant(
    values: Tensor,
    bits: int,
    shares: Sequence[float],
    judge: str = "squared",
    clip: bool = True,
    levels: int | None = None,
    signed: bool = False,
    gives: str = "scale",
) -> float:
    """`choose_scale` with one thing changed; with none it is right."""
    top = levels or 2 ** (bits - 1) - 1
    largest = values.max().item() if signed else values.abs().max().item()
    found = []
    for share in shares:
        scale = share * largest / top
        steps = (values / scale).round()
        error = ((steps.clamp(-top, top) if clip else steps) * scale - values).abs()
        worth = {"squared": error.square().sum(), "largest error": error.max(), "largest": -share}[judge]
        found.append((float(worth), scale))
    error, scale = min(found, key=lambda pair: pair[0])
    return {"scale": scale, "limit": scale * top, "error": error}[gives]


def selection_variant(
    harm: Sequence[float],
    saved_ms: Sequence[float],
    allowed: float,
    key: str = "ratio",
    reverse: bool = True,
    slower: str = "float",
    extra: int = 0,
    count: str = "quantized",
) -> list[int]:
    """`select_layers` with one thing changed; with none it is right."""
    keys: dict[str, Callable[[int], float]] = {
        "ratio": lambda i: harm[i] / saved_ms[i],
        "harm": lambda i: harm[i],
        "product": lambda i: harm[i] * saved_ms[i],
    }
    fast = [i for i in range(len(harm)) if saved_ms[i] > 0]
    slow = [i for i in range(len(harm)) if saved_ms[i] <= 0]
    rest = sorted(fast, key=keys[key], reverse=reverse)
    chosen = slow if slower == "float" else []
    counted = slow if slower == "quantized" else []
    taken = 0
    if count == "float":
        while taken < len(rest) and sum(harm[i] for i in rest[: taken + 1]) <= allowed:
            taken += 1
    else:
        while rest[taken:] and sum(harm[i] for i in [*rest[taken:], *counted]) > allowed:
            taken += 1
    return sorted([*chosen, *rest[: taken + extra]])


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


SOLUTIONS = {"quantize": quantize, "choose_scale": choose_scale, "select_layers": select_layers}
HINTS = {
    "quantize": (
        "Four steps there: divide by the scale, round, add the zero-point, clip. Two steps back.",
        "(x / scale).round() + zero_point, then .clamp(low, high) and .int(). Clip last: the bounds are those of the "
        "integers.",
        "Back: (integers - zero_point) * scale. Return the pair (integers, restored).",
    ),
    "choose_scale": (
        "Loop over the shares; for each one quantize and restore all values, and keep the scale with the smallest sum "
        "of squared differences.",
        "For b bits the largest integer is 2 ** (b - 1) - 1, so the scale is share * values.abs().max() / that.",
        "restored = (values / scale).round().clamp(-largest, largest) * scale; without the clamp nothing would be lost "
        "to clipping, and the smallest share would always win.",
    ),
    "select_layers": (
        "Start with the layers that save nothing. Sort the others by harm for each millisecond saved, the worst "
        "bargain first.",
        "The harm that counts is that of the layers which are still quantized: sum(harm[i] for i in the rest).",
        "while sum(harm[i] for i in rest) > allowed: in_float.append(rest.pop(0)). Return sorted(in_float).",
    ),
}


def hint(name: str, level: int = 1) -> None:
    """Print a hint for an exercise of this notebook; level 1 is the gentlest."""
    show_hint(HINTS, name, level)


def solution(name: str) -> None:
    """Print the reference solution of an exercise of this notebook."""
    show_solution(SOLUTIONS, name)


def check_quantize(fn) -> None:
    """Check quantize(x (n,), scale, zero_point, low, high) -> integers (n,) int32, restored (n,) float."""
    hand = torch.tensor([-0.9, -0.26, 0.0, 0.35, 0.8, 1.3])
    cases = [
        Case((hand, 0.25, 0, -4, 3), quantize(hand, 0.25, 0, -4, 3), "3 bits, symmetric"),
        Case((hand.abs(), 0.25, 0, 0, 7), quantize(hand.abs(), 0.25, 0, 0, 7), "3 bits, nothing below 0"),
        Case((hand, 0.3, 3, 0, 7), quantize(hand, 0.3, 3, 0, 7), "3 bits, zero-point 3"),
    ]
    for seed, (bits, zero_point) in enumerate([(8, 0), (4, 5)]):
        x = torch.randn(12, generator=torch.Generator().manual_seed(seed))
        low, high = (0, 2**bits - 1) if zero_point else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        arguments = (x, 3.1 / 2**bits, zero_point, low, high)
        cases.append(Case(arguments, quantize(*arguments), f"{bits} bits, random"))
    check_cases(
        "quantize",
        fn,
        cases,
        [
            Mistake(
                lambda *a: grid_variant(*a, rounding=torch.trunc),
                "this cuts the decimals off (as .int() does); round to the nearest integer first.",
            ),
            Mistake(
                lambda *a: grid_variant(*a, rounding=torch.floor),
                "this always rounds down (as // and floor do); round to the nearest integer.",
            ),
            Mistake(
                lambda *a: grid_variant(*a, clip="never"),
                "values beyond the grid need its outermost integer: clamp to low … high.",
            ),
            Mistake(
                lambda *a: grid_variant(*a, clip="early"),
                "this clips before adding the zero-point; low and high bound the final integers.",
            ),
            Mistake(
                lambda *a: grid_variant(*a, back="no zero-point"),
                "the way back forgot the zero-point: subtract it before multiplying by the scale.",
            ),
            Mistake(
                lambda *a: grid_variant(*a, back="none"),
                "the second result is the integers again; multiply back to floats: (integers - zero_point) * scale.",
            ),
            Mistake(
                lambda *a: grid_variant(*a, whole=False),
                "the values are right, but the integers are still stored as floats: end with .int().",
            ),
        ],
    )


def check_choose_scale(fn) -> None:
    """Check choose_scale(values (n,), bits, shares) -> float, the scale of least squared error."""
    hand = torch.tensor([0.1, -0.2, 0.3, -0.4, 0.5, 0.6, -0.7, -2.1] * 2)
    shares = [round(0.05 * i, 2) for i in range(1, 21)]
    cases = [
        Case((hand, 3, [0.25, 0.5, 1.0]), choose_scale(hand, 3, [0.25, 0.5, 1.0]), "16 numbers, one of them far out"),
    ]
    for seed, bits in enumerate([2, 4, 8]):
        values = heavy_tailed(seed)
        cases.append(Case((values, bits, shares), choose_scale(values, bits, shares), f"{bits} bits, heavy tails"))
    check_cases(
        "choose_scale",
        fn,
        cases,
        [
            Mistake(
                lambda v, b, s: scale_variant(v, b, s, judge="largest"),
                "this always reaches the largest value; a smaller share can have a smaller error, try them all.",
            ),
            Mistake(
                lambda v, b, s: scale_variant(v, b, s, clip=False),
                "without clamping, values beyond the grid cost nothing, so the finest grid always wins.",
            ),
            Mistake(
                lambda v, b, s: scale_variant(v, b, s, levels=2 ** (b - 1)),
                "for b bits the largest integer is 2^(b-1) - 1, such as 127 for 8 bits.",
            ),
            Mistake(
                lambda v, b, s: scale_variant(v, b, s, levels=2**b - 1),
                "a symmetric grid spends half its integers on negative numbers: the largest is 2^(b-1) - 1.",
            ),
            Mistake(
                lambda v, b, s: scale_variant(v, b, s, signed=True),
                "the largest value is the largest magnitude, values.abs().max(); here it is negative.",
            ),
            Mistake(
                lambda v, b, s: scale_variant(v, b, s, judge="largest error"),
                "this judges by the largest error of a single value; sum the squares over all values.",
            ),
            Mistake(
                lambda v, b, s: scale_variant(v, b, s, gives="limit"),
                "this is the limit that the grid reaches; its scale is the limit divided by the largest integer.",
            ),
            Mistake(
                lambda v, b, s: scale_variant(v, b, s, gives="error"),
                "this is the error; return the scale that had it.",
            ),
        ],
        tolerance=1e-4,
    )


def check_select_layers(fn) -> None:
    """Check select_layers(harm, saved_ms, allowed) -> sorted list of the layers to leave in float."""
    hand = [0.05, 0.02, 0.012, 0.03, 0.01, 0.04], [0.1, 0.01, 0.9, -0.02, 0.1, 0.2]
    cases = [
        Case((*hand, 0.065), select_layers(*hand, 0.065), "six layers, one of them slower in INT8"),
        Case((*hand, 0.01), select_layers(*hand, 0.01), "the same, but less may be lost"),
        Case((*hand, 1.0), select_layers(*hand, 1.0), "the same, and any loss is allowed"),
    ]
    for seed, allowed in enumerate([0.3, 0.1]):
        arguments = (*random_layers(seed), allowed)
        cases.append(Case(arguments, select_layers(*arguments), "12 layers, random"))
    check_cases(
        "select_layers",
        fn,
        cases,
        [
            Mistake(
                lambda h, s, a: selection_variant(h, s, a, key="harm"),
                "this takes the most harmful layers first; take those with the most harm for each millisecond saved.",
            ),
            Mistake(
                lambda h, s, a: selection_variant(h, s, a, key="product"),
                "harm is multiplied by the time saved; divide: a layer that saves much should stay quantized.",
            ),
            Mistake(
                lambda h, s, a: selection_variant(h, s, a, reverse=False),
                "the order is upside down: the layer with the most harm per millisecond goes back to float first.",
            ),
            Mistake(
                lambda h, s, a: selection_variant(h, s, a, slower="quantized"),
                "a layer that INT8 does not make faster belongs in float, whatever its harm.",
            ),
            Mistake(
                lambda h, s, a: selection_variant(h, s, a, extra=1),
                "this goes on for one layer too many: stop as soon as the harm that is left is allowed.",
            ),
            Mistake(
                lambda h, s, a: selection_variant(h, s, a, count="float"),
                "this limits the harm of the layers in float; what counts is that of those still quantized.",
            ),
            Mistake(
                lambda h, s, a: [i for i in range(len(h)) if i not in select_layers(h, s, a)],
                "these are the layers that stay quantized; return the others.",
            ),
        ],
    )
