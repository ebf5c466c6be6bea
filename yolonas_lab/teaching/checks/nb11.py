"""Exercises of notebook 11 (quantization-aware training): fake_quant, insert_qdq."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from yolonas_lab.teaching.exercises import Case, CheckFailed, Mistake, check_cases, show_hint, show_solution

# Small graphs for the exercise insert_qdq of notebook 11, as nodes (output, operation, inputs).

Node = tuple[str, str, list[str]]  # the tensor it writes, its operation, the tensors it reads

CHAIN: list[Node] = [
    ("c1", "conv", ["image"]),
    ("a", "relu", ["c1"]),
    ("c2", "conv", ["a"]),
    ("b", "relu", ["c2"]),
    ("boxes", "predict", ["b"]),
    ("p", "softmax", ["boxes"]),
]
RESIDUAL: list[Node] = [
    ("c1", "conv", ["image"]),
    ("a", "relu", ["c1"]),
    ("c2", "conv", ["a"]),
    ("b", "relu", ["c2"]),
    ("skip", "mul", ["a"]),
    ("sum", "add", ["skip", "b"]),
    ("c3", "conv", ["sum"]),
    ("d", "relu", ["c3"]),
    ("scores", "predict", ["d"]),
]
CONCAT: list[Node] = [
    ("c1", "conv", ["image"]),
    ("a", "relu", ["c1"]),
    ("c2", "conv", ["a"]),
    ("b", "relu", ["c2"]),
    ("both", "concat", ["a", "b"]),
    ("c3", "conv", ["both"]),
    ("d", "relu", ["c3"]),
    ("scores", "predict", ["d"]),
]
POOLS: list[Node] = [
    ("c1", "conv", ["image"]),
    ("a", "relu", ["c1"]),
    ("p1", "maxpool", ["a"]),
    ("p2", "maxpool", ["p1"]),
    ("all", "concat", ["a", "p1", "p2"]),
    ("c2", "conv", ["all"]),
    ("b", "relu", ["c2"]),
    ("scores", "predict", ["b"]),
]
TWO_CONCATS: list[Node] = [
    ("c1", "conv", ["image"]),
    ("a", "relu", ["c1"]),
    ("c2", "conv", ["a"]),
    ("b", "relu", ["c2"]),
    ("ab", "concat", ["a", "b"]),
    ("c3", "conv", ["ab"]),
    ("d", "relu", ["c3"]),
    ("bd", "concat", ["d", "b"]),
    ("c4", "conv", ["bd"]),
    ("e", "relu", ["c4"]),
    ("boxes", "predict", ["e"]),
    ("scores", "predict", ["e"]),
    ("out", "concat", ["boxes", "scores"]),
]
NESTED: list[Node] = [
    ("c1", "conv", ["image"]),
    ("a", "relu", ["c1"]),
    ("c2", "conv", ["a"]),
    ("b", "relu", ["c2"]),
    ("skip", "mul", ["a"]),
    ("sum", "add", ["skip", "b"]),
    ("pooled", "maxpool", ["sum"]),
    ("c3", "conv", ["a"]),
    ("d", "relu", ["c3"]),
    ("both", "concat", ["pooled", "d"]),
    ("c4", "conv", ["both"]),
    ("e", "relu", ["c4"]),
    ("scores", "predict", ["e"]),
]


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


SOLUTIONS: dict[str, Callable[..., Any]] = {"fake_quant": fake_quant, "insert_qdq": insert_qdq}
HINTS = {
    "fake_quant": (
        "Write the value first, without a thought for the gradient: divide, round, clamp to low … high, multiply.",
        "x + (q - x).detach() has the value of q and the gradient of x. That is already right inside the grid; "
        "outside, the gradient must be 0. torch.clamp has this gradient by itself.",
        "Let the part that carries the gradient be a clamped x / scale. Which x / scale still round to `high`? "
        "All up to high + 0.5; so clamp to low - 0.5 … high + 0.5, and put the value on top in a .detach().",
    ),
    "insert_qdq": (
        "First collect which tensors are quantized, then which of them share. What every 'conv' reads is the start.",
        "Go through the nodes backwards: where the output of an add, a concat or a maxpool is quantized, its inputs "
        "are as well. A relu needs nothing: its output is what the convolution after it reads.",
        "Begin with one set per tensor. For each concat and maxpool whose output is quantized, replace all sets that "
        "touch its inputs or its output by their union. An add joins nothing.",
    ),
}


def hint(name: str, level: int = 1) -> None:
    """Print a hint for an exercise of this notebook; level 1 is the gentlest."""
    show_hint(HINTS, name, level)


def solution(name: str) -> None:
    """Print the reference solution of an exercise of this notebook."""
    show_solution(SOLUTIONS, name)


def check_fake_quant(fn) -> None:
    """Check fake_quant(x, scale, low, high) -> tensor like x, values and gradient."""
    settings = {
        "inside the grid": ([0.1, 0.37, -0.6], 0.25, -8, 7),
        "beyond both ends": ([-9.0, -0.4, 0.4, 9.0], 0.25, -8, 7),
        "beyond the highest step, yet it rounds to it": ([1.8, 1.82, -2.1], 0.25, -8, 7),
        "integers from 0": ([-0.3, 0.2, 0.71, 2.0], 0.2, 0, 7),
        "a step of its own, 3 bits": ([-3.3, -1.0, 0.8, 2.2, 2.6], 0.7, -4, 3),
    }
    cases = [
        Case((torch.tensor(x), scale, low, high), _with_gradient(fake_quant)(torch.tensor(x), scale, low, high), about)
        for about, (x, scale, low, high) in settings.items()
    ]
    wrong = {
        _plain_round: "the gradient is lost in round(), whose slope is 0: put the rounding in a .detach().",
        _everywhere: "the gradient is 1 outside the grid too; there the value no longer depends on x, so it must be 0.",
        _without_clamp: "the integers leave low … high: clamp them.",
        _early_edge: "an x a little beyond the last step still rounds to it; the gradient ends half a step later.",
        _not_back: "these are integers: multiply by scale to come back to x's own units.",
        _scaled_gradient: "the gradient is multiplied by 1 / scale: the formula must go back to x's own units.",
        _floor: "this rounds down; take the nearest integer.",
    }
    mistakes = [Mistake(_with_gradient(function), says) for function, says in wrong.items()]
    check_cases("fake_quant", _with_gradient(fn), cases, mistakes)


def _with_gradient(fn: Callable[..., Any]) -> Callable[..., Any]:
    """fn's values, and the gradient of their weighted sum (weights 1, 2, 3, …)."""

    def fake_quant_and_gradient(x: Tensor, scale: float, low: int, high: int) -> Any:
        leaf = x.clone().requires_grad_()
        y = fn(leaf, scale, low, high)
        if not isinstance(y, Tensor):
            return y
        if not y.requires_grad:
            raise CheckFailed("fake_quant: no gradient comes back at all: is everything in .detach() or no_grad()?")
        weights = torch.arange(1.0, y.numel() + 1).view_as(y)
        return y.detach(), torch.autograd.grad((y * weights).sum(), leaf)[0] / weights

    return fake_quant_and_gradient


def _plain_round(x: Tensor, scale: float, low: int, high: int) -> Tensor:
    return scale * (x / scale).round().clamp(low, high)


def _everywhere(x: Tensor, scale: float, low: int, high: int) -> Tensor:
    return x + (_plain_round(x, scale, low, high) - x).detach()


def _without_clamp(x: Tensor, scale: float, low: int, high: int) -> Tensor:
    return x + (scale * (x / scale).round() - x).detach()


def _early_edge(x: Tensor, scale: float, low: int, high: int) -> Tensor:
    steps = (x / scale).clamp(low, high)
    return scale * (steps + (steps.round() - steps).detach())


def _not_back(x: Tensor, scale: float, low: int, high: int) -> Tensor:
    return fake_quant(x, scale, low, high) / scale


def _scaled_gradient(x: Tensor, scale: float, low: int, high: int) -> Tensor:
    y = fake_quant(x, scale, low, high) / scale
    return y + (_plain_round(x, scale, low, high) - y).detach()


def _floor(x: Tensor, scale: float, low: int, high: int) -> Tensor:
    inside = (x / scale).clamp(low - 0.5, high + 0.5)
    return scale * (inside + ((x / scale).floor().clamp(low, high) - inside).detach())


def check_insert_qdq(fn) -> None:
    """Check insert_qdq(nodes) -> list of sets of tensor names; neither list nor sets have an order."""
    graphs = {
        "a chain with a float tail": CHAIN,
        "a residual sum": RESIDUAL,
        "a concatenation": CONCAT,
        "two poolings and a concatenation": POOLS,
        "a sum that is pooled, then concatenated": NESTED,
        "two concatenations with a common input, and one in the tail": TWO_CONCATS,
    }
    cases = [Case((nodes,), _in_order(insert_qdq)(nodes), about) for about, nodes in graphs.items()]
    wrong = {
        _with_tail: "what only a prediction convolution reads stays in float, and so does all that follows.",
        _before_relu: "nothing may come between a convolution and its ReLU: quantize after the ReLU.",
        _without_image: "the image is read by a convolution too: quantize it.",
        _without_inner: "the sum is quantized, but not what goes into it: both inputs of an add are quantized too, the "
        "skip as well.",
        _nothing_shared: "all inputs of a concatenation, and its output, need one common scale; so do a maxpool's "
        "input and output.",
        _adds_join: "an add computes with real numbers, so its two inputs may have scales of their own.",
        _one_step_back: "go backwards, from the readers to the image: what is quantized because of a concatenation may "
        "itself be a pooling or a sum, whose inputs are then quantized too.",
        _joined_once: "groups that touch must become one: two concatenations with a common input share one scale.",
        _every_concat: "a concatenation in the float tail needs no quantizers.",
    }
    mistakes = [Mistake(_in_order(function), says) for function, says in wrong.items()]
    check_cases("insert_qdq", _in_order(fn), cases, mistakes)


def _in_order(fn: Callable[..., Any]) -> Callable[..., Any]:
    """fn's groups as a sorted list of sorted lists."""

    def insert_qdq_in_order(nodes: list[Node]) -> Any:
        groups = fn(nodes)
        if groups is None or groups is ...:
            return groups
        return sorted(sorted(group) for group in groups)

    return insert_qdq_in_order


def _with_tail(nodes: list[Node]) -> list[set[str]]:
    return insert_qdq([(output, "conv" if op == "predict" else op, inputs) for output, op, inputs in nodes])


def _before_relu(nodes: list[Node]) -> list[set[str]]:
    source = {output: inputs[0] for output, op, inputs in nodes if op == "relu"}
    return [{source.get(tensor, tensor) for tensor in group} for group in insert_qdq(nodes)]


def _without_image(nodes: list[Node]) -> list[set[str]]:
    return [group for group in insert_qdq(nodes) if group != {"image"}]


def _without_inner(nodes: list[Node]) -> list[set[str]]:
    return insert_qdq([(output, "mul" if op == "add" else op, inputs) for output, op, inputs in nodes])


def _nothing_shared(nodes: list[Node]) -> list[set[str]]:
    return [{tensor} for group in insert_qdq(nodes) for tensor in group]


def _adds_join(nodes: list[Node]) -> list[set[str]]:
    return insert_qdq([(output, "concat" if op == "add" else op, inputs) for output, op, inputs in nodes])


def _one_step_back(nodes: list[Node]) -> list[set[str]]:
    wanted = {tensor for _, op, inputs in nodes if op == "conv" for tensor in inputs}
    for output, op, inputs in nodes:
        if output in wanted and op in ("add", "concat", "maxpool"):
            wanted |= set(inputs)
    return [group & wanted for group in insert_qdq(nodes) if group & wanted]


def _joined_once(nodes: list[Node]) -> list[set[str]]:
    wanted = set().union(*insert_qdq(nodes))
    groups = [{o, *i} for o, op, i in nodes if op in ("concat", "maxpool") and o in wanted]
    return groups + [{tensor} for tensor in wanted.difference(*groups)]


def _every_concat(nodes: list[Node]) -> list[set[str]]:
    return insert_qdq([*nodes, *[("", "conv", [output]) for output, op, _ in nodes if op == "concat"]])
