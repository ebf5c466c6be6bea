"""The notebooks' command line: `python -m yolonas_lab.teaching.notebooks run|check [files]`.

`run` executes each notebook from a clean kernel, so that its outputs come out the same on every machine, and stores
them with a digest of the code (`run --no-save` stores nothing). `check` reads the stored files and says, in
milliseconds, which are not fit to be read: executed in order, outputs of this code, within the book's limits. Both exit
with 1 where something is wrong.
"""

import argparse
import hashlib
import itertools
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NOTEBOOK_FOLDER = "notebooks"
MAX_BYTES, MAX_CELLS, MAX_WORDS = 400_000, 60, 2_500
HEADER_PARTS = {"goals": r"\bgoals?\b", "prerequisites": r"\bprerequisites?\b", "minutes": r"\bminutes?\b"}
MACHINE_TRACES = r"/home/|/root/|/Users/|/tmp/|site-packages|[A-Z]:\\|\bat 0x[0-9a-f]{6,}"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
DEFAULT_BUDGET_S = 20.0  # seconds a cell may take in the tests; metadata.yolonas_lab.budget_s of the cell overrides it
HANG_FACTOR = 10  # a cell that takes this many times its budget is given up
STATIC_ENVIRONMENT = {
    "YOLONAS_LAB_STATIC": "1",
    "TQDM_DISABLE": "1",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
}
RUN_IT = "`python -m yolonas_lab.teaching.notebooks run`"


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command line; returns 0 where all is well, 1 where a notebook is not, 2 for wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m yolonas_lab.teaching.notebooks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="execute notebooks from clean kernels and store their outputs")
    run.add_argument("--no-save", action="store_true", help="execute only: store nothing")
    check = commands.add_parser("check", help="say which stored notebooks are not fit to be read")
    for command in (run, check):
        command.add_argument("files", nargs="*", help=f"notebooks or folders (default: {NOTEBOOK_FOLDER})")
    options = parser.parse_args(arguments)
    try:
        paths = find_notebooks(options.files or [NOTEBOOK_FOLDER])
        if options.command == "run":
            return _run(paths, save=not options.no_save)
        findings = [f"{path}: {finding}" for path in paths for finding in check_notebook(path)]
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(findings) or f"{len(paths)} notebook{'s' * (len(paths) != 1)} checked: all fit to be read")
    return int(bool(findings))


def find_notebooks(names: Sequence[str | Path]) -> list[Path]:
    """Return the notebooks that files and folders name, in order; FileNotFoundError where one names none."""
    paths: list[Path] = []
    for name in map(Path, names):
        found = sorted(name.glob("*.ipynb")) if name.is_dir() else [name]
        if not found:
            raise FileNotFoundError(f"there is no notebook in the folder {name}.")
        if not found[0].is_file() or found[0].suffix != ".ipynb":
            raise FileNotFoundError(f"there is no notebook {name}: name .ipynb files, or a folder that holds some.")
        paths += found
    return paths


def _run(paths: Sequence[Path], *, save: bool) -> int:
    """Execute the notebooks one after the other, also past a failing one, and print the table."""
    runs = []
    for path in paths:
        runs.append(run_notebook(path, save))
        if runs[-1].error:
            print(f"\n{runs[-1].error}\n", file=sys.stderr)
    print(table(runs))
    return int(any(run.error for run in runs))


@dataclass(frozen=True)
class Run:
    """How executing one notebook went: code cells run, seconds with kernel start, and the error in words ('': none)."""

    path: Path
    cells: int
    seconds: float
    error: str


def table(runs: Sequence[Run]) -> str:
    """Return a text table of runs: notebook, cells, seconds, ok, and a last line with the sums."""
    rows = [(run.path.name, run.cells, run.seconds, "NO" if run.error else "yes") for run in runs]
    failed = sum(bool(run.error) for run in runs)
    total = sum(run.cells for run in runs), sum(run.seconds for run in runs)
    rows.append(("all", *total, f"{failed} failed" if failed else "yes"))
    width = max(len("notebook"), *(len(name) for name, *_ in rows))
    lines = [f"{name:{width}}  {cells:5d}  {seconds:7.1f}  {ok}" for name, cells, seconds, ok in rows]
    return "\n".join([f"{'notebook':{width}}  cells  seconds  ok", *lines])


# --- Reading and writing ---


def read_notebook(path: Path) -> Any:
    """Read a notebook of format 4; cells without an id of their own get one that is the same at every reading."""
    from nbformat import v4

    used: set[str] = set()
    try:
        notebook: Any = v4.reads(path.read_text(encoding="utf-8"))
        cells = list(notebook.cells)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a Jupyter notebook: open it in JupyterLab and save it again.") from error
    notebook.nbformat_minor = 5
    for number, cell in enumerate(cells):
        if cell.get("id") is None or cell.id in used:
            cell.id = f"cell-{number:02d}"
        used.add(cell.id)
    return notebook


def write_notebook(notebook: Any, path: str | Path) -> None:
    """Write a notebook in Jupyter's own layout, whole or not at all."""
    import nbformat

    from yolonas_lab.common import write_bytes

    write_bytes(path, (nbformat.writes(notebook).rstrip("\n") + "\n").encode())


def source_digest(cells: list[Any]) -> str:
    """Return the SHA-256 of all code cells' sources in order, as 64 hexadecimal digits."""
    # As common.fingerprint does, but common imports torch, for which `check` need not wait.
    sources = [source_of(cell) for cell in _code_cells(cells)]
    return hashlib.sha256(json.dumps(sources, ensure_ascii=False).encode()).hexdigest()


def source_of(cell: Any) -> str:
    """Return a cell's source as one string (files may store it as a list of lines)."""
    return "".join(cell["source"])


def tags_of(cell: Any) -> list[str]:
    """Return a cell's tags."""
    return cell.get("metadata", {}).get("tags", [])


def budget_of(cell: Any) -> Any:
    """Return the seconds that a cell may take."""
    return cell.get("metadata", {}).get("yolonas_lab", {}).get("budget_s", DEFAULT_BUDGET_S)


def _code_cells(cells: Sequence[Any]) -> list[Any]:
    return [cell for cell in cells if cell["cell_type"] == "code"]


# --- Executing, by nbclient ---


def run_notebook(path: Path, save: bool = True) -> Run:
    """Execute a notebook from a clean kernel, in its folder, and with `save` store its outputs and stamp in the file.

    A notebook that fails is left as it was. Widgets become plain figures, progress bars are off, timings and versions
    are left out.
    """
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
    from tqdm import tqdm

    notebook = read_notebook(path)
    code = _code_cells(notebook.cells)
    for cell in code:
        cell.outputs, cell.execution_count = [], None
    began, error = time.perf_counter(), ""
    own_kernel = KernelSpecManager(kernel_dirs=[])  # of this Python, whatever kernels are installed elsewhere
    with tqdm(total=len(code), desc=path.name, unit="cell", leave=False) as bar:
        client = NotebookClient(
            notebook,
            km=AsyncKernelManager(kernel_name="python3", kernel_spec_manager=own_kernel),
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
    elif save:
        _normalise(notebook)
        write_notebook(notebook, path)
    return Run(path, done, time.perf_counter() - began, error)


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
    for cell in _code_cells(notebook.cells):
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


# --- Checking: reads the file as JSON and executes nothing ---


def check_notebook(path: str | Path) -> list[str]:
    """Return what is wrong with the notebook file, one line each; an empty list if it is fit."""
    data = Path(path).read_bytes()
    try:
        notebook = json.loads(data)
        cells = notebook["cells"]
        words = sum(_word_count(source_of(cell)) for cell in cells if cell["cell_type"] == "markdown")
        code = [(f"code cell {n}", cell, source_of(cell)) for n, cell in enumerate(_code_cells(cells), start=1)]
    except (ValueError, KeyError, TypeError):
        return ["is not a Jupyter notebook of format 4: open it in JupyterLab and save it again"]
    limits = ((len(data), MAX_BYTES, "bytes"), (len(cells), MAX_CELLS, "cells"), (words, MAX_WORDS, "words of text"))
    too_much = [f"has {count:,} {unit}, more than {limit:,}" for count, limit, unit in limits if count > limit]
    if not code:
        return [*too_much, "has no code cell"]
    metadata, ids = notebook.get("metadata", {}), [cell.get("id") for cell in cells]
    counts = [cell.get("execution_count") for _, cell, _ in code]
    wrong = [f"{code[n - 1][0]} has execution count {count}" for n, count in enumerate(counts, start=1) if count != n]
    never_run = all(count is None for count in counts)
    stamp = metadata.get("yolonas_lab", {}).get("source")
    changed = stamp is not None and stamp != source_digest(cells)
    header = "\n".join(map(source_of, itertools.takewhile(lambda cell: cell["cell_type"] != "code", cells)))
    missing = [name for name, pattern in HEADER_PARTS.items() if not re.search(pattern, header, re.IGNORECASE)]
    of_all = [
        (never_run, f"was never run: use {RUN_IT}"),
        (wrong and not never_run, f"{''.join(wrong[:1])}: run the notebook from a clean kernel"),
        (stamp is None, f"has no stamp of its code: use {RUN_IT}"),
        (changed, "its code changed after its outputs were stored: run it again"),
        ("widgets" in metadata, f"stores widget state: run it with {RUN_IT}"),
        (None in ids or len(set(ids)) < len(ids), "has cells without an id of their own: `run` gives them one"),
    ]
    of_cells = [
        (bad, f"{name} {finding}") for name, cell, source in code for bad, finding in _cell_findings(cell, source)
    ]
    of_head = [(missing, f"says nothing of {' and '.join(missing)} before its first code cell")]
    return [finding for bad, finding in (*of_all, *of_cells, *of_head) if bad] + too_much


def _cell_findings(cell: dict, source: str) -> list[tuple[Any, str]]:
    """Pairs of a condition that makes a code cell unfit and the words for it."""
    outputs, budget, meant = cell.get("outputs", []), budget_of(cell), "raises-exception" in tags_of(cell)
    errors = [str(output.get("ename")) for output in outputs if output["output_type"] == "error"]
    live = any(WIDGET_VIEW in output.get("data", {}) for output in outputs)
    texts = [(o.get("text", ""), o.get("traceback", ""), o.get("data", {}).get("text/plain", "")) for o in outputs]
    printed = "\n".join(text if isinstance(text, str) else "\n".join(text) for three in texts for text in three)
    traces = re.findall(MACHINE_TRACES, printed)
    unequal = source.count("### BEGIN SOLUTION") != source.count("### END SOLUTION")
    no_time = isinstance(budget, bool) or not isinstance(budget, int | float) or budget <= 0
    return [
        (not source.strip(), "is empty: delete it"),
        (errors and not meant, f"stores an error: {''.join(errors[:1])}"),
        (meant and not errors, "is tagged raises-exception but stores no error"),
        (live, "stores a live widget: run it with YOLONAS_LAB_STATIC=1"),
        (traces, f"stores a trace of the machine in its output: {''.join(traces[:1])!r}"),
        (unequal, "has unequal numbers of BEGIN SOLUTION and END SOLUTION"),
        (source.rstrip().endswith(";"), "ends with ';', which the tests do not heed: begin the line with `_ = `"),
        (no_time, f"has budget_s {budget!r}: it must be a number of seconds above 0"),
    ]


def _word_count(markdown: str) -> int:
    """Count words a reader reads: no HTML tags, no addresses of links and embedded pictures."""
    text = re.sub(r"<[^>]+>|\]\([^)]*\)", " ", markdown)
    return len(re.findall(r"[^\W_][\w'’.-]*", text))


if __name__ == "__main__":
    sys.exit(main())
