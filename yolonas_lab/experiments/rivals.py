"""Networks that take equally long: S scaled by hand, and what the searches of a seed found within its milliseconds.

Choosing and timing are kept in the cache folder: they want a quiet machine, and the trainings that follow do not.
"""

import dataclasses
import json
from typing import NamedTuple

from yolonas_lab.common import write_atomically
from yolonas_lab.experiments import searches
from yolonas_lab.experiments.claim import plain, settings_digest
from yolonas_lab.experiments.scenes import cache_folder
from yolonas_lab.latency import Frontier
from yolonas_lab.models import CONFIGS
from yolonas_lab.models.configs import YoloNASConfig
from yolonas_lab.search.latency_model import NetworkTime, time_networks
from yolonas_lab.search.space import choices_of, config_of, scaled
from yolonas_lab.search.supernet import SUPERNET_SPACE

BY_HAND = {"small": (0.25, 0.25), "large": (0.25, 1.0), "narrow": (0.1875, 1.0)}  # width and depth, times those of S
BUDGETS = ("small", "large")  # scaled networks whose milliseconds the searched ones must not exceed
WORDS = {"float": "searched", "INT8": "searched INT8"}
SETTINGS = {
    "searches": searches.SETTINGS,
    "by_hand": BY_HAND,
    "budgets": BUDGETS,
    "reg_max": 8,
    "predicted_at_most": 1.05,  # of the budget's predicted time, for a network to be measured
    "measured_together": 4,  # networks, the best first, until one keeps the budget
}
"""What decides who competes; the claim's SETTINGS holds it as "rivals"."""


class Rival(NamedTuple):
    """A network with its measured milliseconds in float and in INT8."""

    config: YoloNASConfig
    ms: float
    ms_int8: float


def rivals(seed: int, budget: float = 1.0) -> dict[str, Rival]:
    """The networks that are compared, by arm: "hand small" is S by multipliers; "searched small" took at most as long
    in float when it was chosen, "searched INT8 small" in INT8. The milliseconds are those of a second measurement.

    budget is the share of the networks that a search looks at. What was chosen before is only read.
    """
    machine = searches.latency("float").table.machine
    mark = settings_digest(plain({**SETTINGS, "machine": machine, "budget": budget}))
    path = cache_folder() / f"rivals-{mark}" / f"{seed}.json"
    if not path.is_file():
        configs = _choose(seed, budget)
        float_times, int8_times = (times(list(configs.values()), kind) for kind in searches.ENGINES)
        rows = {
            arm: {
                "choices": choices_of(config) if arm.startswith("searched") else None,
                "ms": one.ms,
                "ms_int8": two.ms,
            }
            for (arm, config), one, two in zip(configs.items(), float_times, int8_times)
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: file.write((json.dumps(rows, indent=1) + "\n").encode()))
    rows = json.loads(path.read_text(encoding="utf-8"))
    return {arm: Rival(_config(arm, row["choices"]), row["ms"], row["ms_int8"]) for arm, row in rows.items()}


def by_hand(size: str) -> YoloNASConfig:
    """S by the multipliers of a size, with as many DFL bins as the lab's networks have."""
    return scaled(dataclasses.replace(CONFIGS["yolo_nas_s"], reg_max=SETTINGS["reg_max"]), *BY_HAND[size])


def as_fast(frontier: Frontier, rival: YoloNASConfig, kind: str) -> YoloNASConfig:
    """The best network of a search that takes no longer than the rival in one measurement, side by side.

    Raises ValueError where none of those that are predicted to fit does.
    """
    s = SETTINGS
    budget_ms = searches.latency(kind).predict(rival)  # predicted as for the others: a machine is not always as fast
    fitting = sorted(
        (candidate for candidate in frontier.candidates if candidate.ms <= s["predicted_at_most"] * budget_ms),
        key=lambda candidate: -candidate.ap,
    )
    for start in range(0, len(fitting), s["measured_together"]):
        configs = [candidate.config for candidate in fitting[start : start + s["measured_together"]]]
        limit, *measured = times([rival, *configs], kind)
        for network in measured:
            if network.ms <= limit.ms:
                return network.config
    raise ValueError(f"No network of {len(frontier.candidates)} is as fast as {rival.name} ({budget_ms:.2f} ms).")


def times(configs: list[YoloNASConfig], kind: str) -> tuple[NetworkTime, ...]:
    """The milliseconds of networks in "float" or "INT8", measured side by side."""
    size, classes = searches.SETTINGS["image_size"], len(searches.scenes()[1].class_names)
    return time_networks(configs, size, searches.ENGINES[kind], num_classes=classes).times


def _choose(seed: int, budget: float) -> dict[str, YoloNASConfig]:
    configs = {f"hand {size}": by_hand(size) for size in BY_HAND}
    for kind, words in WORDS.items():
        frontier = searches.search("evolution", kind, seed, budget)
        for size in BUDGETS:
            configs[f"{words} {size}"] = as_fast(frontier, by_hand(size), kind)
    return configs


def _config(arm: str, choices: dict | None) -> YoloNASConfig:
    return by_hand(arm.removeprefix("hand ")) if choices is None else config_of(SUPERNET_SPACE, choices)
