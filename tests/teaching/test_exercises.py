import math
from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from yolonas_lab.teaching.exercises import (
    Case,
    CheckFailed,
    Exercise,
    Exercises,
    copy_value,
    difference,
    show_value,
    tensor_from,
    wrong_answer,
)

Pair = namedtuple("Pair", "first second")
A = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
HINTS = ("Multiply.", "Use *.", "a * factor")
CASES = [Case((A, 2), "a small matrix"), Case((A, 0), "times zero", A * 0, "zero is a number too")]


def scale(a, factor):
    return a * factor


def failure(fn, cases=CASES, **settings: Any):
    with pytest.raises(CheckFailed) as caught:
        Exercise(scale, HINTS, cases, **settings).check(fn)
    return str(caught.value)


def test_a_right_function_prints_one_line(capsys):
    Exercise(scale, HINTS, CASES).check(scale)
    Exercise(scale, HINTS, lambda: CASES[:1]).check(lambda *both: torch.mul(*both))
    Exercise(scale, HINTS, CASES, passed="it scales").check(scale)
    assert capsys.readouterr().out == "✓ scale: all 2 cases pass\n✓ scale: the case passes\n✓ scale: it scales\n"


def test_a_wrong_value_is_told_with_the_call_the_result_and_the_first_difference():
    assert failure(lambda a, factor: a * 2) == (
        "scale, case 2 of 2 (times zero):\n"
        "  scale(a=tensor [[0, 1], [2, 3]], factor=0)\n"
        "  returned tensor [[0, 2], [4, 6]]\n"
        "  expected tensor [[0, 0], [0, 0]]\n"
        "  3 of 4 numbers differ; the first at [0, 1] is 2 instead of 0.\n"
        "  Worth checking: zero is a number too"
    )


def in_place(a, factor):
    a *= factor
    return a


def raises(a, factor):
    return a / [factor]


WRONG = [
    (lambda a, factor: (a * factor).T[:1], "Its shape is (1, 2) instead of (2, 2)."),
    (lambda a, factor: (a * factor).tolist(), "It is a list instead of a tensor."),
    (lambda a, factor: (a * factor).numpy(), "It is a NumPy array instead of a tensor."),
    (lambda a, factor: (a * factor).long(), "It holds whole numbers instead of floating-point numbers."),
    (lambda a, factor: a * factor > 0, "It holds True and False instead of floating-point numbers."),
    (lambda a, factor: a * factor / 0 * 0, "It contains NaN (not a number): is something divided by zero?"),
    (raises, "raised TypeError: unsupported operand type(s) for /: 'Tensor' and 'list'\n  in raises, line"),
    (in_place, "changed its argument a, which its caller still needs"),
    (3, "give the check scale itself, as in check_scale(scale), not 3"),
]


@pytest.mark.parametrize(("fn", "message"), WRONG)
def test_each_kind_of_wrong_answer_is_told_in_its_words(fn, message):
    assert message in failure(fn)


def test_jupyter_shows_the_short_message_alone():
    shown = CheckFailed("short")._render_traceback_()
    assert len(shown) == 1 and "✗" in shown[0] and shown[0].endswith("short")


def test_a_known_mistake_is_named_only_where_it_gives_the_same_results():
    known = {"a * factor -> a[9]": "never named", "* factor ->": "did you forget the factor?"}
    assert failure(lambda a, factor: a, mistakes=known).endswith("Likely: did you forget the factor?")
    assert "Likely" not in failure(lambda a, factor: a + 1, mistakes=known)
    # right on the first case, where the mistake is not: another mistake, though the last results agree
    once = iter([A * 2, A])
    assert "Likely" not in failure(lambda a, factor: next(once), mistakes=known)


def test_a_mistake_is_an_edit_several_edits_or_a_function():
    assert wrong_answer(scale, ("a * -> b *", "scale(a -> scale(b"))(3, 4) == 12
    assert wrong_answer(scale, "a * factor -> a - factor")(3, 4) == -1
    assert wrong_answer(scale, raises) is raises
    for edit in ("a / factor -> a", "a * factor"):
        with pytest.raises(ValueError, match="the solution scale has no"):
            wrong_answer(scale, edit)


class Scale:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, a):
        return a * self.factor


def test_a_probe_makes_of_an_answer_what_is_compared():
    def built(answer):
        return lambda a, factor: answer(factor)(a)

    exercise = Exercise(Scale, HINTS, CASES, {"a * self.factor -> a": "the factor is not used."}, probe=built)
    exercise.check(Scale)
    with pytest.raises(CheckFailed, match=r"Scale, case 1 of 2 (?s:.)*the factor is not used"):
        exercise.check(wrong_answer(Scale, "* self.factor -> * 1"))

    def refuse(a, factor):
        raise CheckFailed("it has no gradient")

    assert failure(scale, [Case((A, 2), "", A)], probe=lambda answer: refuse).endswith("\n  it has no gradient")


@pytest.mark.parametrize("got", [[1, 3], (1, 3), np.array([1, 3]), torch.tensor([1, 3]), [torch.tensor(1), 3]])
def test_lists_and_arrays_may_count_as_tensors(got):
    assert difference(tensor_from(lambda: got)(), torch.tensor([1, 3]), 0.0) == ""
    assert difference(tensor_from(list)(), torch.zeros(0, dtype=torch.int64), 0.0) == ""


def test_a_judge_speaks_after_the_cases_and_stumbles_over_nothing():
    def judge(answer):
        return "it is not odd." if answer(1, 2) != -answer(-1, 2) else ""

    assert failure(lambda a, factor: abs(a) * factor, judge=judge) == "scale: it is not odd."
    assert "raised TypeError" in failure(raises, cases=(), judge=judge)
    assert "case 1 of 2" in failure(lambda a, factor: abs(a), judge=judge)


def test_arguments_are_copies_that_keep_gradients_and_modules_must_stay_as_they_are():
    weight, layer = torch.ones(2, requires_grad=True), torch.nn.Linear(2, 1)

    def kept(w, module):
        assert w is not weight and w.requires_grad and module is not layer
        return module

    def trained(w, module):
        return torch.nn.init.zeros_(module.weight)

    exercise = Exercise(kept, HINTS, [Case((weight, layer), "", layer)])
    exercise.check(kept)
    with pytest.raises(CheckFailed, match="changed its argument module"):
        exercise.check(trained)


AGREE = [
    (1, 1.0),
    (torch.tensor(2.0), 2),
    (np.float32(0.5), 0.5),
    ([1, 2], (1, 2)),
    (Pair(1, A), (1, A.clone())),
    ({"a": A}, {"a": A.double()}),
    (math.nan, math.nan),
    (torch.ones(2, dtype=torch.int32), torch.ones(2, dtype=torch.int64)),
    (torch.ones(2, dtype=torch.bfloat16), torch.ones(2)),
]
DIFFER = [
    (1, 2, "The number differs."),
    (True, 1, "It holds True and False instead of whole numbers."),
    ("1", 1, "It is a str instead of a number."),
    (torch.zeros(0, 4), torch.zeros(4, 0), "Its shape is (0, 4) instead of (4, 0)."),
    ([1], [1, 2], "It has 1 value instead of 2."),
    (A, (A, A), "It is a tensor instead of 2 values in a tuple or list."),
    ((A, A + 1), (A, A), "value 2: 4 of 4 numbers differ; the first at [0, 0] is 1 instead of 0."),
    ({"a": 1}, {"b": 1}, "Missing keys: ['b']; unexpected keys: ['a']."),
    ({"a": [1]}, {"a": [2]}, "['a']: value 1: The number differs."),
    ([], {}, "It is a list instead of a dictionary."),
    ("S", "M", "They are not equal."),
    (3, torch.nn.ReLU(), "It is a number instead of a module."),
]


@pytest.mark.parametrize(("got", "expected"), AGREE)
def test_results_that_mean_the_same_agree(got, expected):
    assert difference(got, expected, 1e-5) == ""


@pytest.mark.parametrize(("got", "expected", "words"), DIFFER)
def test_results_that_differ_are_told_apart(got, expected, words):
    assert difference(got, expected, 1e-5) == words


@given(
    hnp.arrays(float, (2, 3), elements=st.floats(-1e3, 1e3)),
    hnp.arrays(float, (2, 3), elements=st.floats(-2e-3, 2e-3)),
    st.sampled_from([0.0, 1e-6, 1e-3]),
)
def test_tolerance_is_that_of_torch_testing(expected, noise, tolerance):
    got, wanted = torch.tensor(expected + noise), torch.tensor(expected)
    try:
        torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)
        agree = True
    except AssertionError:
        agree = False
    assert (difference(got, wanted, tolerance) == "") is agree


def test_values_are_shown_compactly():
    assert show_value(torch.zeros(5, 8)) == "tensor of shape (5, 8), float32"
    assert show_value(np.array([1, 2])) == "array [1, 2]"
    assert show_value((0.123456789, [1, True, "x"])) == "(0.12346, [1, True, 'x'])"
    assert show_value(list(range(9))) == "[0, 1, 2, 3, 4, 5, …]"
    assert show_value(torch.nn.ReLU()) == "ReLU"
    assert len(show_value("x" * 500)) == 118


def test_copies_are_deep_for_what_can_be_changed():
    value = (A, [np.ones(2)], {"k": Pair(A, 1)})
    copied = copy_value(value)
    assert difference(copied, value, 0.0) == "" and isinstance(copied[2]["k"], Pair)
    copied[0][0, 0], copied[1][0][0], copied[2]["k"].first[0, 0] = 9.0, 9.0, 9.0
    assert A[0, 0] == 0 and value[1][0][0] == 1


def test_hints_come_one_at_a_time_and_a_solution_is_shown_as_source(capsys):
    exercises = Exercises(Exercise(scale, HINTS, CASES))
    exercises.hint("scale")
    exercises.hint("scale", 2)
    exercises.solution("scale")
    assert capsys.readouterr().out == (
        "Hint 1 of 3 for scale:\nMultiply.\nHint 2 of 3 for scale:\nUse *.\n"
        "def scale(a, factor):\n    return a * factor\n"
    )
    with pytest.raises(ValueError, match="'scales'; did you mean 'scale'"):
        exercises.hint("scales")
    with pytest.raises(ValueError, match="'iou'; choose one of: scale"):
        exercises.solution("iou")
    for level in (0, 4):
        with pytest.raises(ValueError, match=f"level must be from 1 to 3, not {level}"):
            exercises.hint("scale", level)
