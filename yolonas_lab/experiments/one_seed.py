"""One seed in a process of its own: python -m yolonas_lab.experiments.one_seed MODULE SEED BUDGET FILE."""

import importlib
import json
import sys
from pathlib import Path

from yolonas_lab.common import write_atomically
from yolonas_lab.experiments.jobs import stop_with_parent
from yolonas_lab.experiments.measure import measure


def main(arguments: list[str]) -> None:
    """Write the numbers to the file, atomically; end when the harness does."""
    module, seed, budget, path = arguments
    stop_with_parent()
    measured = measure(importlib.import_module(module), int(seed), float(budget))  # type: ignore[arg-type]
    write_atomically(Path(path), lambda file: json.dump(measured, file, indent=1), text=True)


if __name__ == "__main__":
    main(sys.argv[1:])
