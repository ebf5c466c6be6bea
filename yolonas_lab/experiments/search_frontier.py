"""Claim: evolution finds better networks than looking at as many at random.

Notebook 09. AP is that of the supernet's weights; nothing is trained. Li and Talwalkar, "Random Search and
Reproducibility for Neural Architecture Search", arXiv 1902.07638, on why random search is the baseline to beat.
"""

from collections.abc import Sequence

from yolonas_lab.data import CocoDataset
from yolonas_lab.experiments import searches
from yolonas_lab.experiments.claim import Numbers
from yolonas_lab.experiments.scenes import draw
from yolonas_lab.latency import area_under
from yolonas_lab.search.evolve import Candidate
from yolonas_lab.search.space import largest
from yolonas_lab.search.supernet import SUPERNET_SPACE

QUESTION = "Does evolution find a better frontier of AP and latency than as many networks drawn at random?"
SETTINGS = {
    "searches": searches.SETTINGS,
    "kind": "float",
    "fast": 0.6,  # of the largest network's time
    "fresh_images": 500,
    "fresh_seed": 7,  # no search has seen these scenes
}
METRICS = ("mean_ap_fresh", "ap_fast_fresh", "mean_ap", "ap_fast")
COMPARISONS = (("evolution", "random"),)


def run(seed: int, budget: float = 1.0) -> Numbers:
    """Of each search the mean AP of what it chooses over all budgets up to the largest network's time, and the AP of
    what it chooses under 0.6 of it: on scenes that no search has seen ("fresh"), and as the search itself scored it.

    A budget that nothing found fits counts 0.
    """
    within_ms = searches.latency(SETTINGS["kind"]).predict(largest(SUPERNET_SPACE))
    fresh_ap = searches.scorer(fresh_scenes())
    numbers = {}
    for method in searches.METHODS:
        frontier = searches.search(method, SETTINGS["kind"], seed, budget)
        fresh = [point._replace(ap=fresh_ap(point.config)) for point in frontier.points]
        numbers[method] = {
            "mean_ap_fresh": area_under(fresh, within_ms) / within_ms,
            "ap_fast_fresh": _chosen_ap(fresh, SETTINGS["fast"] * within_ms),
            "mean_ap": frontier.hypervolume(within_ms) / within_ms,
            "ap_fast": _chosen_ap(frontier.points, SETTINGS["fast"] * within_ms),
        }
    return numbers


def fresh_scenes() -> CocoDataset:
    """Validation images that no search has seen, drawn if they are not there yet."""
    s, shared = SETTINGS, searches.SETTINGS
    made = draw(0, s["fresh_images"], shared["image_size"], shared["difficulty"], s["fresh_seed"])
    return CocoDataset(made.images_dir("val"), made.annotations("val"))


def data_digest() -> str:
    """Fingerprint of the searches' scenes; all scenes are drawn, and latencies measured, if they are not there yet."""
    fresh_scenes()
    return searches.prepare()


def _chosen_ap(points: Sequence[Candidate], budget_ms: float) -> float:
    """The AP of the slowest of these points, the fastest first, that keeps the budget: it is what a search chooses."""
    return ([0.0] + [point.ap for point in points if point.ms <= budget_ms])[-1]
