"""Experiments: what the YOLO-NAS article claims, measured at lab scale over several seeds.

A family of claims is one file: plain settings, a function that measures one seed, and the Claim that names them. The
numbers lie in results/, also where a claim does not hold, and the notebooks draw them.
"""

from yolonas_lab.experiments.harness import (
    CLAIMS,
    RESULTS_DIR,
    Claim,
    Result,
    find_claim,
    load_result,
    run_claim,
    save_result,
    settings_digest,
)
from yolonas_lab.experiments.report import plot, table
from yolonas_lab.experiments.statistics import Difference, paired_difference

__all__ = [
    "CLAIMS", "RESULTS_DIR", "Claim", "Difference", "Result", "find_claim", "load_result", "paired_difference", "plot",
    "run_claim", "save_result", "settings_digest", "table",
]  # fmt: skip
