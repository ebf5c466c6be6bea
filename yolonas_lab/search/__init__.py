"""Architecture search: spaces of networks, how long each takes on this machine, how good it is with shared weights.

Two functions have the names of their modules: `search.evolve.evolve` and `search.latency_model.latency_model`.
"""

from yolonas_lab.search.evolve import Candidate, load_frontier, save_frontier, search_at_random
from yolonas_lab.search.latency_model import (
    ErrorReport,
    LatencyModel,
    NetworkTime,
    NetworkTimes,
    error_report,
    fit_latency,
    most_unequal_pair,
    space_layers,
    time_networks,
)
from yolonas_lab.search.space import (
    FULL_SPACE,
    LAB_SPACE,
    Space,
    StageOptions,
    choices_of,
    config_of,
    crossover,
    largest,
    mutate,
    neighbors,
    sample,
    scaled,
    size,
    smallest,
    spread_sample,
)
from yolonas_lab.search.supernet import SUPERNET_SPACE, load_supernet, score, train_supernet

__all__ = [
    "FULL_SPACE", "LAB_SPACE", "SUPERNET_SPACE", "Candidate", "ErrorReport", "LatencyModel", "NetworkTime",
    "NetworkTimes", "Space", "StageOptions", "choices_of", "config_of", "crossover", "error_report", "fit_latency",
    "largest", "load_frontier", "load_supernet", "most_unequal_pair", "mutate", "neighbors", "sample", "save_frontier",
    "scaled", "score", "search_at_random", "size", "smallest", "space_layers", "spread_sample", "time_networks",
    "train_supernet",
]  # fmt: skip
