import re

import pytest
import torch

from yolonas_lab.teaching import setup as report
from yolonas_lab.teaching.checks import nb00
from yolonas_lab.teaching.exercises import CheckFailed


def test_reference_solutions_pass(capsys):
    nb00.check_speedup(nb00.speedup)
    nb00.check_kept_by_threshold(nb00.kept_by_threshold)
    assert capsys.readouterr().out == "✓ speedup: all 4 cases pass\n✓ kept_by_threshold: all 6 cases pass\n"


def test_other_right_answers_pass():
    nb00.check_speedup(lambda ms_before, ms_after: torch.tensor(ms_before / ms_after, dtype=torch.float64))

    def with_plain_lists(scores, threshold):
        pairs = sorted(((score, i) for i, score in enumerate(scores.tolist()) if score > threshold), reverse=True)
        return [i for _, i in pairs]

    nb00.check_kept_by_threshold(with_plain_lists)
    nb00.check_kept_by_threshold(lambda s, t: torch.tensor(with_plain_lists(s, t), dtype=torch.int64).numpy())


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        (lambda b, a: a / b, "upside down"),
        (lambda b, a: b - a, "time saved in ms"),
        (lambda b, a: 1 - a / b, "part of the time that was saved"),
        (lambda b, a: b / a - 1, "leave out the"),
        (lambda b, a: 100 * (b / a - 1), "percentage"),
        (lambda b, a: max(1.0, b / a), "needs no special case"),
        (lambda b, a: None, "is there a `return`"),
    ],
)
def test_wrong_speedups_are_named(wrong, advice):
    with pytest.raises(CheckFailed, match=re.escape(advice)):
        nb00.check_speedup(wrong)


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        (lambda s, t: [i for i in s.argsort(descending=True).tolist() if s[i] >= t], "use > instead of >="),
        (lambda s, t: (s > t).nonzero().flatten(), "not ordered by score"),
        (lambda s, t: [i for i in s.argsort().tolist() if s[i] > t], "descending=True"),
        (lambda s, t: s[s > t], "where they stand"),
        (lambda s, t: s[s > t].sort(descending=True).values, "where they stand"),
        (lambda s, t: s[s > t].argsort(descending=True), "positions among the kept scores only"),
        (lambda s, t: s > t, "mask of True and False"),
        (lambda s, t: (s > t).nonzero(), "Its shape is (2, 1) instead of (2,)"),
        (lambda s, t: s.sort_(descending=True).indices[: int((s > t).sum())], "raised AttributeError"),
    ],
)
def test_wrong_thresholds_are_named(wrong, advice):
    with pytest.raises(CheckFailed, match=re.escape(advice)):
        nb00.check_kept_by_threshold(wrong)


def test_a_blank_exercise_and_a_result_instead_of_a_function():
    def kept_by_threshold(scores, threshold):
        raise NotImplementedError

    with pytest.raises(CheckFailed, match="not written yet"):
        nb00.check_kept_by_threshold(kept_by_threshold)
    with pytest.raises(CheckFailed, match="your function itself"):
        nb00.check_kept_by_threshold([1, 2])  # pyright: ignore[reportArgumentType]


def test_hints_grow_and_the_last_one_is_right(capsys):
    for name, hints in nb00.HINTS.items():
        assert len(hints) == 3
        nb00.hint(name, 3)
        assert "Hint 3 of 3" in capsys.readouterr().out
    nb00.check_speedup(lambda ms_before, ms_after: eval(nb00.HINTS["speedup"][-1].removeprefix("return ")))
    nb00.solution("kept_by_threshold")
    assert "descending=True" in capsys.readouterr().out
    with pytest.raises(ValueError, match="there are no hints for 'iou'"):
        nb00.hint("iou")


def test_setup_of_this_machine_is_reported(capsys):
    findings = {finding.about: finding for finding in report.setup_report()}
    assert list(findings) == ["Python", "torch", "packages", "symbols", "sliders", "threads", "GPU", "TensorRT"] or (
        findings["packages"].ok is False  # where the package itself is not installed
    )
    assert findings["Python"].ok and findings["symbols"].ok
    assert findings["sliders"].ok is None  # no Jupyter here
    assert "✈" in findings["symbols"].found and "18 symbols" in findings["symbols"].found


def test_requirements_without_extras_are_compared_by_version():
    wanted = ["torch>=2.9", "numpy (>=2.0)", "av>=14; extra == 'video'", "tqdm", 'x-y>=1.2.3; python_version < "4"']
    assert report.parse_requirements(wanted) == {"torch": "2.9", "numpy": "2.0", "tqdm": "0", "x-y": "1.2.3"}
    assert report._numbers("2.13.0+cpu") == (2, 13, 0) > report._numbers("2.9")


def test_what_is_missing_is_said(monkeypatch):
    assert report._python((3, 10, 4)).ok is False and "3.11" in report._python((3, 10, 4)).advice
    versions = {"torch": "2.4.0+cpu", "numpy": "2.4.1", "tqdm": None}
    monkeypatch.setattr(report.metadata, "requires", lambda name: ["torch>=2.9", "numpy>=2.0", "tqdm>=4"])
    monkeypatch.setattr(report, "_installed", versions.get)
    finding = report._packages()[-1]
    assert finding.ok is False
    assert finding.found == "torch is 2.4.0+cpu, older than 2.9; tqdm is missing"


def test_an_absent_package_and_an_absent_font(monkeypatch):
    assert "not installed in this Python" in report._packages("no-such-package-here")[0].advice

    def no_font(characters):
        raise FileNotFoundError("The font is missing: reinstall it.")

    monkeypatch.setattr("yolonas_lab.data.glyphs.require_characters", no_font)
    assert report._symbols().ok is False and "reinstall" in report._symbols().advice


def test_check_setup_fails_where_something_needed_is_missing(monkeypatch, capsys):
    good, optional = report.Finding("Python", "3.11.2", True), report.Finding("GPU", "none", None)
    monkeypatch.setattr(nb00, "setup_report", lambda: [good, optional])
    nb00.check_setup()
    assert capsys.readouterr().out == "✓ Python    3.11.2\n– GPU       none\n\nEverything the notebooks need is here.\n"
    bad = report.Finding("packages", "tqdm is missing", False, "Install it.")
    monkeypatch.setattr(nb00, "setup_report", lambda: [good, bad])
    with pytest.raises(CheckFailed, match=r"packages: tqdm is missing\. Install it"):
        nb00.check_setup()
