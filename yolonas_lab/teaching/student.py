"""The notebooks with blanks: `python -m yolonas_lab.teaching.student OUT_DIR [files]` for a class, `--own` for oneself.

What stands between ### BEGIN SOLUTION and ### END SOLUTION becomes a blank, outputs go. With nbgrader (the extra
`classroom`) its own preprocessors do it, and also lock and check-sum the cells that are graded.
"""

import argparse
import copy
import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yolonas_lab.teaching.notebooks import NOTEBOOK_FOLDER, find_notebooks, read_notebook, tags_of, write_notebook

BLANK = ("# YOUR CODE HERE", "raise NotImplementedError()")  # nbgrader's own words
SOLUTION = re.compile(r"^([ \t]*)[^\n]*BEGIN SOLUTION(?:(?!BEGIN SOLUTION).)*?END SOLUTION[^\n]*", re.M | re.S)
# What `nbgrader generate_assignment` does without a course database.
STEPS = ("ClearSolutions", "ClearHiddenTests", "LockCells", "ClearOutput", "CheckCellMetadata", "ComputeChecksums")


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command line; returns 0 where all notebooks were written, 2 where something is in the way."""
    parser = argparse.ArgumentParser(prog="python -m yolonas_lab.teaching.student", description=__doc__)
    parser.add_argument("out_dir", type=Path, help="folder to write to")
    parser.add_argument("files", nargs="*", help=f"notebooks or folders (default: {NOTEBOOK_FOLDER})")
    own = "for your own work: nothing is locked, Run All goes on after an open exercise, and files already there stay"
    parser.add_argument("--own", action="store_true", help=own)
    options = parser.parse_args(arguments)
    write = write_own_notebooks if options.own else write_student_notebooks
    try:
        written = write(find_notebooks(options.files or [NOTEBOOK_FOLDER]), options.out_dir)
    except (FileNotFoundError, FileExistsError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(written)} notebook{'s' * (len(written) != 1)} with blanks written to {options.out_dir}")
    if not options.own and not has_nbgrader():
        print("Without nbgrader the cells are not locked for grading: pip install 'yolonas-lab[classroom]' adds that.")
    return 0


def write_student_notebooks(paths: Sequence[Path], out_dir: Path) -> list[Path]:
    """Write each notebook with blanks into out_dir; returns the new files.

    Raises FileExistsError, before anything is written, where a file is there already (it may hold somebody's answers).
    """
    targets = [out_dir / path.name for path in paths]
    if there := [target for target in targets if target.exists()]:
        raise FileExistsError(f"{there[0]} is there already: delete it or choose another folder.")
    return _write_all([student_version(read_notebook(path), str(path)) for path in paths], targets)


def write_own_notebooks(paths: Sequence[Path], out_dir: Path) -> list[Path]:
    """Write the notebooks that out_dir does not have yet, with blanks, to work in alone; returns the new files.

    A check of an open exercise is expected to fail there, so that Run All goes on to the cells below it.
    """
    missing = [path for path in paths if not (out_dir / path.name).exists()]
    notebooks = [with_blanks(read_notebook(path), str(path)) for path in missing]
    for cell in (cell for notebook in notebooks for cell in notebook.cells if is_check(cell)):
        cell.metadata["tags"] = [*tags_of(cell), "raises-exception"]
    return _write_all(notebooks, [out_dir / path.name for path in missing])


def _write_all(notebooks: Sequence[Any], targets: list[Path]) -> list[Path]:
    for notebook, target in zip(notebooks, targets):  # all of them are made: nothing is written where one is faulty
        target.parent.mkdir(parents=True, exist_ok=True)
        write_notebook(notebook, target)
    return targets


def student_version(notebook: Any, name: str) -> Any:
    """Return the notebook with blanks and no outputs; `name` names it in errors (ValueError: a region not closed)."""
    mark_exercises(notebook)
    if not has_nbgrader():
        return with_blanks(notebook, name)
    import nbgrader.preprocessors  # pyright: ignore[reportMissingImports]

    with_blanks(copy.deepcopy(notebook), name)  # for the errors, which are the same without nbgrader
    notebook.metadata.get("yolonas_lab", {}).pop("source", None)  # it belongs to the outputs, which go
    resources: dict[str, Any] = {}
    for step in STEPS:
        notebook, resources = getattr(nbgrader.preprocessors, step)().preprocess(notebook, resources)
    return notebook


def with_blanks(notebook: Any, name: str) -> Any:
    """Return the notebook with plain blanks and no outputs; `name` names it in errors."""
    notebook.metadata.get("yolonas_lab", {}).pop("source", None)  # it belongs to the outputs, which go
    for number, cell in enumerate(notebook.cells, start=1):
        cell.source = blanked(cell.source, f"{name}, cell {number}")
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def mark_exercises(notebook: Any) -> None:
    """Give nbgrader's metadata to the cells that have none: those with a solution, and those that call a check_x."""
    for cell in notebook.cells:
        if cell.cell_type != "code" or "nbgrader" in cell.metadata:
            continue
        solution, graded = "### BEGIN SOLUTION" in cell.source, is_check(cell)
        if solution or graded:
            kind = {"grade": graded, "solution": solution, "locked": graded, "task": False, "schema_version": 3}
            cell.metadata["nbgrader"] = {**kind, "grade_id": cell.id, **({"points": 1} if graded else {})}


def is_check(cell: Any) -> bool:
    """Tell whether a cell checks an exercise. Cells that show a failing check on purpose do not count."""
    calls_a_check = cell.cell_type == "code" and re.search(r"\bcheck_\w+\(", cell.source) is not None
    return calls_a_check and "### BEGIN SOLUTION" not in cell.source and "raises-exception" not in tags_of(cell)


def blanked(source: str, where: str) -> str:
    """Return a cell's source with a blank at the same indent for each solution; ValueError where one is not closed."""
    text = SOLUTION.sub(lambda found: "\n".join(found[1] + line for line in BLANK), source)
    if "BEGIN SOLUTION" in text or "END SOLUTION" in text:
        raise ValueError(f"{where} has a BEGIN or END SOLUTION without its partner.")
    return text


def has_nbgrader() -> bool:
    """Tell whether nbgrader is installed."""
    return importlib.util.find_spec("nbgrader") is not None


if __name__ == "__main__":
    sys.exit(main())
