import random
import subprocess
import sys
import warnings

import matplotlib
import numpy as np
import pytest
import torch

from yolonas_lab.teaching import setup as report
from yolonas_lab.teaching import setup_notebook
from yolonas_lab.teaching.checks import nb00
from yolonas_lab.teaching.exercises import CheckFailed
from yolonas_lab.teaching.setup import FIGURE_STYLE


@pytest.fixture(autouse=True)
def global_state_is_restored():
    threads, printing = torch.get_num_threads(), np.get_printoptions()
    with matplotlib.rc_context(), warnings.catch_warnings():
        yield
    torch.set_num_threads(threads)
    torch.set_printoptions(profile="default")
    np.set_printoptions(**printing)


def draws():
    return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002


def test_all_generators_are_seeded_and_nothing_is_printed(capsys):
    assert setup_notebook(seed=3) is None
    first = draws()
    setup_notebook(seed=3)
    assert draws() == first
    setup_notebook(seed=4)
    assert all(a != b for a, b in zip(draws(), first))
    assert capsys.readouterr() == ("", "")


def test_threads_and_figure_style_are_set():
    setup_notebook(threads=2)
    assert torch.get_num_threads() == 2
    assert matplotlib.RcParams({**matplotlib.rcParams, **FIGURE_STYLE}) == matplotlib.rcParams  # pyright: ignore
    setup_notebook()
    assert torch.get_num_threads() == 1


def test_only_warnings_that_are_listed_are_hidden():
    setup_notebook()
    with warnings.catch_warnings(record=True) as caught:
        warnings.warn("IProgress not found. Please update jupyter", stacklevel=1)
        warnings.warn("something a reader should see", stacklevel=1)
    assert [str(w.message) for w in caught] == ["something a reader should see"]


def test_importing_the_teaching_package_loads_no_heavy_package():
    code = "import sys, yolonas_lab.teaching, yolonas_lab.teaching.notebooks; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"torch", "matplotlib", "IPython", "ipywidgets", "nbclient", "nbformat", "PIL"}.isdisjoint(loaded)


def test_setup_of_this_machine_is_reported():
    findings = {finding.about: finding for finding in report.setup_report()}
    assert list(findings) == ["Python", "torch", "packages", "symbols", "sliders", "threads", "GPU", "TensorRT"]
    assert findings["Python"].ok and findings["symbols"].ok
    assert findings["sliders"].ok is None  # no Jupyter here
    assert "✈" in findings["symbols"].found and "18 symbols" in findings["symbols"].found


def test_missing_and_old_packages_are_named_but_not_those_of_extras(monkeypatch):
    wanted = ["torch>=2.9", "numpy (>=2.0)", "tqdm>=4", "av>=14; extra == 'video'", 'x>=1; python_version < "3"']
    versions = {"torch": "2.4.0+cpu", "numpy": "2.4.1", "tqdm": None}
    monkeypatch.setattr(report.metadata, "requires", lambda name: wanted)
    monkeypatch.setattr(report, "_installed", versions.get)
    finding = report._packages()
    assert finding.ok is False and finding.found == "torch is 2.4.0+cpu, not >=2.9; tqdm is missing"


def test_a_font_that_is_missing_is_said(monkeypatch):
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
