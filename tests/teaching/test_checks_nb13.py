import statistics

import pytest
from open_exercise import assert_called_open

from yolonas_lab.teaching.checks import nb13
from yolonas_lab.teaching.exercises import CheckFailed
from yolonas_lab.teaching.lessons.nb13 import WELL_FORMED

CHECKS = {"fix_qdq": nb13.check_fix_qdq, "benchmark": nb13.check_benchmark}


@pytest.mark.parametrize("name", CHECKS)
def test_reference_solutions_pass(name, capsys):
    CHECKS[name](nb13.SOLUTIONS[name])
    assert capsys.readouterr().out.startswith(f"✓ {name}")


def test_solutions_written_in_another_way_pass():
    def benchmark(candidates, wait, clock, rounds, warmup):
        for _ in range(warmup):
            for run in candidates.values():
                run()
                wait()
        rows = []
        for _ in range(rounds):
            row = {}
            for name, run in reversed(candidates.items()):
                begin = clock()
                run()
                wait()
                row[name] = clock() - begin
            rows.append(row)
        return {name: statistics.median(row[name] for row in rows) * 1e3 for name in candidates}

    nb13.check_benchmark(benchmark)
    nb13.check_fix_qdq(lambda text: WELL_FORMED)
    nb13.check_fix_qdq(lambda text: nb13.fix_qdq(text).replace("s_t", "s_y"))


def float_conv1(text):
    """The mistakes repaired, conv1's by leaving it in float."""
    return nb13.fix_qdq(text).replace("(image, w1, b)", "(images, w1_float, b)")


WRONG = [
    ("fix_qdq", lambda text: text, "a rule is still broken.*R1 at conv1"),
    ("fix_qdq", lambda text: text.replace("w1_float", "w1"), "R6 at sum"),
    ("fix_qdq", lambda text: nb13.fix_qdq(text).replace("s_y", "s_t", 1), "moved by"),
    ("fix_qdq", float_conv1, "conv1 no longer runs in INT8"),
    ("fix_qdq", lambda text: nb13.fix_qdq(text).replace("(image, w1, b)", "(image, w1)"), "another network"),
    ("fix_qdq", lambda text: nb13.fix_qdq(text).replace("(image, w1", "(image w1"), "not ONNX text"),
    ("fix_qdq", lambda text: None, "not NoneType"),
    ("benchmark", nb13._without_wait, "only hands the work over"),
    ("benchmark", nb13._in_seconds, "makes milliseconds"),
    ("benchmark", nb13._with_warmup, "throw them away"),
    ("benchmark", nb13._late_start, "still running when you start"),
    ("benchmark", nb13._mean, "moved by every interruption"),
    ("benchmark", nb13._fastest, "one lucky run"),
    ("benchmark", nb13._one_after_the_other, "a warmer GPU"),
    ("benchmark", lambda c, wait, clock, rounds, warmup: {}, "expected"),
]


@pytest.mark.parametrize(("name", "wrong", "advice"), WRONG)
def test_wrong_solutions_are_told_what_is_wrong(name, wrong, advice):
    with pytest.raises(CheckFailed, match=advice):
        CHECKS[name](wrong)


@pytest.mark.parametrize("name", CHECKS)
def test_an_open_exercise_says_so(name):
    assert_called_open(CHECKS[name])


@pytest.mark.parametrize("name", CHECKS)
def test_every_exercise_has_graded_hints_and_a_solution(name, capsys):
    for level in range(1, len(nb13.HINTS[name]) + 1):
        nb13.hint(name, level)
    nb13.solution(name)
    assert f"def {name}(" in capsys.readouterr().out
