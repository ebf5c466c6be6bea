"""Claims about search: evolution against as many random networks, and searched networks against S scaled by hand.

Notebook 09. In a search a network's AP is that of the shipped supernet's weights, its milliseconds those of this
machine's latency model; at the end networks are timed side by side and trained from scratch. On random search as the
baseline to beat: Li and Talwalkar, arXiv 1902.07638. Deci's search counted INT8 in (YOLONAS.md of super-gradients);
hence a search for INT8 milliseconds too. What was found, chosen and timed is kept in the cache folder.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

from yolonas_lab.common import write_json
from yolonas_lab.data import CocoDataset
from yolonas_lab.experiments import scenes
from yolonas_lab.experiments.harness import Claim, Numbers, plain, settings_digest
from yolonas_lab.latency import Frontier, area_under
from yolonas_lab.models import CONFIGS, reparameterize
from yolonas_lab.models.configs import YoloNASConfig
from yolonas_lab.quantization import QuantPolicy, calibrate, quantize
from yolonas_lab.search import proxies
from yolonas_lab.search.evolve import Candidate, evolve, load_frontier, save_frontier, search_at_random
from yolonas_lab.search.latency_model import LatencyModel, NetworkTime, latency_model, time_networks
from yolonas_lab.search.space import choices_of, config_of, largest, scaled
from yolonas_lab.search.supernet import SUPERNET_SPACE, SUPERNET_WEIGHTS, calibration_batches, load_supernet, score
from yolonas_lab.training import fit

METHODS = {"evolution": evolve, "random": search_at_random}
ENGINES = {"float": "onnxruntime", "INT8": "onnxruntime int8"}
SEARCHES = {  # what decides a search, in the settings of both claims
    "supernet": SUPERNET_WEIGHTS.name,
    "space": SUPERNET_SPACE.decisions,
    "engines": ENGINES,
    "networks": 100,  # that each search looks at
    "scored_images": 200,
    "batch_norm_images": 64,  # two batches, from which BatchNorm's statistics are taken
    "image_size": 64,  # px
    "difficulty": 0.5,
    "data_seed": 5,  # neither the supernet nor what is trained at the end has seen these scenes
}


def _searched() -> dict[str, Any]:
    return SEARCHES | {"train_images": SEARCHES["batch_norm_images"], "val_images": SEARCHES["scored_images"]}


def prepare() -> str:
    """Draw the scenes and measure the latency models if they are not there yet; returns the scenes' fingerprint."""
    for kind in ENGINES:
        latency(kind)
    return scenes.scenes_digest(_searched())


def latency(kind: str) -> LatencyModel:
    """This machine's latency model for networks in "float" or "INT8", measured once."""
    folder = scenes.cache_folder() / "latency"
    folder.mkdir(parents=True, exist_ok=True)
    classes = len(scenes.draw(_searched()).class_names)
    return latency_model(SUPERNET_SPACE, SEARCHES["image_size"], ENGINES[kind], num_classes=classes, folder=folder)


def search(method: str, kind: str, seed: int, budget: float = 1.0) -> Frontier:
    """What "evolution" or "random" finds with this seed for the milliseconds of "float" or "INT8" networks.

    budget is the share of the networks to look at. A search that was stopped goes on, one that was done is only read.
    """
    model = latency(kind)
    networks = max(2, round(budget * SEARCHES["networks"]))
    mark = settings_digest(plain({**SEARCHES, "machine": model.table.machine, "networks": networks}))
    path = scenes.cache_folder() / f"searches-{mark}" / f"{method}-{kind}-{seed}.json"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        look = METHODS[method]
        found = look(SUPERNET_SPACE, _scorer(), model.predict, networks, path.with_suffix(".db"), seed=seed)
        save_frontier(found, path, SUPERNET_SPACE)
    return load_frontier(path, SUPERNET_SPACE)


def scorer(val_set: CocoDataset) -> Callable[[YoloNASConfig], float]:
    """AP on val_set with the supernet's weights; a network that was scored before is only looked up."""
    images = scenes.dataset(_searched(), "train")
    half = SEARCHES["batch_norm_images"] // 2
    batches = calibration_batches(images, SEARCHES["image_size"], batches=2, batch_size=half)
    return lru_cache(maxsize=None)(partial(score, load_supernet(), calibration=batches, val_set=val_set))


@lru_cache
def _scorer() -> Callable[[YoloNASConfig], float]:
    """The scorer of the searches, which share what is known."""
    return scorer(scenes.dataset(_searched(), "val"))


FRONTIER = {
    "searches": SEARCHES,
    "kind": "float",
    "fast": 0.6,  # of the largest network's time
    "fresh_images": 500,
    "fresh_seed": 7,  # no search has seen these scenes
}


def run_search_frontier(seed: int, budget: float = 1.0) -> Numbers:
    """Of each search the mean AP of what it chooses over all budgets up to the largest network's time, and the AP of
    what it chooses under 0.6 of it: on scenes that no search has seen ("fresh"), and as the search itself scored it.

    A budget that nothing found fits counts 0.
    """
    s = FRONTIER
    within_ms = latency(s["kind"]).predict(largest(SUPERNET_SPACE))
    fresh_ap = scorer(fresh_scenes())
    numbers = {}
    for method in METHODS:
        points = search(method, s["kind"], seed, budget).points
        fresh = [point._replace(ap=fresh_ap(point.config)) for point in points]
        numbers[method] = {
            "mean_ap_fresh": area_under(fresh, within_ms) / within_ms,
            "ap_fast_fresh": _chosen_ap(fresh, s["fast"] * within_ms),
            "mean_ap": area_under(points, within_ms) / within_ms,
            "ap_fast": _chosen_ap(points, s["fast"] * within_ms),
        }
    return numbers


def _chosen_ap(points: Sequence[Candidate], budget_ms: float) -> float:
    """The AP of the slowest of these points, the fastest first, that keeps the budget: it is what a search chooses."""
    return ([0.0] + [point.ap for point in points if point.ms <= budget_ms])[-1]


def fresh_scenes() -> CocoDataset:
    """Validation images that no search has seen, drawn if they are not there yet."""
    fresh = {"train_images": 0, "val_images": FRONTIER["fresh_images"], "data_seed": FRONTIER["fresh_seed"]}
    return scenes.dataset(SEARCHES | fresh, "val")


def frontier_digest() -> str:
    """Fingerprint of the searches' scenes; all scenes are drawn, and latencies measured, if they are not there yet."""
    fresh_scenes()
    return prepare()


BY_HAND = {"small": (0.25, 0.25), "large": (0.25, 1.0), "narrow": (0.1875, 1.0)}  # width and depth, times those of S
RIVALS = {  # what decides who competes
    "searches": SEARCHES,
    "by_hand": BY_HAND,
    "budgets": ("small", "large"),  # scaled networks whose milliseconds the searched ones must not exceed
    "reg_max": 8,
    "predicted_at_most": 1.05,  # of the budget's predicted time, for a network to be measured
    "measured_together": 4,  # networks, the best first, until one keeps the budget
}


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
    machine = latency("float").table.machine
    mark = settings_digest(plain({**RIVALS, "machine": machine, "budget": budget}))
    path = scenes.cache_folder() / f"rivals-{mark}" / f"{seed}.json"
    if not path.is_file():
        configs = {f"hand {size}": by_hand(size) for size in BY_HAND}
        for kind, words in (("float", "searched"), ("INT8", "searched INT8")):
            frontier = search("evolution", kind, seed, budget)
            configs |= {f"{words} {size}": as_fast(frontier, by_hand(size), kind) for size in RIVALS["budgets"]}
        float_times, int8_times = (times(list(configs.values()), kind) for kind in ENGINES)
        choices = [choices_of(c) if arm.startswith("searched") else None for arm, c in configs.items()]
        rows = {
            arm: {"choices": chosen, "ms": one.ms, "ms_int8": two.ms}
            for arm, chosen, one, two in zip(configs, choices, float_times, int8_times, strict=True)
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, rows)
    rows = json.loads(path.read_text(encoding="utf-8"))
    return {arm: Rival(_config(arm, row["choices"]), row["ms"], row["ms_int8"]) for arm, row in rows.items()}


def _config(arm: str, choices: dict | None) -> YoloNASConfig:
    return by_hand(arm.removeprefix("hand ")) if choices is None else config_of(SUPERNET_SPACE, choices)


def by_hand(size: str) -> YoloNASConfig:
    """S by the multipliers of a size, with as many DFL bins as the lab's networks have."""
    return scaled(dataclasses.replace(CONFIGS["yolo_nas_s"], reg_max=RIVALS["reg_max"]), *BY_HAND[size])


def as_fast(frontier: Frontier, rival: YoloNASConfig, kind: str) -> YoloNASConfig:
    """The best network of a search that takes no longer than the rival in one measurement, side by side.

    Raises ValueError where none of those that are predicted to fit does.
    """
    budget_ms = latency(kind).predict(rival)  # predicted as for the others: a machine is not always as fast
    limit_ms, together = RIVALS["predicted_at_most"] * budget_ms, RIVALS["measured_together"]
    fitting = sorted((c for c in frontier.candidates if c.ms <= limit_ms), key=lambda candidate: -candidate.ap)
    for start in range(0, len(fitting), together):
        limit, *timed = times([rival, *(c.config for c in fitting[start : start + together])], kind)
        for candidate in timed:
            if candidate.ms <= limit.ms:
                return candidate.config
    raise ValueError(f"No network of {len(frontier.candidates)} is as fast as {rival.name} ({budget_ms:.2f} ms).")


def times(configs: list[YoloNASConfig], kind: str) -> tuple[NetworkTime, ...]:
    """The milliseconds of networks in "float" or "INT8", measured side by side."""
    classes = len(scenes.draw(_searched()).class_names)
    return time_networks(configs, SEARCHES["image_size"], ENGINES[kind], num_classes=classes).times


SEARCHED = {
    "rivals": RIVALS,
    "steps": 1000,  # of each final training
    "image_size": 64,  # px
    "train_images": 4000,
    "val_images": 500,
    "calibration_images": 256,
    "difficulty": 0.5,
    "data_seed": 6,  # no search has seen these scenes
    "recipe": scenes.RECIPE,
}


def run_searched_networks(seed: int, budget: float = 1.0) -> Numbers:
    """AP in float and in INT8 of each network after its training, and its milliseconds and multiply-accumulates.

    budget is the share of the steps, and of the networks that a search looks at.
    """
    s = SEARCHED
    train_set, val_set = scenes.datasets(s)
    calibration_set = train_set.subset(range(s["calibration_images"]))
    numbers = {}
    for arm, rival in rivals(seed, budget).items():
        model = scenes.network(rival.config, len(train_set.class_names), seed)
        model.image_size = s["image_size"]
        fit(model, train_set, None, scenes.recipe(seed, budget * s["steps"]))
        model.eval()
        int8 = calibrate(quantize(model, QuantPolicy.cpu()), calibration_set)
        numbers[arm] = {
            "ap": scenes.measured(reparameterize(model), val_set)["ap"],
            "ap_int8": scenes.measured(int8, val_set)["ap"],
            "ms": rival.ms,
            "ms_int8": rival.ms_int8,
            "mega_macs": proxies.macs(rival.config, s["image_size"], len(val_set.class_names)) / 1e6,
        }
    return numbers


def searched_networks_digest() -> str:
    """Fingerprint of the scenes of the final trainings; prepares the searches if that was not done yet."""
    prepare()
    return scenes.scenes_digest(SEARCHED)


CLAIMS = (
    Claim(
        name="search_frontier",
        question="Does evolution find a better frontier of AP and latency than as many networks drawn at random?",
        settings=FRONTIER,
        metrics=("mean_ap_fresh", "ap_fast_fresh", "mean_ap", "ap_fast"),
        comparisons=(("evolution", "random"),),
        run=run_search_frontier,
        data_digest=frontier_digest,
    ),
    Claim(
        name="searched_networks",
        question="Does a searched network reach more AP than S scaled by hand that takes as many milliseconds?",
        settings=SEARCHED,
        metrics=("ap", "ap_int8", "ms", "ms_int8", "mega_macs"),
        comparisons=(
            ("searched small", "hand small"),
            ("searched large", "hand large"),
            ("searched large", "hand narrow"),
            ("searched INT8 small", "hand small"),
            ("searched INT8 large", "hand large"),
            ("searched INT8 small", "searched small"),
            ("searched INT8 large", "searched large"),
        ),
        run=run_searched_networks,
        data_digest=searched_networks_digest,
    ),
)
