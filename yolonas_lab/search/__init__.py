"""Architecture search: spaces of networks, how long each takes on this machine, how good it is with shared weights.

The search itself is in `search.evolve` (evolve, search_at_random, load_search), guesses at AP in `search.proxies`.
"""

from yolonas_lab.search.frontier import Candidate, Frontier, load_frontier, pareto_front
from yolonas_lab.search.hand_scaled import scaled
from yolonas_lab.search.latency import LatencyModel, fit_latency, latency_model, load_model, save_model
from yolonas_lab.search.latency_report import ErrorReport, error_report
from yolonas_lab.search.latency_table import (
    LatencyTable,
    load_table,
    measure_table,
    merge_tables,
    save_table,
)
from yolonas_lab.search.layer_times import time_layers
from yolonas_lab.search.layers import Layer, count_macs, network_layers, space_layers
from yolonas_lab.search.network_times import (
    NetworkTime,
    NetworkTimes,
    most_unequal_pair,
    spread_sample,
    time_networks,
)
from yolonas_lab.search.ranking import RankCorrelation, Ranking, kendall, rank
from yolonas_lab.search.scoring import calibration_batches, inherited, reestimate_batch_norm, score
from yolonas_lab.search.space import (
    Space,
    StageOptions,
    choices_of,
    config_of,
    crossover,
    largest,
    mutate,
    neighbors,
    sample,
    size,
    smallest,
    why_outside,
    with_blocks_of,
)
from yolonas_lab.search.spaces import FULL_SPACE, LAB_SPACE
from yolonas_lab.search.supernet import SUPERNET_SPACE, forward_as, load_supernet, subnetwork, train_supernet
from yolonas_lab.search.tensorrt_profile import tensorrt_table

__all__ = [
    "FULL_SPACE",
    "LAB_SPACE",
    "SUPERNET_SPACE",
    "Candidate",
    "ErrorReport",
    "Frontier",
    "LatencyModel",
    "LatencyTable",
    "Layer",
    "NetworkTime",
    "NetworkTimes",
    "RankCorrelation",
    "Ranking",
    "Space",
    "StageOptions",
    "calibration_batches",
    "choices_of",
    "config_of",
    "count_macs",
    "crossover",
    "error_report",
    "fit_latency",
    "forward_as",
    "inherited",
    "kendall",
    "largest",
    "latency_model",
    "load_frontier",
    "load_model",
    "load_supernet",
    "load_table",
    "measure_table",
    "merge_tables",
    "most_unequal_pair",
    "mutate",
    "neighbors",
    "network_layers",
    "pareto_front",
    "rank",
    "reestimate_batch_norm",
    "sample",
    "save_model",
    "save_table",
    "scaled",
    "score",
    "size",
    "smallest",
    "space_layers",
    "spread_sample",
    "subnetwork",
    "tensorrt_table",
    "time_layers",
    "time_networks",
    "train_supernet",
    "why_outside",
    "with_blocks_of",
]
