"""How processors multiply 8-bit numbers: with room for the sum, or in 16 bits that overflow (notebook 12).

Without VNNI, x86 processors add two products in 16 bits and keep the largest number where the sum is larger
(instruction PMADDUBSW; Intel, "Intrinsics Guide"). VNNI adds four products into 32 bits.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
dot (uint8[1, n] activations, int8[n, 1] weights) => (int32[1, 1] result)
{ result = MatMulInteger(activations, weights) }
"""


def dot_in_16_bits(activations: Sequence[int], weights: Sequence[int]) -> int:
    """Sum of activation (0 … 255) times weight (-128 … 127), where each two neighbors are first added in 16 bits.

    Raises ValueError for an odd count, different counts, or numbers out of range.
    """
    a, w = _checked(activations, weights)
    if len(a) % 2:
        raise ValueError(f"Products are added in pairs, but there are {len(a)}: give an even number.")
    pairs = (a * w).reshape(-1, 2).sum(axis=1)
    return int(pairs.clip(-(2**15), 2**15 - 1).sum())


def dot_by_onnxruntime(activations: Sequence[int], weights: Sequence[int]) -> int:
    """The same sum by onnxruntime's 8-bit kernel on this processor; exact or not, as the processor has it."""
    import onnx
    import onnxruntime

    a, w = _checked(activations, weights)
    proto = onnx.parser.parse_model(TEXT)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {"activations": a.astype(np.uint8)[None, :], "weights": w.astype(np.int8)[:, None]}
    return int(np.asarray(session.run(["result"], feed)[0]).item())


def has_vnni(cpuinfo: str | Path = "/proc/cpuinfo") -> bool | None:
    """True where the processor lists VNNI instructions, False where it does not; None where nothing can be read."""
    try:
        text = Path(cpuinfo).read_text()
    except OSError:  # not Linux
        return None
    flags = next((line for line in text.splitlines() if line.startswith("flags")), None)
    return None if flags is None else not {"avx_vnni", "avx512_vnni"}.isdisjoint(flags.split())


def _checked(activations: Sequence[int], weights: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    a, w = np.asarray(activations, np.int64), np.asarray(weights, np.int64)
    if a.ndim != 1 or a.shape != w.shape or not len(a):
        raise ValueError(f"Give as many weights as activations, at least one, not {w.shape} and {a.shape}.")
    if a.min() < 0 or a.max() > 255 or w.min() < -128 or w.max() > 127:
        raise ValueError("Activations must be from 0 to 255 and weights from -128 to 127.")
    return a, w
