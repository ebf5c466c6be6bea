import math

import torch

from yolonas_lab.quantization import LayerTime, Sensitivity, fake_quantize, float_order
from yolonas_lab.teaching.checks.nb10 import select_layers


def quantize_in_a_loop(x, scale, zero_point, low, high, to_whole=round):
    integers = [min(max(to_whole(v / scale) + zero_point, low), high) for v in x.double().tolist()]
    return torch.tensor(integers, dtype=torch.int32), torch.tensor([(i - zero_point) * scale for i in integers])


def quantize_with_the_library(x, scale, zero_point, low, high):
    restored = fake_quantize(x, torch.tensor(scale), torch.tensor(zero_point), low, high)
    return (restored / scale + zero_point).round().int(), restored


def all_scales_at_once(values, bits, shares, clip=True):
    top = 2 ** (bits - 1) - 1
    scales = torch.tensor(shares) * values.abs().max() / top
    levels = (values[None] / scales[:, None]).round()
    levels = levels.clamp(-top, top) if clip else levels
    return scales[(levels * scales[:, None] - values).square().mean(1).argmin()]


def select_by_worth(harm, saved_ms, allowed):
    worth = [h / s if s > 0 else float("inf") for h, s in zip(harm, saved_ms)]
    order = sorted(range(len(harm)), key=lambda i: -worth[i])
    n = sum(s <= 0 for s in saved_ms)
    while sum(harm[i] for i in order[n:]) > allowed:
        n += 1
    return sorted(order[:n])


def select_in_the_library_s_order(harm, saved_ms, allowed):
    latency = {str(i): LayerTime(1 + ms, 1.0) for i, ms in enumerate(saved_ms)}
    order = float_order(Sensitivity("exact", {str(i): h for i, h in enumerate(harm)}), latency)
    n = sum(ms <= 0 for ms in saved_ms)
    while sum(harm[int(name)] for name in order[n:]) > allowed:
        n += 1
    return sorted(int(name) for name in order[:n])


RIGHT = [
    ("quantize", quantize_in_a_loop),
    ("quantize", quantize_with_the_library),
    ("choose_scale", all_scales_at_once),
    ("select_layers", select_by_worth),
    ("select_layers", select_in_the_library_s_order),
]
WRONG = [
    ("quantize", lambda *a: quantize_in_a_loop(*a, to_whole=int), "cuts the decimals off"),
    ("quantize", lambda *a: quantize_in_a_loop(*a, to_whole=math.floor), "rounds down"),
    ("quantize", lambda x, s, z, low, high: quantize_in_a_loop(x, s, z, -999, 999), "clamp to low"),
    ("quantize", lambda *a: quantize_in_a_loop(*a)[:1] * 2, "integers again"),
    ("choose_scale", lambda v, b, s: v.abs().max().item() / (2 ** (b - 1) - 1), "always reaches the largest"),
    ("choose_scale", lambda v, b, s: all_scales_at_once(v, b, s, clip=False), "without clamping"),
    ("choose_scale", lambda v, b, s: all_scales_at_once(v.relu(), b, s), "expected"),
    ("choose_scale", lambda v, b, s: all_scales_at_once(v, b, s) * (2 ** (b - 1) - 1), "divided by the largest"),
    ("select_layers", lambda h, s, a: select_by_worth(h, [1.0 if ms > 0 else ms for ms in s], a), "each millisecond"),
    ("select_layers", lambda h, s, a: [i for i in range(len(h)) if i not in select_by_worth(h, s, a)], "the others"),
    ("select_layers", lambda h, s, a: select_layers(h, s, a)[::-1], "expected"),
]
