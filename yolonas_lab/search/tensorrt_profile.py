"""A GPU's latency table from what TensorRT measured layer by layer, for a search on a machine without it. Notebook 09.

TensorRT merges layers: what it calls one may be several convolutions of the network with all that stands between.
"""

import json
import math
import re
from pathlib import Path

from yolonas_lab.models.configs import YoloNASConfig
from yolonas_lab.search.latency_table import LatencyTable
from yolonas_lab.search.layers import CONVOLUTIONS, Layer, network_layers

_CONVOLUTION_NODE = re.compile(r"([\w.]+)/Conv(?:Transpose)?(?!\w)")  # as export_onnx names them: "<module>/Conv"


def tensorrt_table(
    path: str | Path, config: YoloNASConfig, image_size: int, machine: str, num_classes: int = 80
) -> LatencyTable:
    """The convolutions' times of one network from TensorRT's layer profile: `trtexec --exportProfile=FILE`, of an
    engine built from `export_onnx` of this config.

    What TensorRT runs as one layer is divided among its convolutions by their multiply-accumulates; layers without
    one are left out (`LatencyModel.base_ms` can stand for them). Raises ValueError naming the file for what is no
    profile, and a convolution that is not in it.
    """
    layers = {n: layer for n, layer in network_layers(config, image_size, num_classes).items() if layer.macs}
    times: dict[Layer, list[float]] = {layer: [] for layer in layers.values()}
    found = set()
    for name, ms in _profile(Path(path)):
        inside = [n for n in dict.fromkeys(_CONVOLUTION_NODE.findall(name)) if n in layers]
        macs = sum(layers[n].macs for n in inside)
        for n in inside:
            times[layers[n]].append(ms * layers[n].macs / macs)
        found.update(inside)
    if missing := [n for n in layers if n not in found]:
        raise ValueError(
            f"{path} has no layer for the convolution {missing[0]}: is it the profile of {config.name}, built from "
            "what export_onnx wrote?"
        )
    means = {layer: math.fsum(values) / len(values) for layer, values in times.items()}
    return LatencyTable(machine, "tensorrt", image_size, means, CONVOLUTIONS)


def _profile(path: Path) -> list[tuple[str, float]]:
    """Names and ms of the layers in a profile, whose first entry is the number of runs."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        layers = [row for row in rows if "name" in row]
        times = [(row["name"], float(row.get("medianMs", row.get("averageMs")))) for row in layers]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is not a layer profile of trtexec --exportProfile ({error}).") from error
    if not times:
        raise ValueError(f"{path} holds no layers: build the engine anew and run trtexec with --exportProfile.")
    return times
