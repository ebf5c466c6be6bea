import torch

from yolonas_lab.quantization import fake_quantize
from yolonas_lab.teaching.checks.nb11 import insert_qdq


class MaskedRound(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale, low, high):
        whole = torch.round(x / scale)
        ctx.save_for_backward((whole >= low) & (whole <= high))
        return whole.clamp(low, high) * scale

    @staticmethod
    def backward(ctx, *grads):
        return grads[0] * ctx.saved_tensors[0], None, None, None


def rounded(x, scale, low, high):
    return scale * (x / scale).round().clamp(low, high)


def from_the_readers(nodes):
    """Union-find over names, by recursion from what is read."""
    writer = {output: (op, inputs) for output, op, inputs in nodes}
    parent = {}

    def root(name):
        return name if parent[name] == name else root(parent[name])

    def want(name):
        if name in parent:
            return
        parent[name] = name
        op, inputs = writer.get(name, ("image", []))
        for other in inputs if op in ("add", "concat", "maxpool") else []:
            want(other)
            if op != "add":
                parent[root(other)] = root(name)

    for _, op, inputs in nodes:
        if op == "conv":
            want(inputs[0])
    groups = {}
    for name in parent:
        groups.setdefault(root(name), []).append(name)
    return list(groups.values())  # lists do as well as sets


RIGHT = [
    ("fake_quant", lambda x, s, low, high: MaskedRound.apply(x, s, low, high)),
    ("fake_quant", lambda x, s, low, high: fake_quantize(x, torch.tensor(s), torch.tensor(0), low, high)),
    ("fake_quant", lambda x, s, low, high: torch.fake_quantize_per_tensor_affine(x, s, 0, low, high)),
    ("insert_qdq", from_the_readers),
]
WRONG = [
    ("fake_quant", rounded, "gradient is lost in round"),
    ("fake_quant", lambda x, s, low, high: x + (rounded(x, s, low, high) - x).detach(), "must be 0"),
    ("fake_quant", lambda x, s, low, high: x + (s * (x / s).round() - x).detach(), "leave low … high"),
    ("fake_quant", lambda x, s, low, high: MaskedRound.apply(x, s, low, high) / s, "multiply by scale"),
    ("fake_quant", lambda x, s, low, high: MaskedRound.apply(x - s / 2, s, low, high), "nearest integer"),
    ("fake_quant", lambda x, s, low, high: rounded(x, s, low, high).detach(), "no gradient comes back"),
    ("insert_qdq", lambda nodes: [{output} for output, op, _ in nodes if op == "conv"], "expected"),
    ("insert_qdq", (from_the_readers, 'if op == "conv" -> if op in ("conv", "predict")'), "stays in float"),
    ("insert_qdq", (from_the_readers, 'if op != "add" -> if False'), "one common scale"),
    ("insert_qdq", (from_the_readers, 'if op != "add" -> if True'), "scales of their own"),
    ("insert_qdq", lambda nodes: [*insert_qdq(nodes), {"image"}], "expected"),
]
