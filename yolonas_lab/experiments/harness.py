"""A claim, its measurement over several seeds, and its result with all that is needed to repeat it.

A claim is a value: a question, the settings that decide the outcome, and a function that measures one seed. Each seed
runs in a process of its own with one thread and writes its numbers as soon as it ends, so that a run that was killed
goes on with the missing seeds. Results lie as JSON in results/, also where a claim does not hold.
"""

import importlib
import json
import math
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from yolonas_lab.common import fingerprint, machine_name, unknown_name, write_json
from yolonas_lab.experiments.jobs import Job, run_jobs
from yolonas_lab.experiments.statistics import Difference, paired_difference

WORK_DIR = Path("runs/experiments")
RESULTS_DIR = Path(__file__).parent / "results"
FAMILIES = {  # the files of this folder that measure claims, and the claims of each
    "dfl_head": ("dfl_head",),
    "quantization": (
        "int8_drop", "quantization_bits", "full_size_kernels", "selective_quantization", "qat_recovery",
    ),
    "labels": ("pretraining", "pseudo_labels"),
    "distillation": ("distillation", "equal_compute"),
    "search": ("search_frontier", "searched_networks"),
}  # fmt: skip
CLAIMS = {claim: family for family, claims in FAMILIES.items() for claim in claims}
Numbers = dict[str, dict[str, float]]
"""Numbers by metric, by arm: {"dfl": {"ap": 0.5, "ap50": 0.8}, "plain": {…}}; an arm is one of the things compared."""


@dataclass(frozen=True)
class Claim:
    """What is asked, and how one seed answers; a family's file lists its claims in CLAIMS."""

    name: str
    question: str  # one sentence
    settings: Mapping[str, Any]  # plain values; a result made with other ones is of another experiment
    metrics: tuple[str, ...]  # the numbers of each arm, the most important first
    comparisons: tuple[tuple[str, str], ...]  # (arm, baseline): their difference is taken seed by seed
    run: Callable[[int, float], Numbers]  # seed, budget (share of the training steps, 1 for the real thing) -> numbers
    data_digest: Callable[[], str]  # fingerprint of the data; draws it if it is not there yet

    @property
    def digest(self) -> str:
        """Fingerprint of the settings."""
        return settings_digest(plain(self.settings))


def find_claim(name: str, module: str | None = None) -> Claim:
    """A claim by its name, from the file that measures it or a module of your own with a tuple CLAIMS.

    Raises ValueError with the nearest match for an unknown name.
    """
    if module is None:
        if name not in CLAIMS:
            raise ValueError(unknown_name("claim", name, CLAIMS))
        module = f"{__package__}.{CLAIMS[name]}"
    return next(claim for claim in importlib.import_module(module).CLAIMS if claim.name == name)


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON gives them back: lists for tuples, strings for keys."""
    return json.loads(json.dumps(settings))


def settings_digest(settings: Mapping[str, Any]) -> str:
    """Fingerprint (16 hex digits) of settings, whatever the order of their keys."""
    return fingerprint(settings, 16)


def run_claim(
    claim: Claim,
    seeds: int = 5,
    processes: int = 2,
    budget: float = 1.0,
    work_dir: str | Path = WORK_DIR,
    on_seed: Callable[[dict[str, Any]], object] | None = None,
) -> "Result":
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
    wanted = _made_with(claim, budget)
    digest = claim.data_digest()  # also draws the data, so that no two processes do
    jobs = {}
    for seed, path in files.items():
        if not _is_made_with(path, wanted):
            module = claim.run.__module__
            arguments = ("one-seed", module, claim.name, str(seed), repr(budget), str(path))
            job = Job(f"seed {seed}", ("-m", __package__ or "", *arguments), path.with_suffix(".log"))
            jobs[job] = path

    def finished(job: Job) -> None:
        if on_seed is not None:
            on_seed(json.loads(jobs[job].read_text(encoding="utf-8")))

    run_jobs(list(jobs), processes, f"measuring {claim.name}", finished)
    measured = {seed: json.loads(path.read_text(encoding="utf-8")) for seed, path in files.items()}
    return Result(
        claim=claim.name,
        question=claim.question,
        command=command(claim.name, seeds, budget),
        git_revisions=tuple(dict.fromkeys(content["git_revision"] for content in measured.values())),
        data_digest=digest,
        machine=measured[0]["machine"],
        torch_version=measured[0]["torch_version"],
        settings=plain(claim.settings),
        settings_digest=claim.digest,
        budget=float(budget),
        metrics=claim.metrics,
        comparisons=claim.comparisons,
        arms={seed: content["arms"] for seed, content in measured.items()},
        seconds={seed: round(content["seconds"], 1) for seed, content in measured.items()},
    )


def run_seed(claim: Claim, seed: int, budget: float, path: Path) -> None:
    """Measure a claim with one seed and write the numbers, and what made them, to a file.

    Raises ValueError for incomplete numbers.
    """
    content = {**_made_with(claim, budget), "machine": machine_name(), "git_revision": git_revision(), "seed": seed}
    began = time.perf_counter()
    arms = claim.run(seed, budget)
    seconds = time.perf_counter() - began
    wanted = sorted({arm for pair in claim.comparisons for arm in pair})
    if missing := [arm for arm in wanted if arm not in arms]:
        raise ValueError(f"The run of {claim.name} gave no numbers for {', '.join(missing)}.")
    for arm, numbers in arms.items():
        for metric in claim.metrics:
            if not math.isfinite(numbers.get(metric, math.nan)):
                raise ValueError(f"The run of {claim.name} gave {metric} {numbers.get(metric)} for {arm}: no number.")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content | {"arms": arms, "seconds": seconds})


def work_folder(claim: Claim, budget: float, work_dir: str | Path = WORK_DIR) -> Path:
    """Where the numbers of single seeds lie: one folder for each set of settings and each budget."""
    return Path(work_dir) / claim.name / f"{claim.digest}-budget-{budget:g}"


def command(claim: str, seeds: int, budget: float) -> str:
    """What to type to get the same result."""
    text = f"python -m yolonas_lab.experiments run {claim} --seeds {seeds}"
    return text if budget == 1 else f"{text} --budget {budget:g}"


def git_revision() -> str | None:
    """The git commit of this code, with "+changes" where a Python file of the package differs from it; None where it
    does not come from a git repository.
    """
    if _git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit, changed = _git("rev-parse", "--short=12", "HEAD"), _git("status", "--porcelain", "--", "*.py")
    return f"{commit}+changes" if changed else commit


def _git(*arguments: str) -> str | None:
    package = Path(__file__).resolve().parent.parent
    try:
        answer = subprocess.run(["git", *arguments], cwd=package, capture_output=True, text=True)
    except OSError:  # no git on this machine
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def _made_with(claim: Claim, budget: float) -> dict[str, Any]:
    """What must agree for the numbers of two seeds to stand in one result."""
    import torch

    return {"settings_digest": claim.digest, "budget": float(budget), "torch_version": torch.__version__}


def _is_made_with(path: Path, wanted: dict[str, Any]) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there, or cut short by a power cut
        return False
    return all(content.get(name) == value for name, value in wanted.items())


@dataclass(frozen=True)
class Result:
    """A claim measured over seeds. `arms[seed][arm][metric]` are the numbers, `seconds[seed]` the time they took."""

    claim: str
    question: str
    command: str
    git_revisions: tuple[str | None, ...]  # of the code; one, unless it changed between seeds
    data_digest: str
    machine: str
    torch_version: str
    settings: Mapping[str, Any]
    settings_digest: str
    budget: float
    metrics: tuple[str, ...]
    comparisons: tuple[tuple[str, str], ...]
    arms: Mapping[int, Numbers]
    seconds: Mapping[int, float]

    @property
    def seeds(self) -> list[int]:
        """The seeds in order."""
        return sorted(self.arms)

    def values(self, arm: str, metric: str) -> list[float]:
        """A metric of an arm, seed by seed. Raises ValueError with the nearest match for an unknown name."""
        for what, name, names in (("arm", arm, self.arms[self.seeds[0]]), ("metric", metric, self.metrics)):
            if name not in names:
                raise ValueError(unknown_name(what, name, names))
        return [self.arms[seed][arm][metric] for seed in self.seeds]

    def difference(self, arm: str, baseline: str, metric: str) -> Difference:
        """How much better an arm is than its baseline, seed by seed."""
        return paired_difference(arm, baseline, metric, self.values(arm, metric), self.values(baseline, metric))

    def differences(self) -> list[Difference]:
        """All differences that the claim asks for, in all metrics."""
        return [self.difference(*pair, metric) for pair in self.comparisons for metric in self.metrics]


def save_result(result: Result, folder: str | Path = RESULTS_DIR) -> Path:
    """Write FOLDER/CLAIM.json, the differences included for readers without Python; returns the path."""
    path = Path(folder) / f"{result.claim}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [difference._asdict() for difference in result.differences()]
    rows = [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in rows]
    return write_json(path, {**asdict(result), "differences": rows})


def load_result(name: str, folder: str | Path = RESULTS_DIR) -> Result:
    """The stored result of a claim.

    Raises ValueError with the nearest match for an unknown claim, or naming a file that holds no result, and
    FileNotFoundError with the command that makes the result where there is none yet.

    >>> load_result("qat_recovery").difference("RepVGG W4 QAT", "RepVGG W4 PTQ", "ap").shown
    True
    """
    path = Path(folder) / f"{name}.json"
    if not path.is_file():
        if name not in CLAIMS:
            raise ValueError(unknown_name("claim", name, CLAIMS))
        raise FileNotFoundError(f"{path} does not exist: make it with python -m yolonas_lab.experiments run {name}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        del content["differences"]
        for key in ("arms", "seconds"):
            content[key] = {int(seed): numbers for seed, numbers in content[key].items()}
        content["metrics"], content["git_revisions"] = tuple(content["metrics"]), tuple(content["git_revisions"])
        content["comparisons"] = tuple(map(tuple, content["comparisons"]))
        return Result(**content)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is not the result of a claim ({error!r}): make it anew.") from error
