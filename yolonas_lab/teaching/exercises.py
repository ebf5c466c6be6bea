"""How an exercise checks itself: run the reader's function on cases, compare, and say what is likely wrong.

A checks module holds reference solutions, hints and `check_x(fn)` functions that call `check_cases`. A check that
explains is the idea of Kaggle's learntools. Every notebook's exercises use it.
"""

import inspect
import linecache
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

# Comparing a reader's result with the expected one: what differs, in words, for numbers, tensors and nested results.
#
# The self-checks of all notebooks use it through `check.py`.

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


class CheckFailed(AssertionError):
    """An exercise is not right yet; the message says what is likely wrong. Jupyter shows it without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"\x1b[31m✗\x1b[0m {self}"]


@dataclass(frozen=True)
class Case:
    """One call that the reader's function must get right: arguments, the expected result, and words about it."""

    arguments: tuple
    expected: Any
    about: str = ""  # what this case tries, e.g. "two boxes that only touch"
    likely: str = ""  # what to look at where this case fails


@dataclass(frozen=True)
class Mistake:
    """A plausible wrong implementation, and what to tell a reader whose function returns the same."""

    wrong: Callable[..., Any]
    says: str


def check_cases(
    name: str,
    fn: Callable[..., Any],
    cases: Sequence[Case],
    mistakes: Sequence[Mistake] = (),
    tolerance: float = 1e-5,
) -> None:
    """Run fn on every case and print one line if all are right; raise CheckFailed at the first that is not.

    Numbers may differ by `tolerance` (absolute, and relative to the expected value). The function gets copies of the
    arguments and must not change them. A failing result that one of the `mistakes` would give too is named by it.
    """
    if not cases:
        raise ValueError(f"the check {name!r} has no cases.")
    if not callable(fn):
        raise CheckFailed(f"{name}: give the check your function itself, as in check_{name}({name}), not {fn!r:.60}.")
    for number, case in enumerate(cases, start=1):
        about = f" ({case.about})" if case.about else ""
        where = f"{name}, case {number} of {len(cases)}{about}:\n  {_call(name, fn, case.arguments)}"
        got = _result(name, fn, case.arguments, where)
        problem = difference(got, case.expected, tolerance)
        if problem:
            advice = f"\n  Worth checking: {case.likely}" if case.likely else ""
            named = _named_mistake(cases[:number], got, mistakes, tolerance)
            if named:
                advice = f"\n  Likely: {named}"
            raise CheckFailed(
                f"{where}\n  returned {show_value(got)}\n  expected {show_value(case.expected)}\n  {problem}" + advice
            )
    print(f"✓ {name}: {'the case passes' if len(cases) == 1 else f'all {len(cases)} cases pass'}")


def check_value(name: str, got: Any, expected: Any, likely: str = "", tolerance: float = 1e-5) -> None:
    """Check an answer that is a value (a number, a list, a tensor) without giving the expected one away."""
    if got is ... or got is None:
        raise CheckFailed(f"{name} has no answer yet: put your value in its place.")
    problem = difference(got, expected, tolerance, reveal=False)
    if problem:
        advice = f"\n  Worth checking: {likely}" if likely else ""
        raise CheckFailed(f"{name}: {show_value(got)} is not right yet: {problem}{advice}")
    print(f"✓ {name}: right")


def show_hint(hints: Mapping[str, Sequence[str]], name: str, level: int = 1) -> None:
    """Print hint `level` (1: the gentlest) of exercise `name`; ValueError where there is no such name or level."""
    if name not in hints:
        raise ValueError(f"there are no hints for {name!r}; the exercises are: {', '.join(hints)}.")
    count = len(hints[name])
    if level not in range(1, count + 1):
        raise ValueError(f"{name} has {count} hint{'s' * (count > 1)}: level must be from 1 to {count}, not {level!r}.")
    text = textwrap.fill(hints[name][level - 1], 100) if "\n" not in hints[name][level - 1] else hints[name][level - 1]
    print(f"Hint {level} of {count} for {name}:\n{text}")


def show_solution(solutions: Mapping[str, Callable[..., Any]], name: str) -> None:
    """Print the source of the reference solution of exercise `name`; ValueError where there is no such name."""
    if name not in solutions:
        raise ValueError(f"there is no solution for {name!r}; the exercises are: {', '.join(solutions)}.")
    print(inspect.getsource(solutions[name]).rstrip())


def _result(name: str, fn: Callable[..., Any], arguments: tuple, where: str) -> Any:
    """Call the reader's function on copies of the arguments; whatever it raises becomes a CheckFailed."""
    copies = copy_value(arguments)
    try:
        got = fn(*copies)
    except NotImplementedError as error:
        raise CheckFailed(f"{name} is not written yet: replace `raise NotImplementedError()` by your code.") from error
    except Exception as error:  # the reader's code may raise anything: it is the thing being checked
        raised = f"{where}\n  raised {type(error).__name__}: {str(error)[:300]}"
        raise CheckFailed(raised + _reader_line(error)) from error
    if got is ...:
        raise CheckFailed(f"{name} is not written yet: replace the `...` by your code.")
    if got is None:
        raise CheckFailed(f"{where}\n  returned None: is there a `return` in front of the result?")
    for parameter, before, after in zip(_parameter_names(fn, len(arguments)), arguments, copies, strict=True):
        if difference(after, before, 0.0):
            raise CheckFailed(
                f"{where}\n  changed its argument {parameter}, which its caller still needs: work on a copy (x.clone())"
                f" and avoid +=, x[...] = and functions that end in _."
            )
    return got


def _named_mistake(cases: Sequence[Case], got: Any, mistakes: Sequence[Mistake], tolerance: float) -> str:
    """Return what the first mistake says whose function gives `got` on the last case and is right on those before."""
    for mistake in mistakes:
        wanted = [*(case.expected for case in cases[:-1]), got]
        try:
            same = all(
                not difference(mistake.wrong(*copy_value(c.arguments)), w, tolerance)
                for c, w in zip(cases, wanted, strict=True)
            )
        except (ArithmeticError, IndexError, RuntimeError, TypeError, ValueError):  # it fails where the reader does not
            same = False
        if same:
            return mistake.says
    return ""


def _call(name: str, fn: Callable[..., Any], arguments: tuple) -> str:
    """Write the call compactly: iou(a=[[0, 0, 2, 2]], b=tensor (3, 4) float32)."""
    names = _parameter_names(fn, len(arguments))
    return f"{name}({', '.join(f'{n}={show_value(v)}' for n, v in zip(names, arguments, strict=True))})"


def _parameter_names(fn: Callable[..., Any], count: int) -> list[str]:
    """Return the names of fn's first `count` parameters, numbered ones where it has none to tell."""
    try:
        names = list(inspect.signature(fn).parameters)[:count]
    except (TypeError, ValueError):  # built-in functions have no signature
        names = []
    return names + [f"argument {i + 1}" for i in range(len(names), count)]


def _reader_line(error: BaseException) -> str:
    """Name the line of the notebook in which the error arose (cells are registered in linecache)."""
    found = ""
    trace = error.__traceback__
    while trace is not None:
        code, line = trace.tb_frame.f_code, trace.tb_lineno
        in_library = "site-packages" in code.co_filename or code.co_filename == __file__
        text = linecache.getline(code.co_filename, line).strip()
        if text and not in_library:
            found = f"\n  in {code.co_name}, line {line}: {text}"
        trace = trace.tb_next
    return found
