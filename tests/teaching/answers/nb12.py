import torch


def to_input_with_torch(pixels, size):
    h, w, _ = pixels.shape
    canvas = torch.full((1, 3, size, size), 114.0)
    top, left = (size - h) // 2, (size - w) // 2
    canvas[0, :, top : top + h, left : left + w] = torch.tensor(pixels).movedim(2, 0).flip(0)
    return canvas / 255


def read_forwards(nodes):
    dequantized, found = set(), []
    for node in nodes:
        moved = node.op in ("Concat", "MaxPool") and dequantized.issuperset(node.inputs)
        if moved or node.op == "DequantizeLinear":
            dequantized.add(node.output)
        if node.op == "Conv" and dequantized.issuperset(node.inputs[:2]):
            found.append(node.name)
    return found


RIGHT = [
    ("export_check", lambda x, y, t: x.shape == y.shape and torch.allclose(x, y, rtol=0, atol=t)),
    ("to_input", to_input_with_torch),
    ("read_qdq", read_forwards),
]
WRONG = [
    ("export_check", lambda x, y, t: x.shape == y.shape and bool(((y - x) <= t).all()), "below zero"),
    ("export_check", lambda x, y, t: torch.allclose(x, y, rtol=0, atol=t), "shapes are not compared"),
    ("export_check", lambda x, y, t: x.shape == y.shape and not bool((x - y).abs().gt(t).sum()), "NaN passes"),
    ("export_check", lambda x, y, t: x.shape == y.shape, "expected False"),
    ("to_input", (to_input_with_torch, ".flip(0) ->"), "blue and red"),
    ("to_input", (to_input_with_torch, "/ 255 ->"), "run to 255"),
    ("to_input", (to_input_with_torch, "return canvas -> return canvas.movedim(1, 3)"), "channels come first"),
    ("read_qdq", (read_forwards, " and dequantized.issuperset(node.inputs[:2]) ->"), "not every convolution"),
    ("read_qdq", (read_forwards, "inputs[:2] -> inputs[:1]"), "weight must be dequantized"),
    ("read_qdq", (read_forwards, "moved or ->"), "look through MaxPool and Concat"),
    ("read_qdq", (read_forwards, '"MaxPool") -> "MaxPool", "Relu")'), "Relu computes"),
    ("read_qdq", (read_forwards, "issuperset(node.inputs) -> intersection(node.inputs)"), "all inputs of a Concat"),
    ("read_qdq", (read_forwards, "node.name -> node"), "expected"),
]
