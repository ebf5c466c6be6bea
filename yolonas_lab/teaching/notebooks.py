"""The notebooks' command line: `python -m yolonas_lab.teaching.notebooks run|check [files]`.

`run` executes each notebook from a clean kernel and stores its outputs (`run --no-save` stores nothing); `check` reads
the stored files and says, in milliseconds, which are not fit to be read. Both exit with 1 where something is wrong.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from yolonas_lab.teaching.notebook_check import check_notebook
from yolonas_lab.teaching.notebook_run import Run, run_and_store, run_only

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
