import random
import subprocess
import sys
import warnings

import matplotlib
import numpy as np
import pytest
import torch

from yolonas_lab.teaching import setup_notebook
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"seed": -1}, "seed must be between"), ({"seed": 2**32}, "seed must be"), ({"threads": 0}, "threads must be at")],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        setup_notebook(**arguments)


def test_importing_the_teaching_package_loads_no_heavy_package():
    code = "import sys, yolonas_lab.teaching, yolonas_lab.teaching.notebooks; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"torch", "matplotlib", "IPython", "ipywidgets", "nbclient", "nbformat", "PIL"}.isdisjoint(loaded)
