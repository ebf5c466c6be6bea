"""For notebooks under nbval: each cell's time budget is enforced, and outputs come out as they are stored.

nbval itself has one time limit for all cells. A cell's own limit is `metadata.yolonas_lab.budget_s`, in seconds. Load
this file with `-p tests.conftest` where the tests named on the command line lie outside this folder. Also here: what
several test processes (pytest-xdist) share, and what each has to itself.
"""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import matplotlib
import psutil
import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch loads; more threads slow small tensors

from yolonas_lab.teaching.notebooks import HANG_FACTOR, STATIC_ENVIRONMENT, budget_of

# No test depends on how busy the machine is: hypothesis measures by the clock, and other test processes run beside.
settings.register_profile("by_no_clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("by_no_clock")

EXPORTS_VARIABLE = "YOLONAS_LAB_TEST_EXPORTS"  # a folder of this run for files that several processes read


def pytest_configure(config: pytest.Config) -> None:
    """Give the kernels that nbval starts the same environment as those that the stored outputs come from."""
    if getattr(config.option, "nbval", False) or getattr(config.option, "nbval_lax", False):
        os.environ.update(STATIC_ENVIRONMENT)
    process = getattr(config, "workerinput", None)
    if process is None:
        os.environ[EXPORTS_VARIABLE] = tempfile.mkdtemp(prefix="yolonas_lab_exports_")
    else:
        from yolonas_lab.experiments.scenes import FOLDER_VARIABLE, cache_folder

        # One of several processes: none draws its scenes into another's folder.
        os.environ[FOLDER_VARIABLE] = str(cache_folder() / f"tests-{process['workerid']}")


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(EXPORTS_VARIABLE), ignore_errors=True)


@pytest.fixture(autouse=True)
def own_figure_style() -> Iterator[None]:
    """What a test changes in matplotlib's settings does not outlast it, whichever tests share its process."""
    with matplotlib.rc_context():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Any:
    """Fail a notebook cell that ran longer than its budget; one that hangs is interrupted at a multiple of it."""
    cell = getattr(item, "cell", None)  # nbval's items have one; other tests pass through
    if cell is None:
        return (yield)
    budget, kernel = budget_of(cell), item.parent.kernel  # type: ignore[union-attr]
    item.config.option.nbval_cell_timeout = HANG_FACTOR * budget
    began, cpu_began = time.perf_counter(), cpu_seconds(kernel)
    result = yield
    # The lesser of the two: neither other processes on the machine nor threads of the cell's own make it slower.
    seconds = min(time.perf_counter() - began, cpu_seconds(kernel) - cpu_began)
    if seconds > budget:
        number = item.cell_num + 1  # type: ignore[attr-defined]
        pytest.fail(
            f"{item.path.name}, code cell {number} took {seconds:.1f} s, more than its budget of {budget:g} s: "
            f"make it faster, or give it more in the cell's metadata (yolonas_lab.budget_s).",
            pytrace=False,
        )
    return result


def cpu_seconds(kernel: Any) -> float:
    """CPU time that nbval's kernel and the processes it started have used so far; 0 where the kernel is dead."""
    if not kernel.is_alive():
        return 0.0
    root, used = psutil.Process(kernel.km.provisioner.pid), 0.0
    for process in (root, *root.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended: its parent's times include it
            times = process.cpu_times()
            used += times.user + times.system + times.children_user + times.children_system
    return used
