"""Random cases and plausible wrong answers for the exercises of notebook 10."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


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
