"""Comparing a reader's result with the expected one: what differs, in words, for numbers, tensors and nested results.

The self-checks of all notebooks use it through `check.py`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

SHOWN_NUMBERS = 16  # arrays with more numbers are shown by shape only


def difference(got: Any, expected: Any, tolerance: float, *, reveal: bool = True) -> str:
    """Return in words how `got` differs from `expected`, or '' where they agree.

    Numbers agree within `tolerance`, absolute and relative; NaN agrees with NaN; lists and tuples may stand for each
    other, and so may a Python number, a NumPy number and a tensor without axes. `reveal`: the words may say values of
    the expected result.
    """
    if isinstance(expected, Mapping):
        return _mapping_difference(got, expected, tolerance, reveal)
    if isinstance(expected, list | tuple):
        return _sequence_difference(got, expected, tolerance, reveal)
    if isinstance(expected, torch.nn.Module):
        if not isinstance(got, torch.nn.Module):
            return f"It is a {_kind(got)} instead of a module."
        return _mapping_difference(got.state_dict(), expected.state_dict(), tolerance, reveal)
    if _is_numeric(expected):
        return _numeric_difference(got, expected, tolerance, reveal)
    return "" if type(got) is type(expected) and bool(got == expected) else "They are not equal."


def show_value(value: Any) -> str:
    """Write a value compactly: small tensors with their numbers, large ones by shape, modules by class name."""
    if isinstance(value, torch.nn.Module):
        return type(value).__name__
    if isinstance(value, torch.Tensor | np.ndarray):
        kind = "tensor" if isinstance(value, torch.Tensor) else "array"
        dtype = str(value.dtype).removeprefix("torch.")
        size = value.numel() if isinstance(value, torch.Tensor) else value.size
        if 0 < size <= SHOWN_NUMBERS:
            return f"{kind} {_rounded(value.tolist())}"
        return f"{kind} of shape {tuple(value.shape)}, {dtype}"
    if isinstance(value, tuple | list):
        inside = ", ".join(show_value(v) for v in value[:6]) + (", …" if len(value) > 6 else "")
        return f"({inside})" if isinstance(value, tuple) else f"[{inside}]"
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, float | np.floating):
        return _rounded(float(value))
    text = f"{value!s}" if isinstance(value, int | np.integer) else repr(value)
    return text if len(text) <= 120 else text[:117] + "…"


def copy_value(value: Any) -> Any:
    """Copy tensors, arrays, modules and the lists, tuples and dictionaries around them; other values stay."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, torch.nn.Module):
        import copy

        return copy.deepcopy(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # a NamedTuple
        return type(value)(*(copy_value(v) for v in value))
    if isinstance(value, tuple | list):
        return type(value)(copy_value(v) for v in value)
    if isinstance(value, dict):
        return {key: copy_value(v) for key, v in value.items()}
    return value


def _mapping_difference(got: Any, expected: Mapping, tolerance: float, reveal: bool) -> str:
    if not isinstance(got, Mapping):
        return f"It is a {_kind(got)} instead of a dictionary."
    missing, extra = expected.keys() - got.keys(), got.keys() - expected.keys()
    if missing or extra:
        return f"Missing keys: {sorted(map(str, missing))}; unexpected keys: {sorted(map(str, extra))}."
    return _first_difference([(f"[{k!r}]", got[k], expected[k]) for k in expected], tolerance, reveal)


def _sequence_difference(got: Any, expected: list | tuple, tolerance: float, reveal: bool) -> str:
    if not isinstance(got, list | tuple):
        return f"It is a {_kind(got)} instead of {len(expected)} values in a tuple or list."
    if len(got) != len(expected):
        return f"It has {len(got)} value{'s' * (len(got) != 1)} instead of {len(expected)}."
    pairs = zip(got, expected, strict=True)
    return _first_difference([(f"value {i + 1}", g, e) for i, (g, e) in enumerate(pairs)], tolerance, reveal)


def _first_difference(parts: list[tuple[str, Any, Any]], tolerance: float, reveal: bool) -> str:
    for name, got, expected in parts:
        problem = difference(got, expected, tolerance, reveal=reveal)
        if problem:
            return f"{name}: {problem}"
    return ""


def _numeric_difference(got: Any, expected: Any, tolerance: float, reveal: bool) -> str:
    """Compare numbers, arrays and tensors by kind, shape, kind of number and value, in this order."""
    with_axes = not isinstance(expected, bool | int | float) and np.ndim(_numpy(expected)) > 0
    if not _is_numeric(got) or (with_axes and type(got) is not type(expected) and not _both_tensors(got, expected)):
        return f"It is a {_kind(got)} instead of a {_kind(expected)}."
    a, b = _numpy(got), _numpy(expected)
    if a.shape != b.shape:
        return f"Its shape is {a.shape} instead of {b.shape}."
    if a.dtype.kind != b.dtype.kind and (with_axes or "b" in (a.dtype.kind, b.dtype.kind)):
        return f"It holds {_number_kind(a)} instead of {_number_kind(b)}."
    if np.isnan(a).any() and not np.isnan(b).any():
        return "It contains NaN (not a number): is something divided by zero?"
    close = np.isclose(a.astype(float), b.astype(float), rtol=tolerance, atol=tolerance, equal_nan=True)
    if close.all():
        return ""
    if not a.shape or not reveal:
        return "The number differs." if not a.shape else f"{(~close).sum()} of {close.size} numbers differ."
    at = tuple(int(i) for i in np.argwhere(~close)[0])
    where = ", ".join(map(str, at))
    numbers = f"[{where}] is {_rounded(a[at].item())} instead of {_rounded(b[at].item())}"
    return f"{(~close).sum()} of {close.size} numbers differ; the first at {numbers}."


def _numpy(value: Any) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).numpy()
    return np.asarray(value)


def _is_numeric(value: Any) -> bool:
    return isinstance(value, bool | int | float | np.generic | np.ndarray | torch.Tensor) and (
        _numpy(value).dtype.kind in "biuf"
    )


def _both_tensors(a: Any, b: Any) -> bool:
    return isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)


def _kind(value: Any) -> str:
    names = {torch.Tensor: "tensor", np.ndarray: "NumPy array", float: "number", int: "number", type(None): "None"}
    return names.get(type(value), type(value).__name__)


def _number_kind(array: np.ndarray) -> str:
    return {"b": "True and False", "f": "floating-point numbers"}.get(array.dtype.kind, "whole numbers")


def _rounded(value: Any) -> str:
    """Write numbers, also nested, with at most five significant digits."""
    if isinstance(value, list):
        return "[" + ", ".join(_rounded(v) for v in value) + "]"
    if isinstance(value, float):
        return f"{value:.5g}"
    return str(value)
