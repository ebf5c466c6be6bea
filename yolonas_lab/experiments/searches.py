"""The searches of the two claims about architecture search: their data, their latency models, what each seed found.

A network's AP is that of the shipped supernet's weights, its milliseconds those of this machine's latency model. Found
frontiers and latency models are kept in the cache folder, so that both claims share them.
"""

from collections.abc import Callable
from functools import lru_cache, partial

from yolonas_lab.data import CocoDataset, digest
from yolonas_lab.experiments.claim import plain, settings_digest
from yolonas_lab.experiments.scenes import cache_folder, datasets, draw
from yolonas_lab.latency import Frontier
from yolonas_lab.models import YoloNAS
from yolonas_lab.models.configs import YoloNASConfig
from yolonas_lab.search.evolve import evolve, load_frontier, save_frontier, search_at_random
from yolonas_lab.search.latency_model import LatencyModel, latency_model
from yolonas_lab.search.supernet import SUPERNET_SPACE, SUPERNET_WEIGHTS, calibration_batches, load_supernet, score

METHODS = {"evolution": evolve, "random": search_at_random}
ENGINES = {"float": "onnxruntime", "INT8": "onnxruntime int8"}
SETTINGS = {
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
"""What decides a search; each claim's SETTINGS holds it as "searches"."""


def scenes() -> tuple[CocoDataset, CocoDataset]:
    """The images for BatchNorm and those that are scored, drawn if they are not there yet."""
    return datasets(_drawn())


def prepare() -> str:
    """Draw the scenes and measure the latency models if they are not there yet; returns the scenes' fingerprint."""
    for kind in ENGINES:
        latency(kind)
    return digest(_drawn().folder)


def latency(kind: str) -> LatencyModel:
    """This machine's latency model for networks in "float" or "INT8", measured once."""
    folder = cache_folder() / "latency"
    folder.mkdir(parents=True, exist_ok=True)
    _, scored = scenes()
    return latency_model(
        SUPERNET_SPACE, SETTINGS["image_size"], ENGINES[kind], num_classes=len(scored.class_names), folder=folder
    )


def search(method: str, kind: str, seed: int, budget: float = 1.0) -> Frontier:
    """What "evolution" or "random" finds with this seed for the milliseconds of "float" or "INT8" networks.

    budget is the share of the networks to look at. A search that was stopped goes on, one that was done is only read.
    """
    model = latency(kind)
    networks = max(2, round(budget * SETTINGS["networks"]))
    mark = settings_digest(plain({**SETTINGS, "machine": model.table.machine, "networks": networks}))
    path = cache_folder() / f"searches-{mark}" / f"{method}-{kind}-{seed}.json"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        look = METHODS[method]
        found = look(SUPERNET_SPACE, _scorer(), model.predict, networks, path.with_suffix(".db"), seed=seed)
        save_frontier(found, path, SUPERNET_SPACE)
    return load_frontier(path, SUPERNET_SPACE)


def scorer(val_set: CocoDataset) -> Callable[[YoloNASConfig], float]:
    """AP on val_set with the supernet's weights; a network that was scored before is only looked up."""
    images, _ = scenes()
    supernet: YoloNAS = load_supernet()
    half = SETTINGS["batch_norm_images"] // 2
    batches = calibration_batches(images, SETTINGS["image_size"], batches=2, batch_size=half)
    return lru_cache(maxsize=None)(partial(score, supernet, calibration=batches, val_set=val_set))


@lru_cache
def _scorer() -> Callable[[YoloNASConfig], float]:
    """The scorer of the searches, which share what is known."""
    return scorer(scenes()[1])


def _drawn():
    s = SETTINGS
    return draw(s["batch_norm_images"], s["scored_images"], s["image_size"], s["difficulty"], s["data_seed"])
