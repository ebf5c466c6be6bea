"""A claim that takes no time: what the tests of the harness measure. Environment variables make it slow or break it."""

import os
import time
from pathlib import Path

from yolonas_lab.experiments import Claim

SETTINGS = {"step": 2.0, "sizes": (1, 2)}


def run(seed: int, budget: float = 1.0) -> dict[str, dict[str, float]]:
    threads = os.environ.get("OMP_NUM_THREADS")
    (Path(os.environ["TOY_FOLDER"]) / f"start_{seed}_{os.getpid()}_{time.time_ns()}").write_text(f"{threads}")
    if os.environ.get("TOY_FAILS") == str(seed):
        raise ValueError(f"no luck with seed {seed}")
    if seed >= int(os.environ.get("TOY_SLOW_FROM", "1000")):
        time.sleep(60)
    a = 0.1 * seed
    return {"a": {"ap": a, "ap50": a}, "b": {"ap": a + budget * SETTINGS["step"] + seed % 2, "ap50": a - 0.5}}


TOY = Claim("toy", "Is b larger than a?", SETTINGS, ("ap", "ap50"), (("b", "a"),), run, lambda: "toy")
CLAIMS = (TOY,)
