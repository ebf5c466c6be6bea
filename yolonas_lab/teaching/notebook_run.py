"""Executing a notebook from a clean kernel, so that its stored outputs come out the same on every machine.

Widgets are plain figures (YOLONAS_LAB_STATIC), progress bars are off, timings and versions are left out, and the code's
digest is stamped into the file. Built on nbclient.
"""

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolonas_lab.teaching.notebook_check import source_digest, tags_of

DEFAULT_BUDGET_S = 20.0  # seconds a cell may take in the tests; metadata.yolonas_lab.budget_s of the cell overrides it
HANG_FACTOR = 10  # a cell that takes this many times its budget is given up
STATIC_ENVIRONMENT = {
    "YOLONAS_LAB_STATIC": "1",
    "TQDM_DISABLE": "1",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
}


@dataclass(frozen=True)
class Run:
    """How executing one notebook went: code cells run, seconds with kernel start, and the error in words ('': none)."""

    path: Path
    cells: int
    seconds: float
    error: str


def run_and_store(path: str | Path) -> Run:
    """Execute the notebook and store its outputs and stamp in the file (atomically); a failed one is left as it was."""
    run, notebook = _execute(Path(path))
    if not run.error:
        write_notebook(notebook, path)
    return run


def run_only(path: str | Path) -> Run:
    """Execute the notebook from a clean kernel and store nothing."""
    return _execute(Path(path))[0]


def write_notebook(notebook: Any, path: str | Path) -> None:
    """Write notebook JSON in Jupyter's own layout, to a temporary file beside `path` that then replaces it."""
    import nbformat

    target = Path(path)
    text = nbformat.writes(notebook).rstrip("\n") + "\n"
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    try:
        with open(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(temporary, target.stat().st_mode if target.exists() else 0o644)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def budget_of(cell: Any) -> float:
    """Return the seconds that a cell may take."""
    return float(cell.get("metadata", {}).get("yolonas_lab", {}).get("budget_s", DEFAULT_BUDGET_S))


def read_notebook(path: Path) -> Any:
    """Read a notebook of format 4; cells without an id of their own get one that is the same at every reading."""
    from nbformat import v4

    if not path.is_file():
        raise FileNotFoundError(f"there is no notebook {path}: name an existing .ipynb file.")
    try:
        notebook: Any = v4.reads(path.read_text(encoding="utf-8"))
        cells, version = list(notebook.cells), notebook.nbformat
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a Jupyter notebook: open it in JupyterLab and save it again.") from error
    if version != 4:
        raise ValueError(f"{path} has notebook format {version}, not 4: open it in JupyterLab and save it again.")
    notebook.nbformat_minor = 5
    used: set[str] = set()
    for number, cell in enumerate(cells):
        if cell.get("id") is None or cell.id in used:
            cell.id = f"cell-{number:02d}"
        used.add(cell.id)
    return notebook


def _execute(path: Path) -> tuple[Run, Any]:
    """Run all cells in a fresh kernel, in the notebook's folder; returns how it went and the notebook with outputs."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
    from tqdm import tqdm

    notebook = read_notebook(path)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        cell.outputs, cell.execution_count = [], None
    began, error = time.perf_counter(), ""
    with tqdm(total=len(code), desc=path.name, unit="cell", leave=False) as bar:
        client = NotebookClient(
            notebook,
            km=_kernel_of_this_python(),
            resources={"metadata": {"path": str(path.parent.resolve())}},
            timeout_func=lambda cell: HANG_FACTOR * budget_of(cell),
            extra_arguments=["--log-level=ERROR"],
            record_timing=False,
            store_widget_state=False,
            on_cell_executed=lambda cell, cell_index, execute_reply: bar.update(),
        )
        try:
            client.execute(env={**os.environ, **STATIC_ENVIRONMENT}, cleanup_kc=True)
        except CellExecutionError as failure:
            error = f"{failure.ename}: {failure.evalue}\n{failure.traceback}"
        except (CellTimeoutError, DeadKernelError) as failure:
            error = str(failure)
    done = sum(cell.execution_count is not None for cell in code)
    if error:
        error = f"{path}, code cell {_failing_cell(code)}: {error.rstrip()}"
    _normalise(notebook)
    return Run(path, done, time.perf_counter() - began, error), notebook


def _kernel_of_this_python() -> Any:
    """Return a manager for an IPython kernel of the running environment, whatever kernels are installed elsewhere."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    return AsyncKernelManager(kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))


def _failing_cell(code: list[Any]) -> int:
    """Return the number (from 1) of the code cell that stopped the run."""
    for number, cell in enumerate(code, start=1):
        failed = any(output.output_type == "error" for output in cell.outputs)
        if (failed and "raises-exception" not in tags_of(cell)) or cell.execution_count is None:
            return number
    return len(code)


def _normalise(notebook: Any) -> None:
    """Drop what differs between machines or runs, and stamp the digest of the code."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook.metadata["language_info"] = {"name": "python", "file_extension": ".py", "pygments_lexer": "ipython3"}
    kept = notebook.metadata.get("yolonas_lab", {})
    notebook.metadata["yolonas_lab"] = {**kept, "source": source_digest(notebook.cells)}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = _merge_streams(cell.outputs)


def _merge_streams(outputs: list[Any]) -> list[Any]:
    """Join neighboring pieces of the same stream: how print's output is cut into messages is a matter of timing."""
    merged: list[Any] = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged
