"""A claim that takes no time: what the tests of the harness measure. Environment variables make it slow or break it."""

import os
import time
from pathlib import Path

QUESTION = "Is b larger than a?"
SETTINGS = {"step": 2.0, "sizes": (1, 2)}
METRICS = ("ap", "ap50")
COMPARISONS = (("b", "a"),)


def run(seed: int, budget: float = 1.0) -> dict[str, dict[str, float]]:
    folder = os.environ.get("TOY_FOLDER")
    if folder is not None:
        (Path(folder) / f"start_{seed}_{os.getpid()}").write_text(f"{time.time()} {os.environ['OMP_NUM_THREADS']}")
    if os.environ.get("TOY_FAILS") == str(seed):
        raise ValueError(f"no luck with seed {seed}")
    if seed >= int(os.environ.get("TOY_SLOW_FROM", "1000")):
        time.sleep(60)
    time.sleep(float(os.environ.get("TOY_SECONDS", "0")))
    a = 0.1 * seed
    return {"a": {"ap": a, "ap50": a}, "b": {"ap": a + budget * SETTINGS["step"] + seed % 2, "ap50": a - 0.5}}


def data_digest() -> str:
    return "toy"
