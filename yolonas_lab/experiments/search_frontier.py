"""Claim: evolution finds better networks than looking at as many at random.

Notebook 09. AP is that of the supernet's weights; nothing is trained. Li and Talwalkar, "Random Search and
Reproducibility for Neural Architecture Search", arXiv 1902.07638, on why random search is the baseline to beat.
"""

from yolonas_lab.experiments import searches
from yolonas_lab.experiments.claim import Numbers
from yolonas_lab.search.frontier import Frontier
from yolonas_lab.search.space import largest
from yolonas_lab.search.supernet import SUPERNET_SPACE

QUESTION = "Does evolution find a better frontier of AP and latency than as many networks drawn at random?"
SETTINGS = {"searches": searches.SETTINGS, "kind": "float"}
METRICS = ("mean_ap", "ap_fast", "ap_middle", "largest_ap")
COMPARISONS = (("evolution", "random"),)
FAST, MIDDLE = 0.6, 0.8  # of the largest network's time


def run(seed: int, budget: float = 1.0) -> Numbers:
    """Of each search the mean AP over all budgets up to the largest network's time, that under 0.6 and 0.8 of it, and
    the largest; a budget that nothing found fits counts 0.
    """
    within_ms = searches.latency(SETTINGS["kind"]).predict(largest(SUPERNET_SPACE))
    numbers = {}
    for method in ("evolution", "random"):
        frontier = searches.search(method, SETTINGS["kind"], seed, budget)
        numbers[method] = {
            "mean_ap": frontier.hypervolume(within_ms) / within_ms,
            "ap_fast": _ap_under(frontier, FAST * within_ms),
            "ap_middle": _ap_under(frontier, MIDDLE * within_ms),
            "largest_ap": max(candidate.ap for candidate in frontier.candidates),
        }
    return numbers


def data_digest() -> str:
    """Fingerprint of the scenes; draws them, and measures the latency models, if they are not there yet."""
    return searches.prepare()


def _ap_under(frontier: Frontier, budget_ms: float) -> float:
    return max((point.ap for point in frontier.points if point.ms <= budget_ms), default=0.0)
