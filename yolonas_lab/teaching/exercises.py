"""An exercise that checks itself: run the reader's answer on cases, compare, and say what is likely wrong.

`checks/nbNN.py` holds the exercises of notebook NN, one declarative `Exercise` each. That a check explains, and that
hints come one at a time, are ideas of Kaggle's learntools.
"""

import copy
import inspect
import sys
import textwrap
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from typing import Any

import numpy as np
import torch

from yolonas_lab.common import unknown_name

KINDS = {torch.Tensor: "tensor", np.ndarray: "NumPy array", float: "number", int: "number", type(None): "None"}
NUMBER_KINDS = {"b": "True and False", "f": "floating-point numbers", "i": "whole numbers", "u": "whole numbers"}


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


Answer = Callable[..., Any]  # a reader's function or class, or what stands for it
# One or several edits of the solution's source, each "right -> wrong" ("right ->" leaves it out), or a wrong answer.
Mistake = str | tuple[str, ...] | Answer


@dataclass(frozen=True)
class Exercise:
    """A function or class that the reader writes: the reference, the hints, the calls it must get right, the mistakes.

    `probe` and `judge` are for answers that are not simply called and compared: a loss whose gradient counts, a class
    that is built and then run, a function that draws random numbers.

    >>> def double(x):
    ...     return 2 * x
    >>> hints, cases = ("What is twice as much?", "Multiply.", "2 * x"), [Case((3,)), Case((0,), "nothing")]
    >>> exercise = Exercise(double, hints, cases, mistakes={"2 * x -> x**2": "this is the square."})
    >>> exercise.check(lambda number: number + number)
    ✓ double: all 2 cases pass
    """

    solution: Answer  # the reference; its name is the exercise's
    hints: tuple[str, str, str]  # the first points in a direction, the last nearly gives the answer away
    cases: Sequence[Case] | Callable[[], Sequence[Case]] = ()  # worked by hand, then seeded random ones
    mistakes: Mapping[Mistake, str] = field(default_factory=dict)  # and what to say to a reader who made one
    tolerance: float = 1e-5  # absolute, and relative to the expected value
    probe: Callable[[Answer], Answer] = lambda answer: answer  # from an answer, makes the function that the cases call
    judge: Callable[[Answer], str] | None = None  # says what is still wrong with an answer that passes the cases, or ""
    passed: str = ""  # what is said of a right answer instead of "all n cases pass"

    @property
    def name(self) -> str:
        """The name under which the reader asks for hints."""
        return self.solution.__name__

    def check(self, answer: Answer) -> None:
        """Print one line if the reader's answer is right; otherwise raise CheckFailed, with what is likely wrong."""
        name = self.name
        if not callable(answer):
            raise CheckFailed(f"{name}: give the check {name} itself, as in check_{name}({name}), not {answer!r:.60}.")
        cases, fn = self.complete_cases(), self.probe(answer)
        for number, case in enumerate(cases, start=1):
            about = f" ({case.about})" if case.about else ""
            where = f"{name}, case {number} of {len(cases)}{about}:\n  {_call(name, fn, case.arguments)}"
            got = call_answer(name, fn, *case.arguments, where=where)
            if problem := difference(got, case.expected, self.tolerance):
                advice = f"\n  Worth checking: {case.likely}" if case.likely else ""
                if named := self._mistake_behind([*cases[: number - 1], replace(case, expected=got)]):
                    advice = f"\n  Likely: {named}"
                told = f"returned {show_value(got)}\n  expected {show_value(case.expected)}\n  {problem}"
                raise CheckFailed(f"{where}\n  {told}{advice}")
        if self.judge and (problem := self.judge(partial(call_answer, name, answer))):
            raise CheckFailed(f"{name}: {problem}")
        all_pass = "the case passes" if len(cases) == 1 else f"all {len(cases)} cases pass"
        print(f"✓ {name}: {self.passed or all_pass}")

    def complete_cases(self) -> list[Case]:
        """The cases, those without an expected result with the solution's."""
        cases = self.cases() if callable(self.cases) else self.cases
        right = self.probe(self.solution)
        return [replace(c, expected=right(*copy_value(c.arguments))) if c.expected is ... else c for c in cases]

    def _mistake_behind(self, cases: Sequence[Case]) -> str:
        """Return what is to be said of the first mistake that gives exactly what the cases expect, or ""."""
        for mistake, says in self.mistakes.items():
            fn = self.probe(wrong_answer(self.solution, mistake))
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

    def __missing__(self, name: str) -> Exercise:
        raise ValueError(unknown_name("exercise", name, self))

    def hint(self, name: str, level: int = 1) -> None:
        """Print hint `level` (1: the gentlest, 3: nearly the answer) of exercise `name`."""
        hints = self[name].hints
        if level not in range(1, len(hints) + 1):
            raise ValueError(f"{name} has {len(hints)} hints: level must be from 1 to {len(hints)}, not {level!r}.")
        print(f"Hint {level} of {len(hints)} for {name}:\n{textwrap.fill(hints[level - 1], 100)}")

    def solution(self, name: str) -> None:
        """Print the reference solution of exercise `name`."""
        print(inspect.getsource(self[name].solution).rstrip())


def wrong_answer(solution: Answer, mistake: Mistake) -> Answer:
    """The solution with a mistake in it. Raises ValueError where the piece to exchange is not in its source."""
    if callable(mistake):
        return mistake
    source = inspect.getsource(solution)
    for edit in (mistake,) if isinstance(mistake, str) else mistake:
        right, arrow, wrong = edit.partition(" ->")
        if not arrow or right not in source:
            raise ValueError(f"the solution {solution.__name__} has no {right!r} for the mistake {edit!r} to exchange.")
        source = source.replace(right, wrong.removeprefix(" "))
    names = dict(vars(sys.modules[solution.__module__]))
    exec(source, names)
    return names[solution.__name__]


def tensor_from(answer: Answer) -> Answer:
    """A probe: a list or array of numbers that the answer returns counts as a tensor."""

    @wraps(answer)
    def with_tensor(*arguments: Any) -> Any:
        got = answer(*arguments)
        if not isinstance(got, list | tuple | np.ndarray):
            return got
        return torch.as_tensor(got) if len(got) else torch.zeros(0, dtype=torch.int64)

    return with_tensor


def call_answer(name: str, fn: Answer, *arguments: Any, where: str = "") -> Any:
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


def _call(name: str, fn: Answer, arguments: tuple) -> str:
    """Write the call compactly: iou(a=[[0, 0, 2, 2]], b=tensor (3, 4) float32)."""
    names = _parameter_names(fn, len(arguments))
    return f"{name}({', '.join(f'{n}={show_value(v)}' for n, v in zip(names, arguments))})"


def _parameter_names(fn: Answer, count: int) -> list[str]:
    """Return the names of fn's first `count` parameters, numbered ones where it has none to tell."""
    try:
        names = list(inspect.signature(fn).parameters)[:count]
    except (TypeError, ValueError):  # built-in functions have no signature
        names = []
    return names + [f"argument {i + 1}" for i in range(len(names), count)]


def _reader_line(error: BaseException) -> str:
    """Name the line of the notebook in which the error arose."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.line and "site-packages" not in frame.filename and frame.filename != __file__:
            return f"\n  in {frame.name}, line {frame.lineno}: {frame.line}"
    return ""


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
        parts = [(f"[{k!r}]", got[k], expected[k]) for k in expected]
    elif isinstance(expected, list | tuple):
        if not isinstance(got, list | tuple):
            return f"It is a {_kind(got)} instead of {len(expected)} values in a tuple or list."
        if len(got) != len(expected):
            return f"It has {len(got)} value{'s' * (len(got) != 1)} instead of {len(expected)}."
        parts = [(f"value {i}", g, e) for i, (g, e) in enumerate(zip(got, expected), start=1)]
    elif _is_numeric(expected):
        return _numeric_difference(got, expected, tolerance)
    else:
        return "" if type(got) is type(expected) and bool(got == expected) else "They are not equal."
    problems = ((name, difference(g, e, tolerance)) for name, g, e in parts)
    return next((f"{name}: {problem}" for name, problem in problems if problem), "")


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
        return f"It holds {NUMBER_KINDS[a.dtype.kind]} instead of {NUMBER_KINDS[b.dtype.kind]}."
    if np.isnan(a).any() and not np.isnan(b).any():
        return "It contains NaN (not a number): is something divided by zero?"
    close = np.isclose(a.astype(float), b.astype(float), rtol=tolerance, atol=tolerance, equal_nan=True)
    if close.all():
        return ""
    if not a.shape:
        return "The number differs."
    at = tuple(int(i) for i in np.argwhere(~close)[0])
    numbers = f"[{', '.join(map(str, at))}] is {_rounded(a[at].item())} instead of {_rounded(b[at].item())}"
    return f"{(~close).sum()} of {close.size} numbers differ; the first at {numbers}."


def _numpy(value: Any) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).numpy()
    return np.asarray(value)


def _is_numeric(value: Any) -> bool:
    return (
        isinstance(value, int | float | np.generic | np.ndarray | torch.Tensor) and _numpy(value).dtype.kind in "biuf"
    )


def _kind(value: Any) -> str:
    return KINDS.get(type(value), type(value).__name__)


def show_value(value: Any) -> str:
    """Write a value compactly: small tensors with their numbers, large ones by shape, modules by class name."""
    if isinstance(value, torch.nn.Module):
        return type(value).__name__
    if isinstance(value, torch.Tensor | np.ndarray):
        kind = "tensor" if isinstance(value, torch.Tensor) else "array"
        if 0 < _numpy(value).size <= 16:  # larger ones are shown by their shape
            return f"{kind} {_rounded(value.tolist())}"
        return f"{kind} of shape {tuple(value.shape)}, {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, tuple | list):
        inside = ", ".join(show_value(v) for v in value[:6]) + (", …" if len(value) > 6 else "")
        return f"({inside})" if isinstance(value, tuple) else f"[{inside}]"
    if isinstance(value, int | float | np.bool_ | np.integer | np.floating):
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
