"""Measures a claim over several seeds, each in its own process; a killed run goes on with the missing seeds."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from yolonas_lab.experiments.claim import Claim, plain, settings_digest, short_name
from yolonas_lab.experiments.jobs import Job, run_jobs
from yolonas_lab.experiments.measure import made_with
from yolonas_lab.experiments.results import Result

WORK_DIR = Path("runs/experiments")


def run_claim(
    claim: Claim,
    seeds: int = 5,
    processes: int = 2,
    budget: float = 1.0,
    work_dir: str | Path = WORK_DIR,
    on_seed: Callable[[dict[str, Any]], object] | None = None,
) -> Result:
    """Measure a claim with seeds 0 … seeds - 1, `processes` at a time, each in a process with one thread.

    Each seed's numbers are written to work_dir as soon as they are there, and taken from there when they were made
    with the same settings, budget and torch version. `on_seed` is called with each seed's content. Raises ValueError
    for settings that cannot work and RuntimeError naming the seed that failed.
    """
    for name, value in (("seeds", seeds), ("processes", processes)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}: give a whole number of at least 1.")
    if not 0 < budget < math.inf:
        raise ValueError(f"budget is {budget}: give a number above 0, the share of the training steps to do.")
    folder = work_folder(claim, budget, work_dir)
    files = {seed: folder / f"seed_{seed}.json" for seed in range(seeds)}
    wanted = made_with(claim, budget)
    missing = [seed for seed, path in files.items() if _read(path, wanted) is None]
    digest = claim.data_digest()  # also draws the data, so that no two processes do

    def finished(job: Job) -> None:
        if on_seed is not None:
            on_seed(json.loads(files[int(job.name.split()[1])].read_text()))

    jobs = [_job(claim, seed, budget, files[seed]) for seed in missing]
    run_jobs(jobs, processes, f"measuring {short_name(claim)}", finished)
    return _gather(claim, {seed: json.loads(path.read_text()) for seed, path in files.items()}, digest)


def work_folder(claim: Claim, budget: float, work_dir: str | Path = WORK_DIR) -> Path:
    """Where the numbers of single seeds lie: one folder for each set of settings and each budget."""
    digest = settings_digest(plain(claim.SETTINGS))
    return Path(work_dir) / short_name(claim) / f"{digest}-budget-{budget:g}"


def command(claim: str, seeds: int, budget: float) -> str:
    """What to type to get the same result."""
    text = f"python -m yolonas_lab.experiments run {claim} --seeds {seeds}"
    return text if budget == 1 else f"{text} --budget {budget:g}"


def _job(claim: Claim, seed: int, budget: float, path: Path) -> Job:
    arguments = ("-m", "yolonas_lab.experiments.one_seed", claim.__name__, str(seed), repr(budget), str(path))
    return Job(f"seed {seed}", arguments, path.with_suffix(".log"))


def _read(path: Path, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """A seed's numbers, if they are there and made with what is wanted."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
    except ValueError:
        return None
    return content if all(content.get(name) == value for name, value in wanted.items()) else None


def _gather(claim: Claim, measured: dict[int, dict[str, Any]], data_digest: str) -> Result:
    one = measured[0]
    return Result(
        claim=short_name(claim),
        question=claim.QUESTION,
        command=command(short_name(claim), len(measured), one["budget"]),
        git_revisions=tuple(dict.fromkeys(content["git_revision"] for content in measured.values())),
        data_digest=data_digest,
        machine=one["machine"],
        torch_version=one["torch_version"],
        settings=plain(claim.SETTINGS),
        settings_digest=one["settings_digest"],
        budget=one["budget"],
        metrics=claim.METRICS,
        comparisons=claim.COMPARISONS,
        arms={seed: content["arms"] for seed, content in measured.items()},
        seconds={seed: round(content["seconds"], 1) for seed, content in measured.items()},
    )
