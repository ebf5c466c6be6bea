import torch

from yolonas_lab.quantization import LayerTime, Sensitivity, fake_quantize, float_order


def quantize_in_a_loop(x, scale, zero_point, low, high):
    integers = [min(max(round(v / scale) + zero_point, low), high) for v in x.double().tolist()]
    return torch.tensor(integers, dtype=torch.int32), torch.tensor([(i - zero_point) * scale for i in integers])


def quantize_with_the_library(x, scale, zero_point, low, high):
    restored = fake_quantize(x, torch.tensor(scale), torch.tensor(zero_point), low, high)
    return (restored / scale + zero_point).round().int(), restored


def all_scales_at_once(values, bits, shares):
    scales = torch.tensor(shares) * values.abs().max() / (2 ** (bits - 1) - 1)
    levels = (values[None] / scales[:, None]).round().clamp(1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1)
    return scales[(levels * scales[:, None] - values).square().mean(1).argmin()]


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
    ("select_layers", select_in_the_library_s_order),
]
WRONG = [
    ("quantize", (quantize_in_a_loop, "round( -> int("), "cuts the decimals off"),
    ("quantize", (quantize_in_a_loop, "round(v / scale) -> int(v // scale)"), "rounds down"),
    ("quantize", lambda x, s, z, low, high: quantize_in_a_loop(x, s, z, -999, 999), "clamp to low"),
    ("quantize", (quantize_in_a_loop, "(i - zero_point) * scale -> i"), "integers again"),
    ("choose_scale", lambda v, b, s: v.abs().max().item() / (2 ** (b - 1) - 1), "always reaches the largest"),
    ("choose_scale", (all_scales_at_once, ".clamp(1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1) ->"), "without clamping"),
    ("choose_scale", lambda v, b, s: all_scales_at_once(v.relu(), b, s), "expected"),
    ("choose_scale", lambda v, b, s: all_scales_at_once(v, b, s) * (2 ** (b - 1) - 1), "divided by the largest"),
    ("select_layers", (select_in_the_library_s_order, "1 + ms -> 1 + (ms > 0)"), "for each millisecond"),
    ("select_layers", (select_in_the_library_s_order, "order[:n] -> order[n:]"), "return the others"),
    ("select_layers", (select_in_the_library_s_order, "in order[:n] -> in order[: n + 1]"), "one layer too many"),
]
