"""Every size of YOLO-NAS side by side: S, M and L as published, and two lab sizes that train on a laptop.

Notebook 04 reads these tables. S, M, L: super-gradients 3.7.1, `yolo_nas_{s,m,l}_arch_params.yaml`; the lab sizes are
S with an eighth (pico) and a quarter (nano) of its channels, rounded to multiples of 8, and one or two bottlenecks
per stage.
"""

from dataclasses import dataclass, replace

from yolonas_lab.models.blocks import Block, ConvBNAct, QARepVGGBlock, RepVGGBlock


@dataclass(frozen=True)
class StageConfig:
    """One stage of backbone or neck: output channels, bottlenecks, their channels, whether all of them are
    concatenated, block type.
    """

    out_channels: int
    blocks: int
    hidden_channels: int
    concat: bool = False
    block: Block = QARepVGGBlock


@dataclass(frozen=True)
class YoloNASConfig:
    """The whole architecture as numbers: everything that differs between sizes, and nothing else."""

    name: str
    stem_channels: int
    backbone: tuple[StageConfig, StageConfig, StageConfig, StageConfig]  # strides 4, 8, 16, 32
    neck: tuple[StageConfig, StageConfig, StageConfig, StageConfig]  # up to 16, up to 8, down to 16, down to 32
    head_channels: tuple[int, int, int]  # strides 8, 16, 32
    stem_block: Block = QARepVGGBlock
    spp_kernels: tuple[int, ...] = (5, 9, 13)
    reg_max: int = 16
    image_size: int = 640  # px, the default size of the square that predict() puts an image in


YOLO_NAS_S = YoloNASConfig(
    name="yolo_nas_s",
    stem_channels=48,
    backbone=(
        StageConfig(96, blocks=2, hidden_channels=32),
        StageConfig(192, blocks=3, hidden_channels=64),
        StageConfig(384, blocks=5, hidden_channels=96),
        StageConfig(768, blocks=2, hidden_channels=192),
    ),
    neck=(
        StageConfig(192, blocks=2, hidden_channels=64),
        StageConfig(96, blocks=2, hidden_channels=48),
        StageConfig(192, blocks=2, hidden_channels=64, block=ConvBNAct),
        StageConfig(384, blocks=2, hidden_channels=64, block=ConvBNAct),
    ),
    head_channels=(64, 128, 256),
)

YOLO_NAS_M = YoloNASConfig(
    name="yolo_nas_m",
    stem_channels=48,
    backbone=(
        StageConfig(96, blocks=2, hidden_channels=64, concat=True),
        StageConfig(192, blocks=3, hidden_channels=128, concat=True),
        StageConfig(384, blocks=5, hidden_channels=256, concat=True),
        StageConfig(768, blocks=2, hidden_channels=384),
    ),
    neck=(
        StageConfig(192, blocks=2, hidden_channels=192),
        StageConfig(96, blocks=3, hidden_channels=64),
        StageConfig(192, blocks=2, hidden_channels=192, block=ConvBNAct),
        StageConfig(384, blocks=3, hidden_channels=256, block=ConvBNAct),
    ),
    head_channels=(96, 192, 384),
)

YOLO_NAS_L = YoloNASConfig(
    name="yolo_nas_l",
    stem_channels=48,
    backbone=(
        StageConfig(96, blocks=2, hidden_channels=96, concat=True),
        StageConfig(192, blocks=3, hidden_channels=128, concat=True),
        StageConfig(384, blocks=5, hidden_channels=256, concat=True),
        StageConfig(768, blocks=2, hidden_channels=512, concat=True),
    ),
    neck=(
        StageConfig(192, blocks=4, hidden_channels=128),
        StageConfig(96, blocks=4, hidden_channels=128),
        StageConfig(192, blocks=4, hidden_channels=128, block=ConvBNAct),
        StageConfig(384, blocks=4, hidden_channels=256, block=ConvBNAct),
    ),
    head_channels=(128, 256, 512),
)

YOLO_NAS_PICO = YoloNASConfig(
    name="yolo_nas_pico",
    stem_channels=8,
    backbone=(
        StageConfig(16, blocks=1, hidden_channels=8),
        StageConfig(24, blocks=1, hidden_channels=8),
        StageConfig(48, blocks=1, hidden_channels=16),
        StageConfig(96, blocks=1, hidden_channels=24),
    ),
    neck=(
        StageConfig(24, blocks=1, hidden_channels=8),
        StageConfig(16, blocks=1, hidden_channels=8),
        StageConfig(24, blocks=1, hidden_channels=8, block=ConvBNAct),
        StageConfig(48, blocks=1, hidden_channels=8, block=ConvBNAct),
    ),
    head_channels=(16, 24, 32),
    reg_max=8,
    image_size=96,
)

YOLO_NAS_NANO = YoloNASConfig(
    name="yolo_nas_nano",
    stem_channels=16,
    backbone=(
        StageConfig(24, blocks=1, hidden_channels=8),
        StageConfig(48, blocks=2, hidden_channels=16),
        StageConfig(96, blocks=2, hidden_channels=24),
        StageConfig(192, blocks=1, hidden_channels=48),
    ),
    neck=(
        StageConfig(48, blocks=1, hidden_channels=16),
        StageConfig(24, blocks=1, hidden_channels=16),
        StageConfig(48, blocks=1, hidden_channels=16, block=ConvBNAct),
        StageConfig(96, blocks=1, hidden_channels=16, block=ConvBNAct),
    ),
    head_channels=(24, 32, 64),
    reg_max=8,
    image_size=96,
)


def with_block(config: YoloNASConfig, block: Block, name: str) -> YoloNASConfig:
    """The same architecture under another name, with `block` wherever the config has QARepVGGBlock."""

    def swap(stages: tuple[StageConfig, ...]) -> tuple:
        return tuple(replace(s, block=block) if s.block is QARepVGGBlock else s for s in stages)

    return replace(config, name=name, stem_block=block, backbone=swap(config.backbone), neck=swap(config.neck))


# Twins with RepVGG blocks, to see what QARepVGG is good for. Notebooks 10 and 11 quantize them.
YOLO_NAS_PICO_REPVGG = with_block(YOLO_NAS_PICO, RepVGGBlock, "yolo_nas_pico_repvgg")
YOLO_NAS_NANO_REPVGG = with_block(YOLO_NAS_NANO, RepVGGBlock, "yolo_nas_nano_repvgg")

_PUBLISHED = (YOLO_NAS_S, YOLO_NAS_M, YOLO_NAS_L)
_LAB = (YOLO_NAS_PICO, YOLO_NAS_NANO, YOLO_NAS_PICO_REPVGG, YOLO_NAS_NANO_REPVGG)
CONFIGS = {config.name: config for config in (*_PUBLISHED, *_LAB)}
