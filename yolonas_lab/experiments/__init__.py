"""Experiments: what the YOLO-NAS article claims, measured at lab scale over several seeds.

Each claim is one module with SETTINGS and run(seed, budget); its numbers lie in results/, also where the claim does
not hold, and the notebooks draw them.
"""

from yolonas_lab.experiments.claim import CLAIMS, Claim, find_claim, settings_digest
from yolonas_lab.experiments.harness import run_claim
from yolonas_lab.experiments.report import plot, table
from yolonas_lab.experiments.results import Result, load_result, save_result
from yolonas_lab.experiments.statistics import Difference, paired_difference

__all__ = [
    "CLAIMS",
    "Claim",
    "Difference",
    "Result",
    "find_claim",
    "load_result",
    "paired_difference",
    "plot",
    "run_claim",
    "save_result",
    "settings_digest",
    "table",
]
