"""Every size of YOLO-NAS side by side: S, M and L as published, and two lab sizes that train on a laptop.

Notebook 04 reads these tables. S, M, L: super-gradients 3.7.1, `yolo_nas_{s,m,l}_arch_params.yaml`; the lab sizes are
S with an eighth (pico) and a quarter (nano) of its channels, rounded to multiples of 8, and one or two bottlenecks
per stage.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from yolonas_lab.models.blocks import Block, ConvBNAct, QARepVGGBlock, RepVGGBlock


@dataclass(frozen=True)
class StageConfig:
    """One stage of backbone or neck: channels, bottlenecks, their channels, whether all are concatenated, blocks."""

    out_channels: int
    blocks: int
    hidden_channels: int
    concat: bool = False
    block: Block = QARepVGGBlock


Stages = tuple[StageConfig, StageConfig, StageConfig, StageConfig]


@dataclass(frozen=True)
class YoloNASConfig:
    """The whole architecture as numbers: everything that differs between sizes, and nothing else."""

    name: str
    stem_channels: int
    backbone: Stages  # strides 4, 8, 16, 32
    neck: Stages  # up to 16, up to 8, down to 16, down to 32
    head_channels: tuple[int, int, int]  # strides 8, 16, 32
    stem_block: Block = QARepVGGBlock
    spp_kernels: tuple[int, ...] = (5, 9, 13)
    reg_max: int = 16
    image_size: int = 640  # px, the default size of the square that predict() puts an image in


Row = tuple[Any, ...]  # out channels, bottlenecks, hidden channels[, concat]


def _size(name: str, stem: int, backbone: Sequence[Row], neck: Sequence[Row], **others: Any) -> YoloNASConfig:
    """A size from the rows of its stages; on the way down, the neck's blocks are plain."""
    stages: Any = tuple(StageConfig(*row) for row in (*backbone, *neck))
    way_down = tuple(replace(stage, block=ConvBNAct) for stage in stages[6:])
    return YoloNASConfig(name, stem, stages[:4], stages[4:6] + way_down, **others)


YOLO_NAS_S = _size(
    "yolo_nas_s",
    stem=48,
    backbone=((96, 2, 32), (192, 3, 64), (384, 5, 96), (768, 2, 192)),
    neck=((192, 2, 64), (96, 2, 48), (192, 2, 64), (384, 2, 64)),
    head_channels=(64, 128, 256),
)
YOLO_NAS_M = _size(
    "yolo_nas_m",
    stem=48,
    backbone=((96, 2, 64, True), (192, 3, 128, True), (384, 5, 256, True), (768, 2, 384)),
    neck=((192, 2, 192), (96, 3, 64), (192, 2, 192), (384, 3, 256)),
    head_channels=(96, 192, 384),
)
YOLO_NAS_L = _size(
    "yolo_nas_l",
    stem=48,
    backbone=((96, 2, 96, True), (192, 3, 128, True), (384, 5, 256, True), (768, 2, 512, True)),
    neck=((192, 4, 128), (96, 4, 128), (192, 4, 128), (384, 4, 256)),
    head_channels=(128, 256, 512),
)
LAB = {"reg_max": 8, "image_size": 96}
YOLO_NAS_PICO = _size(
    "yolo_nas_pico",
    stem=8,
    backbone=((16, 1, 8), (24, 1, 8), (48, 1, 16), (96, 1, 24)),
    neck=((24, 1, 8), (16, 1, 8), (24, 1, 8), (48, 1, 8)),
    head_channels=(16, 24, 32),
    **LAB,
)
YOLO_NAS_NANO = _size(
    "yolo_nas_nano",
    stem=16,
    backbone=((24, 1, 8), (48, 2, 16), (96, 2, 24), (192, 1, 48)),
    neck=((48, 1, 16), (24, 1, 16), (48, 1, 16), (96, 1, 16)),
    head_channels=(24, 32, 64),
    **LAB,
)


def with_block(config: YoloNASConfig, block: Block, name: str) -> YoloNASConfig:
    """The same architecture under another name, with `block` wherever the config has QARepVGGBlock."""

    def swap(stages: Stages) -> Any:
        return tuple(replace(s, block=block) if s.block is QARepVGGBlock else s for s in stages)

    return replace(config, name=name, stem_block=block, backbone=swap(config.backbone), neck=swap(config.neck))


# Twins with RepVGG blocks, to see what QARepVGG is good for. Notebooks 10 and 11 quantize them.
YOLO_NAS_PICO_REPVGG = with_block(YOLO_NAS_PICO, RepVGGBlock, "yolo_nas_pico_repvgg")
YOLO_NAS_NANO_REPVGG = with_block(YOLO_NAS_NANO, RepVGGBlock, "yolo_nas_nano_repvgg")

_LAB = (YOLO_NAS_PICO, YOLO_NAS_NANO, YOLO_NAS_PICO_REPVGG, YOLO_NAS_NANO_REPVGG)
CONFIGS = {config.name: config for config in (YOLO_NAS_S, YOLO_NAS_M, YOLO_NAS_L, *_LAB)}
