"""Where Q/DQ may stand: TensorRT's placement rules as checks on a graph, each with a reason and a fix.

Notebook 13 breaks them one by one. A graph that breaks a rule often still builds: the layer then runs in float, and
nothing says so. NVIDIA, "Explicit Quantization" in TensorRT's documentation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from yolonas_lab.deployment import qdq_checks, qdq_graph
from yolonas_lab.deployment.graph import Graph, check_opset, load_onnx

if TYPE_CHECKING:
    from onnx import ModelProto

RULES = {
    "R1": "A layer runs in int8 only if both its activation and its weight are quantized.",
    "R2": "Activations have one scale per tensor, weights one per output channel or one in all.",
    "R3": "TensorRT's INT8 is symmetric: int8 with a zero-point that is there and is 0; without one it means uint8.",
    "R4": "A scale is a constant, finite and positive number.",
    "R5": "A convolution, its BatchNorm and its ReLU are fused only if nothing stands between them.",
    "R6": "A residual sum is fused in int8 only if its skip is quantized too.",
    "R7": "What meets in a Concat shares one scale; MaxPool, Reshape and Transpose keep that of their input.",
    "R8": "Any other operator between quantized layers has Q/DQ on inputs and output, or on neither.",
    "R9": "The tail stays float: predictions, decoding and NMS need more digits than int8 has.",
    "R10": "A constant of integers can feed a DequantizeLinear only.",
    "R11": "The bias is added to the sums of products, which are finer than int8, and stays float.",
    "R12": "A uint8 image can feed a Cast only.",
}


CHECKS = {
    "R1": qdq_checks.both_inputs,
    "R2": qdq_checks.granularity,
    "R3": qdq_checks.symmetry,
    "R4": qdq_checks.scales,
    "R5": qdq_checks.fusion,
    "R6": qdq_checks.residuals,
    "R7": qdq_checks.shared_scales,
    "R8": qdq_checks.other_operators,
    "R9": qdq_checks.tail,
    "R10": qdq_checks.integer_constants,
    "R11": qdq_checks.bias,
    "R12": qdq_checks.image_input,
}


@dataclass(frozen=True)
class Violation:
    """A node that breaks a rule: the rule ("R1" … "R12"), the node's name, why the rule is there, and what to do."""

    rule: str
    node: str
    why: str
    fix: str

    def __str__(self) -> str:
        return f"{self.rule} at {self.node}: {self.why} Fix: {self.fix}"


def check_qdq(model: str | Path | ModelProto) -> list[Violation]:
    """Every place in an ONNX file (or a loaded model) that breaks a rule of Q/DQ placement, rule by rule.

    A graph without Q/DQ has none. One that is made for CPUs, with uint8 activations, breaks R3 and others on purpose.
    Raises FileNotFoundError, or ValueError for what is not ONNX of a known opset.
    """
    graph = _graph(model)
    return [
        Violation(rule, node.name or node.output[0], RULES[rule], fix)
        for rule, check in CHECKS.items()
        for node, fix in check(graph)
    ]


def quantized_layers(model: str | Path | ModelProto) -> dict[str, bool]:
    """Every convolution and matrix product with a weight, by node name in order: are weight and activation quantized?

    Raises as `check_qdq` does.
    """
    graph = _graph(model)
    return {layer.name: qdq_graph.is_quantized_layer(graph, layer) for layer in qdq_graph.layers(graph)}


def _graph(model: str | Path | ModelProto) -> Graph:
    if isinstance(model, (str, Path)):
        model = load_onnx(model)
    check_opset(model, "The model")
    return Graph(model.graph)
