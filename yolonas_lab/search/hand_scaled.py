"""What is done without a search: one network, all of its channels and bottlenecks times a multiplier. Notebook 09.

The families of YOLOv5 and YOLOv8 are made so (`depth_multiple`, `width_multiple` in the YAML files of ultralytics).
Tan and Le, "EfficientNet", arXiv 1905.11946, section 3, on how the two belong together.
"""

import math
from dataclasses import replace

from yolonas_lab.models.configs import StageConfig, YoloNASConfig

EIGHT = 8  # channels come in multiples of it


def scaled(config: YoloNASConfig, width: float, depth: float) -> YoloNASConfig:
    """A network with `width` times the channels, up to the next multiple of 8, and `depth` times the bottlenecks of
    each stage, rounded, at least 1. It is named after both.

    Raises ValueError for a multiplier that is not above 0.
    """
    for name, multiplier in (("width", width), ("depth", depth)):
        if not (0 < multiplier < math.inf):
            raise ValueError(f"{name} is {multiplier}: give a number above 0, 1 for the network as it is.")

    def channels(count: int) -> int:
        return math.ceil(count * width / EIGHT) * EIGHT

    def stage(of: StageConfig) -> StageConfig:
        blocks = max(1, math.floor(of.blocks * depth + 0.5))
        return replace(
            of, out_channels=channels(of.out_channels), blocks=blocks, hidden_channels=channels(of.hidden_channels)
        )

    backbone, neck = config.backbone, config.neck
    head = config.head_channels
    return replace(
        config,
        name=f"{config.name} × {width:g} wide, {depth:g} deep",
        stem_channels=channels(config.stem_channels),
        backbone=(stage(backbone[0]), stage(backbone[1]), stage(backbone[2]), stage(backbone[3])),
        neck=(stage(neck[0]), stage(neck[1]), stage(neck[2]), stage(neck[3])),
        head_channels=(channels(head[0]), channels(head[1]), channels(head[2])),
    )
