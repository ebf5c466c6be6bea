"""Exercises of notebook 11 (quantization-aware training): fake_quant, insert_qdq."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from yolonas_lab.teaching.exercises import Case, CheckFailed, Exercise, Exercises

Node = tuple[str, str, list[str]]  # the tensor it writes, its operation, the tensors it reads


def fake_quant(x: Tensor, scale: float, low: int, high: int) -> Tensor:
    steps = (x / scale).clamp(low - 0.5, high + 0.5)  # its gradient is 0 outside; ±0.5: what rounds to low or high
    whole = (x / scale).round().clamp(low, high)
    return scale * (steps + (whole - steps).detach())


def insert_qdq(nodes: list[Node]) -> list[set[str]]:
    wanted = {tensor for _, op, inputs in nodes if op == "conv" for tensor in inputs}
    for output, op, inputs in reversed(nodes):
        if output in wanted and op in ("add", "concat", "maxpool"):
            wanted |= set(inputs)
    groups = [{tensor} for tensor in wanted]
    for output, op, inputs in nodes:
        if output in wanted and op in ("concat", "maxpool"):
            together = {output, *inputs}
            touched = [group for group in groups if group & together]
            groups = [group for group in groups if not group & together] + [set().union(*touched)]
    return groups


def _with_gradient(fn: Callable[..., Any]) -> Callable[..., Any]:
    """fn's values, and the gradient of their weighted sum (weights 1, 2, 3, …)."""

    def fake_quant_and_gradient(x: Tensor, scale: float, low: int, high: int) -> Any:
        leaf = x.clone().requires_grad_()
        y = fn(leaf, scale, low, high)
        if not isinstance(y, Tensor):
            return y
        if not y.requires_grad:
            raise CheckFailed("no gradient comes back at all: is everything in .detach() or no_grad()?")
        weights = torch.arange(1.0, y.numel() + 1).view_as(y)
        return y.detach(), torch.autograd.grad((y * weights).sum(), leaf)[0] / weights

    return fake_quant_and_gradient


def _in_order(fn: Callable[..., Any]) -> Callable[..., Any]:
    """fn's groups as a sorted list of sorted lists: neither list nor sets have an order."""

    def insert_qdq_in_order(nodes: list[Node]) -> Any:
        groups = fn(nodes)
        return groups if groups is None or groups is ... else sorted(sorted(group) for group in groups)

    return insert_qdq_in_order


def nodes_of(text: str) -> list[Node]:
    """The nodes of a graph written as "c1 = conv image; a = relu c1; …"."""
    parts = [node.split() for node in text.split(";")]
    return [(output, op, inputs) for output, _, op, *inputs in parts]


TWO_CONVS = "c1 = conv image; a = relu c1; c2 = conv a; b = relu c2; "
GRAPHS = {
    "a chain with a float tail": TWO_CONVS + "boxes = predict b; p = softmax boxes",
    "a residual sum": TWO_CONVS + "skip = mul a; sum = add skip b; c3 = conv sum; d = relu c3; scores = predict d",
    "a concatenation": TWO_CONVS + "both = concat a b; c3 = conv both; d = relu c3; scores = predict d",
    "two poolings and a concatenation": "c1 = conv image; a = relu c1; p1 = maxpool a; p2 = maxpool p1; "
    "all = concat a p1 p2; c2 = conv all; b = relu c2; scores = predict b",
    "a sum that is pooled, then concatenated": TWO_CONVS + "skip = mul a; sum = add skip b; pooled = maxpool sum; "
    "c3 = conv a; d = relu c3; both = concat pooled d; c4 = conv both; e = relu c4; scores = predict e",
    "two concatenations with a common input, and one in the tail": TWO_CONVS + "ab = concat a b; c3 = conv ab; "
    "d = relu c3; bd = concat d b; c4 = conv bd; e = relu c4; boxes = predict e; scores = predict e; "
    "out = concat boxes scores",
}

EXERCISES = Exercises(
    Exercise(
        fake_quant,
        hints=(
            "Write the value first, without a thought for the gradient: divide, round, clamp to low … high, multiply.",
            "x + (q - x).detach() has the value of q and the gradient of x. That is already right inside the grid; "
            "outside, the gradient must be 0. torch.clamp has this gradient by itself.",
            "Let the part that carries the gradient be a clamped x / scale. Which x / scale still round to `high`? "
            "All up to high + 0.5; so clamp to low - 0.5 … high + 0.5, and put the value on top in a .detach().",
        ),
        cases=[
            Case((torch.tensor([0.1, 0.37, -0.6]), 0.25, -8, 7), "inside the grid"),
            Case((torch.tensor([-9.0, -0.4, 0.4, 9.0]), 0.25, -8, 7), "beyond both ends"),
            Case((torch.tensor([1.8, 1.82, -2.1]), 0.25, -8, 7), "beyond the highest step, yet it rounds to it"),
            Case((torch.tensor([-0.3, 0.2, 0.71, 2.0]), 0.2, 0, 7), "integers from 0"),
            Case((torch.tensor([-3.3, -1.0, 0.8, 2.2, 2.6]), 0.7, -4, 3), "a step of its own, 3 bits"),
        ],
        probe=_with_gradient,
        mistakes={
            "(steps + (whole - steps).detach()) -> whole": "the gradient is lost in round(), whose slope is 0: put the "
            "rounding in a .detach().",
            ".clamp(low - 0.5, high + 0.5) ->": "the gradient is 1 outside the grid too; there the value no longer "
            "depends on x, so it must be 0.",
            (".clamp(low - 0.5, high + 0.5) ->", ".clamp(low, high) ->"): "the integers leave low … high: clamp them.",
            ".clamp(low - 0.5, high + 0.5) -> .clamp(low, high)": "an x a little beyond the last step still rounds to "
            "it; the gradient ends half a step later.",
            "return scale * -> return ": "these are integers: multiply by scale to come back to x's own units.",
            "scale * (steps + (whole - steps).detach()) -> steps + (scale * whole - steps).detach()": "the gradient is "
            "multiplied by 1 / scale: the formula must go back to x's own units.",
            ".round() -> .floor()": "this rounds down; take the nearest integer.",
        },
    ),
    Exercise(
        insert_qdq,
        hints=(
            "First collect which tensors are quantized, then which of them share. What every 'conv' reads is the "
            "start.",
            "Go through the nodes backwards: where the output of an add, a concat or a maxpool is quantized, its "
            "inputs are as well. A relu needs nothing: its output is what the convolution after it reads.",
            "Begin with one set per tensor. For each concat and maxpool whose output is quantized, replace all sets "
            "that touch its inputs or its output by their union. An add joins nothing.",
        ),
        cases=[Case((nodes_of(text),), about) for about, text in GRAPHS.items()],
        probe=_in_order,
        mistakes={
            'op == "conv" -> op in ("conv", "predict")': "what only a prediction convolution reads stays in float, and "
            "so does all that follows.",
            "return groups -> relu = {output: inputs[0] for output, op, inputs in nodes if op == 'relu'}; "
            "return [{relu.get(tensor, tensor) for tensor in group} for group in groups]": "nothing may come "
            "between a convolution and its ReLU: quantize after the ReLU.",
            "return groups -> return [group for group in groups if group != {'image'}]": "the image is read by a "
            "convolution too: quantize it.",
            '"add", "concat" -> "concat"': "the sum is quantized, but not what goes into it: both inputs of an add are "
            "quantized too, the skip as well.",
            "groups = [{tensor} -> return [{tensor}": "all inputs of a concatenation, and its output, need one common "
            "scale; so do a maxpool's input and output.",
            '("concat" -> ("add", "concat"': "an add computes with real numbers, so its two inputs may have scales of "
            "their own.",
            "reversed(nodes) -> nodes": "go backwards, from the readers to the image: what is quantized because of a "
            "concatenation may itself be a pooling or a sum, whose inputs are then quantized too.",
            "not group & together] + [set().union(*touched)] -> not group <= together] + [together]": "groups that "
            "touch must become one: two concatenations with a common input share one scale.",
            "for tensor in inputs} -> for tensor in inputs} | {output for output, op, _ in nodes if op == 'concat'}": (
                "a concatenation in the float tail needs no quantizers."
            ),
        },
    ),
)
hint, solution = EXERCISES.hint, EXERCISES.solution
check_fake_quant, check_insert_qdq = EXERCISES["fake_quant"].check, EXERCISES["insert_qdq"].check
