import pytest

from yolonas_lab.teaching import setup as report
from yolonas_lab.teaching.checks import nb00
from yolonas_lab.teaching.exercises import CheckFailed


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
