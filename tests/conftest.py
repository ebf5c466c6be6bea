"""For notebooks under nbval: each cell's time budget is enforced, and outputs come out as they are stored.

nbval itself has one time limit for all cells. A cell's own limit is `metadata.yolonas_lab.budget_s`, in seconds. Load
this file with `-p tests.conftest` where the tests named on the command line lie outside this folder.
"""

import os
import time
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch loads; more threads slow small tensors

from yolonas_lab.teaching.notebook_run import HANG_FACTOR, STATIC_ENVIRONMENT, budget_of


def pytest_configure(config: pytest.Config) -> None:
    """Give the kernels that nbval starts the same environment as those that the stored outputs come from."""
    if getattr(config.option, "nbval", False) or getattr(config.option, "nbval_lax", False):
        os.environ.update(STATIC_ENVIRONMENT)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Any:
    """Fail a notebook cell that ran longer than its budget; one that hangs is interrupted at a multiple of it."""
    cell = getattr(item, "cell", None)  # nbval's items have one; other tests pass through
    if cell is None:
        return (yield)
    budget = budget_of(cell)
    item.config.option.nbval_cell_timeout = HANG_FACTOR * budget
    began = time.perf_counter()
    result = yield
    seconds = time.perf_counter() - began
    if seconds > budget:
        number = item.cell_num + 1  # type: ignore[attr-defined]
        pytest.fail(
            f"{item.path.name}, code cell {number} took {seconds:.1f} s, more than its budget of {budget:g} s: "
            f"make it faster, or give it more in the cell's metadata (yolonas_lab.budget_s).",
            pytrace=False,
        )
    return result
