"""Claim: evolution finds better networks than looking at as many at random.

Notebook 09. AP is that of the supernet's weights; nothing is trained. Li and Talwalkar, "Random Search and
Reproducibility for Neural Architecture Search", arXiv 1902.07638, on why random search is the baseline to beat.
"""

from yolonas_lab.data import CocoDataset
from yolonas_lab.experiments import searches
from yolonas_lab.experiments.claim import Numbers
from yolonas_lab.experiments.scenes import draw
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
        points = [point for point in frontier.points if point.ms < within_ms]
        ends = [point.ms for point in points[1:]] + [within_ms]
        fresh = [fresh_ap(point.config) for point in points]
        area = sum(ap * (end - point.ms) for ap, point, end in zip(fresh, points, ends))
        fast = [number for number, point in enumerate(points) if point.ms <= SETTINGS["fast"] * within_ms]
        numbers[method] = {
            "mean_ap_fresh": area / within_ms,
            "ap_fast_fresh": fresh[fast[-1]] if fast else 0.0,
            "mean_ap": frontier.hypervolume(within_ms) / within_ms,
            "ap_fast": points[fast[-1]].ap if fast else 0.0,
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
