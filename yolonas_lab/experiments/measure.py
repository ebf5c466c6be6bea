"""Measures a claim once, with one seed, and says what made the numbers."""

import math
import time
from typing import Any

from yolonas_lab.common import machine_name
from yolonas_lab.experiments.claim import Claim, plain, settings_digest
from yolonas_lab.experiments.provenance import git_revision


def measure(claim: Claim, seed: int, budget: float) -> dict[str, Any]:
    """Run a claim with one seed: the numbers by arm, and what made them. Raises ValueError for incomplete numbers."""
    made = {**made_with(claim, budget), "machine": machine_name(), "git_revision": git_revision()}
    began = time.perf_counter()
    arms = claim.run(seed, budget)
    seconds = time.perf_counter() - began
    wanted = sorted({arm for pair in claim.COMPARISONS for arm in pair})
    if missing := [arm for arm in wanted if arm not in arms]:
        raise ValueError(f"{claim.__name__}.run gave no numbers for {', '.join(missing)}.")
    for arm, numbers in arms.items():
        for metric in claim.METRICS:
            if not math.isfinite(numbers.get(metric, math.nan)):
                raise ValueError(f"{claim.__name__}.run gave {metric} {numbers.get(metric)} for {arm}: not a number.")
    return {**made, "seed": seed, "arms": arms, "seconds": seconds}


def made_with(claim: Claim, budget: float) -> dict[str, Any]:
    """What must agree for the numbers of two seeds to stand in one result."""
    import torch

    digest = settings_digest(plain(claim.SETTINGS))
    return {"settings_digest": digest, "budget": float(budget), "torch_version": torch.__version__}
