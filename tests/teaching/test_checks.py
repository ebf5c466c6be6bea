"""Every exercise of every notebook: right answers pass however they are written, wrong ones are told what is wrong.

`answers/nbNN.py` holds, for each notebook, answers in other styles, and wrong answers (functions, or edits of those in
other styles) with words that the message must contain.
"""

from importlib import import_module

import pytest

from yolonas_lab.teaching.exercises import CheckFailed, wrong_answer

NOTEBOOKS = [f"nb{n:02d}" for n in range(14)]
CHECKS = {name: import_module(f"yolonas_lab.teaching.checks.{name}") for name in NOTEBOOKS}
ANSWERS = {name: import_module(f"answers.{name}") for name in NOTEBOOKS}
EXERCISES = [(notebook, exercise) for notebook in NOTEBOOKS for exercise in CHECKS[notebook].EXERCISES]
MISTAKES = [
    pytest.param(exercise, mistake, says, id=f"{notebook}-{exercise.name}-{says[:40]}")
    for notebook in NOTEBOOKS
    for exercise in CHECKS[notebook].EXERCISES.values()
    for mistake, says in exercise.mistakes.items()
]
RIGHT = [(notebook, *row) for notebook in NOTEBOOKS for row in ANSWERS[notebook].RIGHT]
WRONG = [(notebook, *row) for notebook in NOTEBOOKS for row in ANSWERS[notebook].WRONG]


def unwritten(*arguments):
    raise NotImplementedError


@pytest.mark.parametrize(("notebook", "name"), EXERCISES)
def test_an_exercise_is_complete_and_its_solution_passes(notebook, name, capsys):
    module = CHECKS[notebook]
    exercise = module.EXERCISES[name]
    assert exercise.judge or (exercise.cases and len(exercise.mistakes) >= 3)
    assert getattr(module, f"check_{name}") == exercise.check and getattr(module, name) is exercise.solution
    exercise.check(exercise.solution)
    said = exercise.passed or f"all {len(exercise.complete_cases())} cases pass"
    assert capsys.readouterr().out == f"✓ {name}: {said}\n"
    assert len(set(exercise.hints)) == 3 and "return" not in exercise.hints[0].split()
    module.hint(name, 3)
    module.solution(name)
    assert "Hint 3 of 3" in (shown := capsys.readouterr().out) and f"def {name}(" in shown


@pytest.mark.parametrize(("notebook", "name"), EXERCISES)
def test_what_is_no_answer_is_reported(notebook, name):
    check = CHECKS[notebook].EXERCISES[name].check
    for nothing, words in [
        (unwritten, "not written yet: replace `raise"),
        (lambda *arguments: ..., "not written yet: replace the `...`"),
        (lambda *arguments: None, "returned None: is there a `return`"),
        (lambda *arguments: {}["no use"], "raised KeyError: 'no use'\n  in <lambda>, line"),
        ([1, 2], f"give the check {name} itself"),
    ]:
        with pytest.raises(CheckFailed) as failure:
            check(nothing)
        assert words in str(failure.value)


@pytest.mark.parametrize(("exercise", "mistake", "says"), MISTAKES)
def test_a_listed_mistake_is_named_by_its_own_words(exercise, mistake, says):
    with pytest.raises(CheckFailed) as failure:
        exercise.check(wrong_answer(exercise.solution, mistake))
    assert str(failure.value).endswith(f"\n  Likely: {says}")


@pytest.mark.parametrize(("notebook", "name", "answer"), RIGHT)
def test_a_right_answer_in_another_style_passes(notebook, name, answer):
    CHECKS[notebook].EXERCISES[name].check(answer)


@pytest.mark.parametrize(("notebook", "name", "answer", "words"), WRONG)
def test_a_wrong_answer_is_told_what_is_wrong(notebook, name, answer, words):
    with pytest.raises(CheckFailed) as failure:
        CHECKS[notebook].EXERCISES[name].check(wrong_answer(*answer) if isinstance(answer, tuple) else answer)
    assert words in str(failure.value)
