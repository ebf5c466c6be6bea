"""An exercise that checks itself: run the reader's answer on cases, compare, and say what is likely wrong.

`checks/nbNN.py` holds the exercises of notebook NN, one declarative `Exercise` each. That a check explains, and that
hints come one at a time, are ideas of Kaggle's learntools.
"""

import copy
import inspect
import linecache
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from yolonas_lab.common import unknown_name

SHOWN_NUMBERS = 16  # arrays with more numbers are shown by shape only


class CheckFailed(AssertionError):
    """An exercise is not right yet; the message says what is likely wrong. Jupyter shows it without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"\x1b[31m✗\x1b[0m {self}"]


@dataclass(frozen=True)
class Case:
    """One call that an answer must get right, and words about it."""

    arguments: tuple
    about: str = ""  # what this case tries, e.g. "two boxes that only touch"
    expected: Any = ...  # `...`: what the solution returns
    likely: str = ""  # what to look at where this case fails and no known mistake explains it


def _itself(answer: Callable[..., Any]) -> Callable[..., Any]:
    return answer


@dataclass(frozen=True)
class Exercise:
    """A function or class that the reader writes: the reference, the hints, the calls it must get right, the mistakes.

    `probe` and `judge` are for answers that are not simply called and compared: a loss whose gradient counts, a class
    that is built and then run, a function that draws random numbers.

    >>> def double(x):
    ...     return 2 * x
    >>> hints = "What is twice as much?", "Multiply.", "2 * x"
    >>> exercise = Exercise(double, hints, [Case((3,)), Case((0,), "nothing")], {"this is the square.": lambda x: x**2})
    >>> exercise.check(lambda number: number + number)
    ✓ double: all 2 cases pass
    """

    solution: Callable[..., Any]  # the reference; its name is the exercise's
    hints: tuple[str, str, str]  # the first points in a direction, the last nearly gives the answer away
    cases: Sequence[Case] | Callable[[], Sequence[Case]] = ()  # worked by hand, then seeded random ones
    mistakes: Mapping[str, Callable[..., Any]] = field(default_factory=dict)  # what to say: a plausible wrong answer
    tolerance: float = 1e-5  # absolute, and relative to the expected value
    probe: Callable[[Callable[..., Any]], Callable[..., Any]] = _itself  # an answer -> the function that cases call
    judge: Callable[[Callable[..., Any]], str] | None = None  # an answer -> what is wrong with it, or ""; before cases
    passed: str = ""  # what is said of a right answer instead of "all n cases pass"

    @property
    def name(self) -> str:
        """The name under which the reader asks for hints."""
        return self.solution.__name__

    def check(self, answer: Callable[..., Any]) -> None:
        """Print one line if the reader's answer is right; otherwise raise CheckFailed, with what is likely wrong."""
        name = self.name
        if not callable(answer):
            raise CheckFailed(f"{name}: give the check {name} itself, as in check_{name}({name}), not {answer!r:.60}.")
        if self.judge and (problem := self.judge(partial(call_answer, name, answer))):
            raise CheckFailed(f"{name}: {problem}")
        cases, fn = self.complete_cases(), self.probe(answer)
        for number, case in enumerate(cases, start=1):
            about = f" ({case.about})" if case.about else ""
            where = f"{name}, case {number} of {len(cases)}{about}:\n  {_call(name, fn, case.arguments)}"
            got = call_answer(name, fn, *case.arguments, where=where)
            problem = difference(got, case.expected, self.tolerance)
            if problem:
                advice = f"\n  Worth checking: {case.likely}" if case.likely else ""
                if named := self._mistake_behind([*cases[: number - 1], replace(case, expected=got)]):
                    advice = f"\n  Likely: {named}"
                told = f"returned {show_value(got)}\n  expected {show_value(case.expected)}\n  {problem}"
                raise CheckFailed(f"{where}\n  {told}{advice}")
        all_pass = "the case passes" if len(cases) == 1 else f"all {len(cases)} cases pass"
        print(f"✓ {name}: {self.passed or all_pass}")

    def complete_cases(self) -> list[Case]:
        """The cases, those without an expected result with the solution's."""
        cases = self.cases() if callable(self.cases) else self.cases
        right = self.probe(self.solution)
        return [
            case if case.expected is not ... else replace(case, expected=right(*copy_value(case.arguments)))
            for case in cases
        ]

    def _mistake_behind(self, cases: Sequence[Case]) -> str:
        """Return what is to be said of the first mistake that gives exactly what the cases expect, or ""."""
        for says, wrong in self.mistakes.items():
            fn = self.probe(wrong)
            try:
                if not any(difference(fn(*copy_value(c.arguments)), c.expected, self.tolerance) for c in cases):
                    return says
            except Exception:  # it fails where the reader's answer does not, so it is another mistake
                continue
        return ""


class Exercises(dict[str, Exercise]):
    """The exercises of one notebook by name, in its order."""

    def __init__(self, *exercises: Exercise) -> None:
        super().__init__({exercise.name: exercise for exercise in exercises})

    def hint(self, name: str, level: int = 1) -> None:
        """Print hint `level` (1: the gentlest, 3: nearly the answer) of exercise `name`."""
        hints = self._get(name).hints
        if level not in range(1, len(hints) + 1):
            raise ValueError(f"{name} has {len(hints)} hints: level must be from 1 to {len(hints)}, not {level!r}.")
        print(f"Hint {level} of {len(hints)} for {name}:\n{textwrap.fill(hints[level - 1], 100)}")

    def solution(self, name: str) -> None:
        """Print the reference solution of exercise `name`."""
        print(inspect.getsource(self._get(name).solution).rstrip())

    def _get(self, name: str) -> Exercise:
        if name not in self:
            raise ValueError(unknown_name("exercise", name, self))
        return self[name]


def faults(fn: Callable[..., Any], /, **says: str) -> dict[str, Callable[..., Any]]:
    """Mistakes that one function can make: what to say of fn(…, wrong=name), for each name of a fault."""
    return {text: partial(fn, wrong=name) for name, text in says.items()}


def call_answer(name: str, fn: Callable[..., Any], *arguments: Any, where: str = "") -> Any:
    """Call the reader's code on copies of the arguments; whatever goes wrong in it becomes a CheckFailed.

    Returning nothing and changing an argument count as wrong, too. `where` tells the call in messages.
    """

    def failed(what: object) -> CheckFailed:
        return CheckFailed(f"{where or _call(name, fn, arguments)}\n  {what}")

    copies = copy_value(arguments)
    try:
        got = fn(*copies)
    except NotImplementedError as error:
        raise CheckFailed(f"{name} is not written yet: replace `raise NotImplementedError()` by your code.") from error
    except CheckFailed as error:  # a probe found something to say about the result
        raise failed(error) from error
    except Exception as error:  # the reader's code may raise anything: it is the thing being checked
        raise failed(f"raised {type(error).__name__}: {str(error)[:300]}{_reader_line(error)}") from error
    if got is ...:
        raise CheckFailed(f"{name} is not written yet: replace the `...` by your code.")
    if got is None:
        raise failed("returned None: is there a `return` in front of the result?")
    for i, (before, after) in enumerate(zip(arguments, copies)):
        if difference(after, before, 0.0):
            parameter = _parameter_names(fn, len(arguments))[i]
            raise failed(
                f"changed its argument {parameter}, which its caller still needs: work on a copy (x.clone()) and avoid "
                f"+=, x[...] = and functions that end in _."
            )
    return got


def _call(name: str, fn: Callable[..., Any], arguments: tuple) -> str:
    """Write the call compactly: iou(a=[[0, 0, 2, 2]], b=tensor (3, 4) float32)."""
    names = _parameter_names(fn, len(arguments))
    return f"{name}({', '.join(f'{n}={show_value(v)}' for n, v in zip(names, arguments))})"


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


def difference(got: Any, expected: Any, tolerance: float) -> str:
    """Return in words how `got` differs from `expected`, or '' where they agree.

    Numbers agree within `tolerance`, absolute and relative; NaN agrees with NaN; lists and tuples may stand for each
    other, and so may a Python number, a NumPy number and a tensor without axes. Modules are compared by their weights.
    """
    if got is expected:
        return ""
    if isinstance(expected, torch.nn.Module):
        if not isinstance(got, torch.nn.Module):
            return f"It is a {_kind(got)} instead of a module."
        got, expected = got.state_dict(), expected.state_dict()
    if isinstance(expected, Mapping):
        if not isinstance(got, Mapping):
            return f"It is a {_kind(got)} instead of a dictionary."
        missing, extra = expected.keys() - got.keys(), got.keys() - expected.keys()
        if missing or extra:
            return f"Missing keys: {sorted(map(str, missing))}; unexpected keys: {sorted(map(str, extra))}."
        return _first_difference([(f"[{k!r}]", got[k], expected[k]) for k in expected], tolerance)
    if isinstance(expected, list | tuple):
        if not isinstance(got, list | tuple):
            return f"It is a {_kind(got)} instead of {len(expected)} values in a tuple or list."
        if len(got) != len(expected):
            return f"It has {len(got)} value{'s' * (len(got) != 1)} instead of {len(expected)}."
        pairs = enumerate(zip(got, expected), start=1)
        return _first_difference([(f"value {i}", g, e) for i, (g, e) in pairs], tolerance)
    if _is_numeric(expected):
        return _numeric_difference(got, expected, tolerance)
    return "" if type(got) is type(expected) and bool(got == expected) else "They are not equal."


def _first_difference(parts: list[tuple[str, Any, Any]], tolerance: float) -> str:
    for name, got, expected in parts:
        problem = difference(got, expected, tolerance)
        if problem:
            return f"{name}: {problem}"
    return ""


def _numeric_difference(got: Any, expected: Any, tolerance: float) -> str:
    """Compare numbers, arrays and tensors by kind, shape, kind of number and value, in this order."""
    with_axes = not isinstance(expected, bool | int | float) and np.ndim(_numpy(expected)) > 0
    both_tensors = isinstance(got, torch.Tensor) and isinstance(expected, torch.Tensor)
    if not _is_numeric(got) or (with_axes and type(got) is not type(expected) and not both_tensors):
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
    if not a.shape:
        return "The number differs."
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


def _kind(value: Any) -> str:
    names = {torch.Tensor: "tensor", np.ndarray: "NumPy array", float: "number", int: "number", type(None): "None"}
    return names.get(type(value), type(value).__name__)


def _number_kind(array: np.ndarray) -> str:
    return {"b": "True and False", "f": "floating-point numbers"}.get(array.dtype.kind, "whole numbers")


def show_value(value: Any) -> str:
    """Write a value compactly: small tensors with their numbers, large ones by shape, modules by class name."""
    if isinstance(value, torch.nn.Module):
        return type(value).__name__
    if isinstance(value, torch.Tensor | np.ndarray):
        kind = "tensor" if isinstance(value, torch.Tensor) else "array"
        size = value.numel() if isinstance(value, torch.Tensor) else value.size
        if 0 < size <= SHOWN_NUMBERS:
            return f"{kind} {_rounded(value.tolist())}"
        return f"{kind} of shape {tuple(value.shape)}, {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, tuple | list):
        inside = ", ".join(show_value(v) for v in value[:6]) + (", …" if len(value) > 6 else "")
        return f"({inside})" if isinstance(value, tuple) else f"[{inside}]"
    if isinstance(value, bool | np.bool_ | int | float | np.integer | np.floating):
        return _rounded(value.item() if isinstance(value, np.generic) else value)
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "…"


def _rounded(value: Any) -> str:
    """Write numbers, also nested, with at most five significant digits."""
    if isinstance(value, list):
        return "[" + ", ".join(_rounded(v) for v in value) + "]"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def copy_value(value: Any) -> Any:
    """Copy tensors, arrays, modules and the lists, tuples and dictionaries around them; other values stay."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, np.ndarray | torch.nn.Module):
        return copy.deepcopy(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # a NamedTuple
        return type(value)(*(copy_value(v) for v in value))
    if isinstance(value, tuple | list):
        return type(value)(copy_value(v) for v in value)
    if isinstance(value, dict):
        return {key: copy_value(v) for key, v in value.items()}
    return value
