"""What TensorRT's parser and builder say, recorded, and turned into one sentence with the node and advice.

TensorRT reports through a logger object and returns None; its messages are hundreds of lines of which one or two
matter. Notebook 13.
"""

from __future__ import annotations

import re
from functools import cache
from types import ModuleType
from typing import Any

# What the message contains -> what to do. The first that fits is taken.
ADVICE = (
    (r"Non-zero zero point", "quantize symmetrically: TensorRT takes only zero-point 0 (rule R3 of check_qdq)."),
    (r"has type UInt8 but must", "put a Cast to float directly behind the uint8 input (rule R12 of check_qdq)."),
    (r"has type Int32 but must have type FP8", "leave the bias in float, without Q and DQ (rule R11 of check_qdq)."),
    (
        r"Quantized constant .* only allowed before DQ",
        "an int8 constant may feed only DequantizeLinear: remove what stands between (rule R10 of check_qdq).",
    ),
    (
        r"must have same input types|type (Half|Float) but second",
        "float32 meets float16 without a Cast: export again with one precision.",
    ),
    (r"MIN<=OPT<=MAX|isValid", "in each profile let smallest <= typical <= largest hold for every dimension."),
    (
        r"no optimization profile|missing dimensions",
        "the graph has dynamic sizes: give profiles, one shape each for the smallest, the typical and the largest.",
    ),
    (r"[Dd]imension mismatch", "give profile shapes that differ from the graph's only where it is dynamic."),
    (
        r"Plugin not found|UNSUPPORTED_NODE|No importer",
        "TensorRT has no such operator: export without it (NMS stays outside the engine).",
    ),
    (r"ParseFromCodedStream|MODEL_DESERIALIZE_FAILED", "it is not a whole ONNX file: export it again."),
    (
        r"Error Code 10|could not find any implementation",
        "no kernel fits this node on this GPU: give more workspace, or leave the node in float.",
    ),
    (r"OutOfMemory|out of memory", "the GPU's memory is full: lower workspace or the largest profile."),
    (
        r"CUDA driver|cudaError 35|no CUDA-capable device",
        "this builder needs an NVIDIA GPU with its driver; the one of TensorRT for RTX (pip install tensorrt-rtx) "
        "builds without.",
    ),
)
_WHERE_RAISED = re.compile(r"\s*In \w+ at \S+$")  # of no use to anyone without TensorRT's sources
_CODE = re.compile(r"^.*?Error Code \d+: [^(]*\((.*)\)$")


@cache
def recorder(trt: ModuleType) -> Any:
    """The one logger of this process for this TensorRT module; `messages` holds (severity, text) since `clear()`.

    One, because TensorRT keeps the first logger it meets for as long as any of its objects lives.
    """

    class Recorder(trt.ILogger):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.messages: list[tuple[Any, str]] = []

        def log(self, severity: Any, msg: str) -> None:
            self.messages.append((severity, msg))

        def clear(self) -> None:
            self.messages.clear()

        def errors(self) -> list[str]:
            """The errors so far, without the ones that only repeat that there is no GPU to ask."""
            serious = (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR)
            texts = [text for severity, text in self.messages if severity in serious]
            return [text for text in texts if "catchCudaError" not in text] or texts

    return Recorder()


def parser_failure(file: str, parser: Any) -> str:
    """One sentence for what an OnnxParser refused in this file: node, operator, reason, advice."""
    if not parser.num_errors:
        return f"{file}: TensorRT cannot read the graph and does not say why; run check_qdq and onnx.checker on it."
    error = parser.get_error(0)
    name, operator = error.node_name(), error.node_operator()
    where = f"node '{name}' ({operator})" if operator else "the file"
    description = error.desc()
    advice = _advice(description) or _advice(getattr(error.code(), "name", str(error.code())))
    reason = plain(description)
    if reason in ("", "false"):  # what the checks of operators that do not exist leave
        reason = "not supported"
    return f"{file}: TensorRT cannot take {where}: {reason}; {advice or 'run check_qdq on the file.'}"


def builder_failure(file: str, errors: list[str]) -> str:
    """One sentence for the errors that the builder logged; the first is the cause, the others follow from it."""
    if not errors:
        return f"{file}: TensorRT built no engine and does not say why."
    advice = _advice(errors[0]) or next(filter(None, map(_advice, errors)), None)
    return f"{file}: TensorRT cannot build the engine: {plain(errors[0])}; {advice or 'run check_qdq on the file.'}"


def plain(message: str) -> str:
    """The part of a TensorRT message that says what was wrong: no function names, codes or source lines."""
    lines = [line for line in message.splitlines() if line.strip() and "catchCudaError" not in line]
    line = next((line for line in lines if "Error Code" in line), lines[0] if lines else "")
    match = _CODE.match(line)
    line = match[1] if match else line
    return _WHERE_RAISED.sub("", line.strip()).strip().removeprefix("Assertion failed: ").rstrip(" .")


def _advice(text: str) -> str | None:
    return next((advice for pattern, advice in ADVICE if re.search(pattern, text)), None)
