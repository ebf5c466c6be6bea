"""Measure a claim over several seeds, or show what was measured.

python -m yolonas_lab.experiments run dfl_head --seeds 5
python -m yolonas_lab.experiments report dfl_head --plot dfl_head.png
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from yolonas_lab.experiments.harness import (
    CLAIMS,
    RESULTS_DIR,
    WORK_DIR,
    find_claim,
    load_result,
    run_claim,
    run_seed,
    save_result,
)
from yolonas_lab.experiments.jobs import stop_with_parent
from yolonas_lab.experiments.report import plot, table


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m yolonas_lab.experiments",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"Claims: {', '.join(CLAIMS)}.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="measure a claim; a run that was stopped goes on with the missing seeds")
    run.add_argument("name", help="the claim")
    run.add_argument("--seeds", type=int, default=5, help="measure with seeds 0, 1, … (default %(default)s)")
    run.add_argument("--processes", type=int, default=2, help="seeds at a time, one thread each (default %(default)s)")
    run.add_argument("--budget", type=float, default=1.0, help="share of the training steps, to try it (default 1)")
    run.add_argument("--work-dir", default=str(WORK_DIR), help="for the numbers of single seeds (default %(default)s)")
    run.add_argument("--out", help="folder for NAME.json (default: the package's own; with a budget, the work folder)")
    report = commands.add_parser("report", help="show the stored numbers of a claim")
    report.add_argument("name", help="the claim")
    report.add_argument("--out", default=str(RESULTS_DIR), help="folder of NAME.json (default: the package's own)")
    report.add_argument("--plot", help="also draw the figure into this file")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["one-seed"]:  # how `run` starts a process for each seed
        module, name, seed, budget, path = arguments[1:]
        stop_with_parent()
        run_seed(find_claim(name, module), int(seed), float(budget), Path(path))
        return 0
    options = parse(arguments)
    try:
        _run(options) if options.command == "run" else _report(options)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"experiments: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("experiments: stopped; the same command goes on with the missing seeds.", file=sys.stderr)
        return 130
    return 0


def _run(options: argparse.Namespace) -> None:
    claim = find_claim(options.name)
    result = run_claim(claim, options.seeds, options.processes, options.budget, options.work_dir, _tell)
    path = save_result(result, options.out or (RESULTS_DIR if options.budget == 1 else options.work_dir))
    print(f"{table(result)}\n\nwritten to {path}")


def _report(options: argparse.Namespace) -> None:
    result = load_result(options.name, options.out)
    print(table(result))
    if options.plot:
        plot(result).figure.savefig(options.plot, dpi=150, bbox_inches="tight")


def _tell(measured: dict[str, Any]) -> None:
    first = {arm: next(iter(numbers.items())) for arm, numbers in measured["arms"].items()}
    values = ", ".join(f"{arm} {metric} {value:.3f}" for arm, (metric, value) in first.items())
    print(f"seed {measured['seed']}: {values} ({measured['seconds']:.0f} s)", flush=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
