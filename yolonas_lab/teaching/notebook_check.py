"""Is a stored notebook fit to be read? Executed in order, outputs that belong to its code, within the book's limits.

A digest of all code cells, stamped when the notebook is executed, proves that the outputs are those of this code.
Reads the file as JSON and executes nothing, so that it takes milliseconds.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

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
