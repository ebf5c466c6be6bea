"""What a claim is: a module that measures it once per seed, with every number that decides the outcome in SETTINGS."""

import hashlib
import importlib
import json
from collections.abc import Mapping
from typing import Any, Protocol

from yolonas_lab.common import unknown_name

CLAIMS = (
    "dfl_head",
    "int8_drop",
    "quantization_bits",
    "full_size_kernels",
    "selective_quantization",
    "qat_recovery",
    "pretraining",
    "pseudo_labels",
    "distillation",
    "equal_compute",
    "search_frontier",
    "searched_networks",
)
"""The modules of this folder that measure a claim."""

Numbers = dict[str, dict[str, float]]
"""Numbers by metric, by arm: {"dfl": {"ap": 0.5, "ap50": 0.8}, "plain": {…}}."""


class Claim(Protocol):
    """What the harness asks of a claim's module. An arm is one of the things compared, such as "dfl" and "plain"."""

    __name__: str

    @property
    def QUESTION(self) -> str:
        """What is asked, in one sentence."""
        ...

    @property
    def SETTINGS(self) -> Mapping[str, Any]:
        """Plain values; a result made with other ones is of another experiment."""
        ...

    @property
    def METRICS(self) -> tuple[str, ...]:
        """The numbers of each arm, the most important first."""
        ...

    @property
    def COMPARISONS(self) -> tuple[tuple[str, str], ...]:
        """(arm, baseline): their difference is taken seed by seed."""
        ...

    @staticmethod
    def run(seed: int, budget: float = 1.0) -> Numbers:
        """Measure every arm with this seed; budget is the share of the training steps to do, 1 for the real thing."""
        ...

    @staticmethod
    def data_digest() -> str:
        """Fingerprint of the data; draws it if it is not there yet."""
        ...


def find_claim(name: str) -> Claim:
    """The module of a claim by its name. Raises ValueError with the nearest match for an unknown name."""
    if name not in CLAIMS:
        raise ValueError(unknown_name("claim", name, CLAIMS))
    return importlib.import_module(f"{__package__}.{name}")  # type: ignore[return-value]


def short_name(claim: Claim) -> str:
    """The last part of a claim's module name."""
    return claim.__name__.rpartition(".")[2]


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON gives them back: lists for tuples, strings for keys."""
    return json.loads(json.dumps(settings))


def settings_digest(settings: Mapping[str, Any]) -> str:
    """Fingerprint (16 hex digits) of settings, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
