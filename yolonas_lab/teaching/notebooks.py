"""The notebooks' command line: `python -m yolonas_lab.teaching.notebooks run|check [files]`.

`run` executes each notebook from a clean kernel and stores its outputs (`run --no-save` stores nothing); `check` reads
the stored files and says, in milliseconds, which are not fit to be read. Both exit with 1 where something is wrong.
"""

import argparse
import hashlib
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Is a stored notebook fit to be read? Executed in order, outputs that belong to its code, within the book's limits.
#
# A digest of all code cells, stamped when the notebook is executed, proves that the outputs are those of this code.
# Reads the file as JSON and executes nothing, so that it takes milliseconds.

MAX_BYTES = 400_000
MAX_CELLS = 60
MAX_WORDS = 2_500
HEADER_PARTS = {"goals": r"\bgoals?\b", "prerequisites": r"\bprerequisites?\b", "minutes": r"\bminutes?\b"}
MACHINE_TRACES = r"/home/|/root/|/Users/|/tmp/|site-packages|[A-Z]:\\|\bat 0x[0-9a-f]{6,}"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def check_notebook(path: str | Path) -> list[str]:
    """Return what is wrong with the notebook file, one line each; an empty list if it is fit.

    Raises FileNotFoundError where there is no such file.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"there is no notebook {file}: name an existing .ipynb file.")
    data = file.read_bytes()
    try:
        notebook = json.loads(data)
        cells = notebook["cells"]
        sources = [source_of(cell) for cell in cells]
    except (ValueError, KeyError, TypeError):
        return ["is not a Jupyter notebook of format 4: open it in JupyterLab and save it again"]
    findings = [*_run_findings(notebook), *_output_findings(cells), *_cell_findings(cells), *_header_findings(cells)]
    words = sum(_word_count(source) for cell, source in zip(cells, sources) if cell["cell_type"] == "markdown")
    limits = ((len(data), MAX_BYTES, "bytes"), (len(cells), MAX_CELLS, "cells"), (words, MAX_WORDS, "words of text"))
    findings += [f"has {count:,} {unit}, more than {limit:,}" for count, limit, unit in limits if count > limit]
    return findings


def source_digest(cells: list[Any]) -> str:
    """Return the SHA-256 of all code cells' sources in order, as 64 hexadecimal digits."""
    code = [source_of(cell) for cell in cells if cell["cell_type"] == "code"]
    return hashlib.sha256(json.dumps(code, ensure_ascii=False).encode()).hexdigest()


def source_of(cell: Any) -> str:
    """Return a cell's source as one string (files may store it as a list of lines)."""
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def tags_of(cell: Any) -> list[str]:
    """Return a cell's tags."""
    return list(cell.get("metadata", {}).get("tags", []))


def _run_findings(notebook: dict) -> list[str]:
    """Find cells not run, or not run from top to bottom in one go, and outputs of other code than the stored one."""
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    counts = [cell.get("execution_count") for cell in code]
    if not code:
        return ["has no code cell"]
    if all(count is None for count in counts):
        return ["was never run: use `python -m yolonas_lab.teaching.notebooks run`"]
    findings = []
    for number, (cell, count) in enumerate(zip(code, counts), start=1):
        if not source_of(cell).strip():
            findings.append(f"code cell {number} is empty: delete it")
        elif count != number:
            findings.append(f"code cell {number} has execution count {count}: run the notebook from a clean kernel")
            break
    stamp = notebook.get("metadata", {}).get("yolonas_lab", {}).get("source")
    if stamp is None:
        findings.append("has no stamp of its code: use `python -m yolonas_lab.teaching.notebooks run`")
    elif stamp != source_digest(notebook["cells"]):
        findings.append("its code changed after its outputs were stored: run it again")
    if "widgets" in notebook.get("metadata", {}):
        findings.append("stores widget state: run it with `python -m yolonas_lab.teaching.notebooks run`")
    return findings


def _output_findings(cells: list[Any]) -> list[str]:
    """Find errors that should not be there, errors that should, live widgets, and traces of the machine."""
    findings = []
    for number, cell in enumerate((c for c in cells if c["cell_type"] == "code"), start=1):
        outputs = cell.get("outputs", [])
        errors = [o for o in outputs if o["output_type"] == "error"]
        expected = "raises-exception" in tags_of(cell)
        if errors and not expected:
            findings.append(f"code cell {number} stores an error: {errors[0].get('ename')}")
        if expected and not errors:
            findings.append(f"code cell {number} is tagged raises-exception but stores no error")
        if any(WIDGET_VIEW in o.get("data", {}) for o in outputs):
            findings.append(f"code cell {number} stores a live widget: run it with YOLONAS_LAB_STATIC=1")
        trace = re.search(MACHINE_TRACES, "\n".join(_texts(outputs)))
        if trace:
            findings.append(f"code cell {number} stores a trace of the machine in its output: {trace.group()!r}")
    return findings


def _texts(outputs: list[Any]) -> list[str]:
    """Return all plain text of outputs: streams, reprs and tracebacks."""
    texts = []
    for output in outputs:
        parts = [output.get("text", ""), output.get("traceback", ""), output.get("data", {}).get("text/plain", "")]
        texts += [part if isinstance(part, str) else "\n".join(part) for part in parts]
    return texts


def _cell_findings(cells: list[Any]) -> list[str]:
    """Find cells without an id of their own, time budgets that are no number, and solutions without an end."""
    findings = []
    ids = [cell.get("id") for cell in cells]
    if None in ids or len(set(ids)) < len(ids):
        findings.append("has cells without an id of their own: `run` gives them one")
    for number, cell in enumerate((c for c in cells if c["cell_type"] == "code"), start=1):
        source = source_of(cell)
        if source.count("### BEGIN SOLUTION") != source.count("### END SOLUTION"):
            findings.append(f"code cell {number} has unequal numbers of BEGIN SOLUTION and END SOLUTION")
        if source.rstrip().endswith(";"):
            findings.append(
                f"code cell {number} ends with ';', which the tests do not heed: begin the line with `_ = `"
            )
        budget = cell.get("metadata", {}).get("yolonas_lab", {}).get("budget_s", 1)
        if isinstance(budget, bool) or not isinstance(budget, int | float) or budget <= 0:
            findings.append(f"code cell {number} has budget_s {budget!r}: it must be a number of seconds above 0")
    return findings


def _header_findings(cells: list[Any]) -> list[str]:
    """Find what the text before the first code cell leaves out: what one learns, what it needs, how long it takes."""
    head = ""
    for cell in cells:
        if cell["cell_type"] == "code":
            break
        head += source_of(cell) + "\n"
    missing = [name for name, pattern in HEADER_PARTS.items() if not re.search(pattern, head, re.IGNORECASE)]
    return [f"says nothing of {' and '.join(missing)} before its first code cell"] if missing else []


def _word_count(markdown: str) -> int:
    """Count words a reader reads: no HTML tags, no addresses of links and embedded pictures."""
    text = re.sub(r"<[^>]+>|\]\([^)]*\)", " ", markdown)
    return len(re.findall(r"[^\W_][\w'’.-]*", text))


# Executing a notebook from a clean kernel, so that its stored outputs come out the same on every machine.
#
# Widgets are plain figures (YOLONAS_LAB_STATIC), progress bars are off, timings and versions left out, and the code's
# digest is stamped into the file. Built on nbclient.

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


NOTEBOOK_FOLDER = "notebooks"


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
        if options.command == "check":
            return _check(paths)
        return _run(paths, save=not options.no_save)
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


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


def table(runs: Sequence[Run]) -> str:
    """Return a text table of runs: notebook, cells, seconds, ok, and a last line with the sums."""
    width = max([len("notebook"), *(len(run.path.name) for run in runs)])
    lines = [f"{'notebook':{width}}  cells  seconds  ok"]
    lines += [f"{r.path.name:{width}}  {r.cells:5d}  {r.seconds:7.1f}  {'NO' if r.error else 'yes'}" for r in runs]
    failed = sum(bool(run.error) for run in runs)
    total = f"{'all':{width}}  {sum(r.cells for r in runs):5d}  {sum(r.seconds for r in runs):7.1f}  "
    return "\n".join([*lines, total + (f"{failed} failed" if failed else "yes")])


def _run(paths: Sequence[Path], *, save: bool) -> int:
    """Execute the notebooks one after the other, also past a failing one, and print the table."""
    runs = []
    for path in paths:
        run = run_and_store(path) if save else run_only(path)
        if run.error:
            print(f"\n{run.error}\n", file=sys.stderr)
        runs.append(run)
    print(table(runs))
    return int(any(run.error for run in runs))


def _check(paths: Sequence[Path]) -> int:
    """Print one line per finding, or one that says that all is well."""
    findings = [f"{path}: {finding}" for path in paths for finding in check_notebook(path)]
    print("\n".join(findings) or f"{len(paths)} notebook{'s' * (len(paths) != 1)} checked: all fit to be read")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
