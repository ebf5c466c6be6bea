"""Exercises of notebook 12 (ONNX): export_check, to_input, read_qdq."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from yolonas_lab.teaching.exercises import Case, Exercise, Exercises


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


def _export_cases() -> list[Case]:
    a, nan = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 2.0], [3.0, torch.nan]])
    hundred = torch.zeros(100, 4)
    return [
        Case((a, a.clone(), 0.01), "equal"),
        Case((a, a + 0.5, 0.01), "all too large by 0.5"),
        Case((a, a - 0.5, 0.01), "all too small by 0.5"),
        Case((hundred, hundred.index_fill(0, torch.tensor([7]), 0.02), 0.01), "one box of 100 is off"),
        Case((torch.ones(4, 4), torch.ones(4, 1), 0.01), "another shape"),
        Case((a, nan, 0.01), "NaN in the exported answer"),
    ]


def _pixel_cases() -> list[Case]:
    rng = np.random.default_rng(0)
    shapes = [((2, 2), 2, "fits exactly"), ((1, 3), 3, "wide"), ((8, 5), 8, "tall, random")]
    return [Case((rng.integers(0, 256, (*hw, 3), dtype=np.uint8), size), about) for hw, size, about in shapes]


DQ_WEIGHT = Node("DequantizeLinear", "dq_weight", ("w_int8", "ws", "wz"), "w")


def _chain(activation: bool, weight: bool, between: str = "") -> tuple[list[Node]]:
    """images -> Q, DQ -> between -> conv, with or without Q/DQ on each input."""
    nodes, tensor = [], "images"
    if activation:
        nodes.append(Node("QuantizeLinear", "q", ("images", "s", "z"), "q"))
        nodes.append(Node("DequantizeLinear", "dq", ("q", "s", "z"), "x"))
        tensor = "x"
    if between:
        nodes.append(Node(between, "between", (tensor,), "moved"))
        tensor = "moved"
    conv = Node("Conv", "conv", (tensor, "w" if weight else "w_float", "b"), "y")
    return ([*nodes, DQ_WEIGHT, conv] if weight else [*nodes, conv],)


def _concat(second: Node) -> tuple[list[Node]]:
    first = Node("DequantizeLinear", "dq_1", ("q1", "s", "z"), "x1")
    ends = Node("Concat", "concat", ("x1", "x2"), "x"), DQ_WEIGHT, Node("Conv", "conv", ("x", "w", "b"), "y")
    return ([first, second, *ends],)


EXERCISES = Exercises(
    Exercise(
        export_check,
        hints=(
            "Which differences are bad: those above zero, or those far from zero? And must one be bad, or their mean?",
            "torch subtracts a (4, 1) from a (4, 4) tensor without complaint: compare the shapes first.",
            "NaN > tolerance is False, so 'nothing is too large' lets NaN pass. Ask the other way round: are all "
            "absolute differences <= tolerance?",
        ),
        cases=_export_cases,
        mistakes={
            "(reference - exported).abs() -> (exported - reference)": "differences below zero are differences too: "
            "take absolute values.",
            "(reference - exported).abs() -> (reference - exported)": "differences below zero are differences too: "
            "take absolute values, whichever is subtracted.",
            ".abs() <= tolerance).all() -> .abs().mean() <= tolerance)": "a mean hides the one box that is wrong: look "
            "at the largest difference.",
            "reference.shape != exported.shape -> False": "shapes are not compared: broadcasting makes any difference "
            "of shapes disappear.",
            "((reference - exported).abs() <= tolerance).all() -> "
            "not ((reference - exported).abs() > tolerance).any()": "NaN passes: a comparison with NaN is False, so "
            "ask whether all are within the tolerance.",
        },
    ),
    Exercise(
        to_input,
        hints=(
            "Four things are left to do: the order of colors, the border, the order of axes, and the range of the "
            "numbers.",
            "Fill a (size, size, 3) uint8 array with 114 and copy the image into its middle; the first row is "
            "(size - h) // 2. pixels[:, :, ::-1] swaps blue and red.",
            "torch.from_numpy(canvas).permute(2, 0, 1)[None].float() / 255 comes last.",
        ),
        cases=_pixel_cases,
        mistakes={
            "[:, :, ::-1] ->": "blue and red are swapped: the camera gives BGR, the network wants RGB.",
            " / 255 ->": "the numbers still run to 255: divide.",
            "(size - h) // 2, (size - w) // 2 -> 0, 0": "the image belongs in the middle, not in the upper left "
            "corner.",
            "114 -> 0": "the border is gray, 114 of 255, not 0.",
            ".permute(2, 0, 1) ->": "channels come first: (1, 3, size, size).",
            "[None] ->": "the batch axis is missing: (1, 3, size, size).",
        },
    ),
    Exercise(
        read_qdq,
        hints=(
            "Make a dictionary from each tensor's name to the node that made it; then you can walk back along the "
            "arrows.",
            "A convolution reads (activation, weight, bias). It can run in INT8 if the first two come from a "
            "DequantizeLinear.",
            "Write a function is_dequantized(tensor): True behind DequantizeLinear; behind Concat and MaxPool, ask the "
            "same of all inputs; else False. Tensors that no node made, such as float weights, are not dequantized.",
        ),
        cases=[
            Case(_chain(False, False), "a float graph", []),
            Case(_chain(True, True), "both inputs dequantized", ["conv"]),
            Case(_chain(True, False), "only the activation is", []),
            Case(_chain(False, True), "only the weight is", []),
            Case(_chain(True, True, "MaxPool"), "MaxPool in between", ["conv"]),
            Case(_chain(True, True, "Relu"), "Relu in between: computed in float", []),
            Case(
                _concat(Node("DequantizeLinear", "dq_2", ("q2", "s", "z"), "x2")),
                "Concat of two dequantized tensors",
                ["conv"],
            ),
            Case(_concat(Node("Relu", "dq_2", ("r",), "x2")), "Concat with one float tensor", []),
        ],
        mistakes={
            " and is_dequantized(n.inputs[0]) and is_dequantized(n.inputs[1]) ->": "not every convolution: look at its "
            "inputs.",
            " and is_dequantized(n.inputs[1]) ->": "the weight must be dequantized too.",
            " and is_dequantized(n.inputs[0]) ->": "the activation must be dequantized too.",
            '("Concat", "MaxPool") -> ()': "look through MaxPool and Concat, which only move numbers around.",
            '"MaxPool") -> "MaxPool", "Relu")': "Relu computes: don't look through it.",
            "all(is_dequantized(t) for t in node.inputs) -> is_dequantized(node.inputs[0])": "all inputs of a Concat "
            "must be dequantized.",
        },
    ),
)
hint, solution = EXERCISES.hint, EXERCISES.solution
check_export_check, check_to_input = EXERCISES["export_check"].check, EXERCISES["to_input"].check
check_read_qdq = EXERCISES["read_qdq"].check
