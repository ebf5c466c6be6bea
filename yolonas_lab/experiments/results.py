"""The measured numbers of a claim with all that is needed to repeat them, as JSON in results/."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from yolonas_lab.common import unknown_name, write_atomically
from yolonas_lab.experiments.claim import CLAIMS, Numbers
from yolonas_lab.experiments.statistics import Difference, paired_difference

RESULTS_DIR = Path(__file__).parent / "results"


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
        """A metric of an arm, seed by seed. Raises ValueError for a name that there is not."""
        known = list(self.arms[self.seeds[0]])
        for what, name, names in (("arm", arm, known), ("metric", metric, self.metrics)):
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
    """Write FOLDER/CLAIM.json atomically, the differences included for readers without Python; returns the path."""
    path = Path(folder) / f"{result.claim}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {**asdict(result), "differences": [_without_nan(d) for d in result.differences()]}
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return write_atomically(path, lambda file: file.write(text.encode()))


def load_result(name: str, folder: str | Path = RESULTS_DIR) -> Result:
    """The stored result of a claim.

    Raises ValueError with the nearest match for an unknown claim, FileNotFoundError with the command that makes the
    result where there is none yet.
    """
    path = Path(folder) / f"{name}.json"
    if not path.is_file():
        if name not in CLAIMS:
            raise ValueError(unknown_name("claim", name, CLAIMS))
        raise FileNotFoundError(f"{path} does not exist: make it with python -m yolonas_lab.experiments run {name}")
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["differences"]
    content["arms"] = {int(seed): arms for seed, arms in content["arms"].items()}
    content["seconds"] = {int(seed): seconds for seed, seconds in content["seconds"].items()}
    content["metrics"], content["git_revisions"] = tuple(content["metrics"]), tuple(content["git_revisions"])
    content["comparisons"] = tuple(map(tuple, content["comparisons"]))
    return Result(**content)


def _without_nan(difference: Difference) -> dict[str, Any]:
    """As a dict for JSON, which knows no NaN."""
    items = difference._asdict().items()
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in items}
