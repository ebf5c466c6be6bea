"""Architecture search: spaces of networks, and how long each of their networks takes on this machine."""

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
from yolonas_lab.search.tensorrt_profile import tensorrt_table

__all__ = [
    "FULL_SPACE",
    "LAB_SPACE",
    "ErrorReport",
    "LatencyModel",
    "LatencyTable",
    "Layer",
    "NetworkTime",
    "NetworkTimes",
    "Space",
    "StageOptions",
    "choices_of",
    "config_of",
    "count_macs",
    "crossover",
    "error_report",
    "fit_latency",
    "largest",
    "latency_model",
    "load_model",
    "load_table",
    "measure_table",
    "merge_tables",
    "most_unequal_pair",
    "mutate",
    "neighbors",
    "network_layers",
    "sample",
    "save_model",
    "save_table",
    "size",
    "smallest",
    "space_layers",
    "spread_sample",
    "tensorrt_table",
    "time_layers",
    "time_networks",
    "why_outside",
    "with_blocks_of",
]
