import numpy as np
import torch

from yolonas_lab.teaching.checks.nb12 import read_qdq, to_input


def to_input_with_torch(pixels, size):
    h, w, _ = pixels.shape
    canvas = torch.full((1, 3, size, size), 114.0)
    top, left = (size - h) // 2, (size - w) // 2
    canvas[0, :, top : top + h, left : left + w] = torch.tensor(pixels).movedim(2, 0).flip(0)
    return canvas / 255


def read_forwards(nodes, through=("Concat", "MaxPool"), needs=2, of_a_concat=all):
    dequantized, found = set(), []
    for node in nodes:
        if node.op == "DequantizeLinear" or (
            node.op in through and of_a_concat(tensor in dequantized for tensor in node.inputs)
        ):
            dequantized.add(node.output)
        if node.op == "Conv" and dequantized.issuperset(node.inputs[:needs]):
            found.append(node.name)
    return found


def colleague(pixels, size):
    """The function with five mistakes that the notebook shows."""
    canvas = np.zeros((size, size, 3), np.float32)
    canvas[: pixels.shape[0], : pixels.shape[1]] = pixels
    return torch.from_numpy(canvas).reshape(1, 3, size, size)


RIGHT = [
    ("export_check", lambda x, y, t: x.shape == y.shape and torch.allclose(x, y, rtol=0, atol=t)),
    ("to_input", to_input_with_torch),
    ("read_qdq", read_forwards),
]
WRONG = [
    ("export_check", lambda x, y, t: x.shape == y.shape and bool(((y - x) <= t).all()), "below zero"),
    ("export_check", lambda x, y, t: torch.allclose(x, y, rtol=0, atol=t), "shapes are not compared"),
    ("export_check", lambda x, y, t: x.shape == y.shape and not bool((x - y).abs().gt(t).sum()), "NaN passes"),
    ("export_check", lambda x, y, t: x.shape == y.shape, "differs"),
    ("to_input", lambda p, s: to_input_with_torch(p[:, :, ::-1].copy(), s), "blue and red"),
    ("to_input", lambda p, s: to_input_with_torch(p, s).mul(255), "run to 255"),
    ("to_input", lambda p, s: to_input(p, s).movedim(1, 3), "channels come first"),
    ("to_input", colleague, "differ"),
    ("read_qdq", lambda nodes: [n.name for n in nodes if n.op == "Conv"], "not every convolution"),
    ("read_qdq", lambda nodes: read_forwards(nodes, needs=1), "weight must be dequantized"),
    ("read_qdq", lambda nodes: read_forwards(nodes, through=()), "look through MaxPool and Concat"),
    ("read_qdq", lambda nodes: read_forwards(nodes, ("Concat", "MaxPool", "Relu")), "Relu computes"),
    ("read_qdq", lambda nodes: read_forwards(nodes, of_a_concat=any), "all inputs of a Concat"),
    ("read_qdq", lambda nodes: [n for n in nodes if n.name in read_qdq(nodes)], "expected"),
]
