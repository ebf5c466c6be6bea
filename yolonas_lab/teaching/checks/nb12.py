"""Exercises of notebook 12 (ONNX): export_check, to_input, read_qdq."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from yolonas_lab.teaching.exercises import Case, Mistake, check_cases, show_hint, show_solution


class Node(NamedTuple):
    """A node of an ONNX graph, as read_qdq gets it: operator, name, names of what it reads, name of what it makes."""

    op: str
    name: str
    inputs: tuple[str, ...]
    output: str


def export_check(reference: Tensor, exported: Tensor, tolerance: float) -> bool:
    if reference.shape != exported.shape:
        return False
    return bool(((reference - exported).abs() <= tolerance).all())  # a comparison with NaN is False


def to_input(pixels: np.ndarray, size: int) -> Tensor:
    h, w, _ = pixels.shape
    canvas = np.full((size, size, 3), 114, dtype=np.uint8)
    top, left = (size - h) // 2, (size - w) // 2
    canvas[top : top + h, left : left + w] = pixels[:, :, ::-1]  # BGR to RGB
    return torch.from_numpy(canvas).permute(2, 0, 1)[None].float() / 255  # (1, 3, size, size)


def read_qdq(nodes: list[Node]) -> list[str]:
    made_by = {node.output: node for node in nodes}

    def is_dequantized(tensor):
        node = made_by.get(tensor)
        if node is None:
            return False
        if node.op in ("Concat", "MaxPool"):  # they move numbers, but do not change them
            return all(is_dequantized(t) for t in node.inputs)
        return node.op == "DequantizeLinear"

    return [n.name for n in nodes if n.op == "Conv" and is_dequantized(n.inputs[0]) and is_dequantized(n.inputs[1])]


SOLUTIONS = {"export_check": export_check, "to_input": to_input, "read_qdq": read_qdq}
HINTS = {
    "export_check": (
        "Which differences are bad: those above zero, or those far from zero? And must one be bad, or their mean?",
        "torch subtracts a (4, 1) from a (4, 4) tensor without complaint: compare the shapes first.",
        "NaN > tolerance is False, so 'nothing is too large' lets NaN pass. Ask the other way round: are all "
        "absolute differences <= tolerance?",
    ),
    "to_input": (
        "Four things are left to do: the order of colors, the border, the order of axes, and the range of the numbers.",
        "Fill a (size, size, 3) uint8 array with 114 and copy the image into its middle; the first row is "
        "(size - h) // 2. pixels[:, :, ::-1] swaps blue and red.",
        "torch.from_numpy(canvas).permute(2, 0, 1)[None].float() / 255 comes last.",
    ),
    "read_qdq": (
        "Make a dictionary from each tensor's name to the node that made it; then you can walk back along the arrows.",
        "A convolution reads (activation, weight, bias). It can run in INT8 if the first two come from a "
        "DequantizeLinear.",
        "Write a function is_dequantized(tensor): True behind DequantizeLinear; behind Concat and MaxPool, ask the "
        "same of all inputs; else False. Tensors that no node made, such as float weights, are not dequantized.",
    ),
}


def hint(name: str, level: int = 1) -> None:
    """Print a hint for an exercise of this notebook; level 1 is the gentlest."""
    show_hint(HINTS, name, level)


def solution(name: str) -> None:
    """Print the reference solution of an exercise of this notebook."""
    show_solution(SOLUTIONS, name)


def check_export_check(fn) -> None:
    """Check export_check(reference, exported, tolerance) -> bool."""
    a = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    nan = torch.tensor([[1.0, 2.0], [3.0, torch.nan]])
    pairs = [
        (a, a.clone(), "equal"),
        (a, a + 0.5, "all too large by 0.5"),
        (a, a - 0.5, "all too small by 0.5"),
        (torch.zeros(100, 4), torch.zeros(100, 4).index_fill(0, torch.tensor([7]), 0.02), "one box of 100 is off"),
        (torch.ones(4, 4), torch.ones(4, 1), "another shape"),
        (a, nan, "NaN in the exported answer"),
    ]
    cases = [Case((x, y, 0.01), export_check(x, y, 0.01), about) for x, y, about in pairs]
    says = {
        "differences below zero are differences too: take absolute values.": lambda x, y, t: bool(
            ((y - x) <= t).all() & (x.shape == y.shape)
        ),
        "differences below zero are differences too: take absolute values, whichever is subtracted.": lambda x, y, t: (
            bool(((x - y) <= t).all() & (x.shape == y.shape))
        ),
        "a mean hides the one box that is wrong: look at the largest difference.": lambda x, y, t: bool(
            (x - y).abs().mean() <= t
        ),
        "shapes are not compared: broadcasting makes any difference of shapes disappear.": lambda x, y, t: bool(
            ((x - y).abs() <= t).all()
        ),
        "NaN passes: a comparison with NaN is False, so ask whether all are within the tolerance.": lambda x, y, t: (
            x.shape == y.shape and not bool(((x - y).abs() > t).any())
        ),
    }
    check_cases("export_check", fn, cases, [Mistake(wrong, words) for words, wrong in says.items()])


def check_to_input(fn) -> None:
    """Check to_input(pixels, size) -> (1, 3, size, size)."""
    rng = np.random.default_rng(0)
    cases = []
    for (h, w), size, about in [((2, 2), 2, "fits exactly"), ((1, 3), 3, "wide"), ((8, 5), 8, "tall, random")]:
        pixels = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
        cases.append(Case((pixels, size), to_input(pixels, size), about))
    check_cases(
        "to_input",
        fn,
        cases,
        [
            Mistake(
                lambda p, s: to_input(p[:, :, ::-1], s),
                "blue and red are swapped: the camera gives BGR, the network wants RGB.",
            ),
            Mistake(lambda p, s: to_input(p, s) * 255, "the numbers still run to 255: divide."),
            Mistake(lambda p, s: _cornered(p, s), "the image belongs in the middle, not in the upper left corner."),
            Mistake(
                lambda p, s: torch.where(_border(p, s), 0.0, to_input(p, s)), "the border is gray, 114 of 255, not 0."
            ),
            Mistake(lambda p, s: to_input(p, s).permute(0, 2, 3, 1), "channels come first: (1, 3, size, size)."),
            Mistake(lambda p, s: to_input(p, s)[0], "the batch axis is missing: (1, 3, size, size)."),
        ],
    )


def _cornered(pixels: np.ndarray, size: int) -> Tensor:
    h, w, _ = pixels.shape
    canvas = torch.full((1, 3, size, size), 114 / 255)
    canvas[0, :, :h, :w] = torch.from_numpy(pixels[:, :, ::-1].copy()).permute(2, 0, 1) / 255
    return canvas


def _border(pixels: np.ndarray, size: int) -> Tensor:
    """True (1, 3, size, size) where the image is not."""
    black, white = to_input(np.zeros_like(pixels), size), to_input(np.full_like(pixels, 255), size)
    return black == white


def check_read_qdq(fn) -> None:
    """Check read_qdq(nodes) -> names of the convolutions whose activation and weight are dequantized."""
    cases = [
        Case((_chain(False, False),), [], "a float graph"),
        Case((_chain(True, True),), ["conv"], "both inputs dequantized"),
        Case((_chain(True, False),), [], "only the activation is"),
        Case((_chain(False, True),), [], "only the weight is"),
        Case((_chain(True, True, "MaxPool"),), ["conv"], "MaxPool in between"),
        Case((_chain(True, True, "Relu"),), [], "Relu in between: computed in float"),
        Case((_concat(True),), ["conv"], "Concat of two dequantized tensors"),
        Case((_concat(False),), [], "Concat with one float tensor"),
    ]
    check_cases(
        "read_qdq",
        fn,
        cases,
        [
            Mistake(lambda n: [x.name for x in n if x.op == "Conv"], "not every convolution: look at its inputs."),
            Mistake(lambda n: _direct(n, (0,), ()), "the weight must be dequantized too."),
            Mistake(lambda n: _direct(n, (1,), ()), "the activation must be dequantized too."),
            Mistake(
                lambda n: _direct(n, (0, 1), ()), "look through MaxPool and Concat, which only move numbers around."
            ),
            Mistake(
                lambda n: _direct(n, (0, 1), ("Concat", "MaxPool", "Relu")), "Relu computes: don't look through it."
            ),
            Mistake(lambda n: _direct(n, (0, 1), ("Concat", "MaxPool")), "all inputs of a Concat must be dequantized."),
        ],
    )


def _direct(nodes: list[Node], wanted: tuple[int, ...], through: tuple[str, ...]) -> list[str]:
    """As read_qdq, but looking at some inputs only, through these operators and there at the first input only."""
    made_by = {node.output: node for node in nodes}

    def found(tensor: str) -> bool:
        node = made_by.get(tensor)
        while node is not None and node.op in through:
            node = made_by.get(node.inputs[0])
        return node is not None and node.op == "DequantizeLinear"

    return [n.name for n in nodes if n.op == "Conv" and all(found(n.inputs[i]) for i in wanted)]


def _chain(activation: bool, weight: bool, between: str = "") -> list[Node]:
    """images -> Q, DQ -> between -> conv, with or without Q/DQ on each input."""
    nodes, tensor = [], "images"
    if activation:
        nodes += [
            Node("QuantizeLinear", "q", ("images", "s", "z"), "q"),
            Node("DequantizeLinear", "dq", ("q", "s", "z"), "x"),
        ]
        tensor = "x"
    if between:
        nodes.append(Node(between, "between", (tensor,), "moved"))
        tensor = "moved"
    if weight:
        nodes.append(Node("DequantizeLinear", "dq_weight", ("w_int8", "ws", "wz"), "w"))
    return [*nodes, Node("Conv", "conv", (tensor, "w" if weight else "w_float", "b"), "y")]


def _concat(second: bool) -> list[Node]:
    nodes = [
        Node("DequantizeLinear", "dq_1", ("q1", "s", "z"), "x1"),
        Node("DequantizeLinear" if second else "Relu", "dq_2", ("q2", "s", "z") if second else ("r",), "x2"),
        Node("Concat", "concat", ("x1", "x2"), "x"),
        Node("DequantizeLinear", "dq_weight", ("w_int8", "ws", "wz"), "w"),
    ]
    return [*nodes, Node("Conv", "conv", ("x", "w", "b"), "y")]
