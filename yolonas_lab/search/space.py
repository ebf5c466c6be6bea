"""The networks that a search may choose from: a config with several options in each place instead of one value.

Notebook 09 counts them. What is decided per stage (number of bottlenecks, their channels, block type, concatenation)
is what Deci tells of the search that found YOLO-NAS (YOLONAS.md of super-gradients); that search itself is closed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from yolonas_lab.common import fingerprint, unknown_name
from yolonas_lab.models.blocks import Block, ConvBNAct, QARepVGGBlock, RepVGGBlock
from yolonas_lab.models.configs import StageConfig, YoloNASConfig

BLOCKS: dict[str, Block] = {"plain": ConvBNAct, "repvgg": RepVGGBlock, "qarepvgg": QARepVGGBlock}


@dataclass(frozen=True)
class StageOptions:
    """What a stage of backbone or neck may be: for each field of StageConfig its options, block types by name."""

    out_channels: tuple[int, ...]
    blocks: tuple[int, ...]
    hidden_channels: tuple[int, ...]
    concat: tuple[bool, ...] = (False, True)
    block: tuple[str, ...] = tuple(BLOCKS)


@dataclass(frozen=True)
class Space:
    """A set of networks: every config that takes one option in each place. A config is tested with `config in space`.

    Options are in ascending order, "plain" before "repvgg" before "qarepvgg", channels multiples of 8; other options
    raise ValueError. What has none is the same in all networks.
    """

    name: str
    stem_channels: tuple[int, ...]
    backbone: tuple[StageOptions, StageOptions, StageOptions, StageOptions]  # strides 4, 8, 16, 32
    neck: tuple[StageOptions, StageOptions, StageOptions, StageOptions]  # up to 16, up to 8, down to 16, down to 32
    head_channels: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]  # strides 8, 16, 32
    stem_block: tuple[str, ...] = tuple(BLOCKS)
    spp_kernels: tuple[int, ...] = (5, 9, 13)
    reg_max: int = 16
    image_size: int = 640  # px

    def __post_init__(self) -> None:
        for decision, options in self.decisions.items():
            known = sorted(set(options)) if isinstance(options, tuple) else []
            known = list(BLOCKS) if decision.endswith("block") else known
            ordered = tuple(option for option in known if option in options)
            if not options or options != ordered or ("channels" in decision and any(o % 8 for o in options)):
                raise ValueError(f"{decision} is {options}: give a tuple, ascending, channels multiples of 8.")

    @cached_property
    def decisions(self) -> dict[str, tuple[Any, ...]]:
        """Everything that is to be decided, by name ("backbone.2.blocks"), with its options."""
        return _flat(self)

    def __contains__(self, config: YoloNASConfig) -> bool:
        return why_outside(self, config) is None


def size(space: Space) -> int:
    """The number of networks in a space, exactly: the product of the numbers of options."""
    return math.prod(len(options) for options in space.decisions.values())


def choices_of(config: YoloNASConfig) -> dict[str, Any]:
    """What was decided for a network, by the names of `Space.decisions`; plain values that JSON and Optuna can keep."""
    names = {block: name for name, block in BLOCKS.items()}
    return {decision: names[value] if value in names else value for decision, value in _flat(config).items()}


def config_of(space: Space, choices: Mapping[str, Any]) -> YoloNASConfig:
    """The network of a space with these choices, one for each decision, named after the space and the choices.

    Raises ValueError naming a decision that is unknown or missing, or an option that it does not have.
    """
    if unknown := [decision for decision in choices if decision not in space.decisions]:
        raise ValueError(unknown_name("decision", unknown[0], space.decisions))
    chosen = {}
    for decision, options in space.decisions.items():
        if (value := choices.get(decision, "missing")) not in options:
            raise ValueError(_not_an_option(space, decision, value))
        chosen[decision] = options[options.index(value)]  # 8, where NumPy's 8 was given, and False for 0

    def stages(part: str) -> tuple:
        rows = ([chosen[f"{part}.{i}.{field}"] for field in StageOptions.__dataclass_fields__] for i in range(4))
        return tuple(StageConfig(*numbers, block=BLOCKS[block]) for *numbers, block in rows)

    return YoloNASConfig(
        name=f"{space.name}_{fingerprint(chosen, 12)}",
        stem_channels=chosen["stem_channels"],
        backbone=stages("backbone"),
        neck=stages("neck"),
        head_channels=tuple(chosen[f"head_channels.{level}"] for level in range(3)),  # type: ignore[arg-type]
        stem_block=BLOCKS[chosen["stem_block"]],
        spp_kernels=space.spp_kernels,
        reg_max=space.reg_max,
        image_size=space.image_size,
    )


def why_outside(space: Space, config: YoloNASConfig) -> str | None:
    """The first reason why a config is not in a space; None for one that is. Its name and image_size do not matter."""
    for field in ("spp_kernels", "reg_max"):
        if getattr(config, field) != getattr(space, field):
            return f"{field} is {getattr(config, field)}, and {getattr(space, field)} everywhere in {space.name}."
    for decision, value in choices_of(config).items():
        if value not in space.decisions[decision]:
            return _not_an_option(space, decision, value)
    return None


def with_blocks_of(space: Space, config: YoloNASConfig) -> Space:
    """The part of a space whose networks have the block types of this config, so that they can share weights."""
    chosen = choices_of(config)

    def fixed(part: str) -> tuple:
        stages = enumerate(getattr(space, part))
        return tuple(replace(stage, block=(chosen[f"{part}.{i}.block"],)) for i, stage in stages)

    return replace(space, stem_block=(chosen["stem_block"],), backbone=fixed("backbone"), neck=fixed("neck"))


def smallest(space: Space) -> YoloNASConfig:
    """The network with the first option everywhere: none has fewer blocks or channels."""
    return config_of(space, {decision: options[0] for decision, options in space.decisions.items()})


def largest(space: Space) -> YoloNASConfig:
    """The network with the last option everywhere: every other one of the same block types is a slice of it."""
    return config_of(space, {decision: options[-1] for decision, options in space.decisions.items()})


def sample(space: Space, rng: np.random.Generator) -> YoloNASConfig:
    """A random network; each one of the space is as likely as any other."""
    return config_of(space, {decision: _pick(options, rng) for decision, options in space.decisions.items()})


def spread_sample(space: Space, count: int, rng: np.random.Generator) -> list[YoloNASConfig]:
    """Random networks, from near the smallest to near the largest; uniform samples are all of middling size."""
    configs = []
    for number in range(count):
        part = (number + rng.random()) / count  # of the options, how far from the first to the last
        choices = {d: options[rng.binomial(len(options) - 1, part)] for d, options in space.decisions.items()}
        configs.append(config_of(space, choices))
    return configs


def mutate(space: Space, config: YoloNASConfig, rng: np.random.Generator) -> YoloNASConfig:
    """A copy in which about one decision is taken anew, at least one. Raises ValueError for a config outside."""
    choices = _choices_in(space, config)
    free = [decision for decision, options in space.decisions.items() if len(options) > 1]
    for decision in [decision for decision in free if rng.random() < 1 / len(free)] or [_pick(free, rng)]:
        choices[decision] = _pick([o for o in space.decisions[decision] if o != choices[decision]], rng)
    return config_of(space, choices)


def crossover(space: Space, one: YoloNASConfig, other: YoloNASConfig, rng: np.random.Generator) -> YoloNASConfig:
    """A child with each decision from one of two parents, by the toss of a coin. Raises ValueError for one outside."""
    parents = _choices_in(space, one), _choices_in(space, other)
    return config_of(space, {decision: parents[rng.integers(2)][decision] for decision in space.decisions})


def neighbors(space: Space, config: YoloNASConfig) -> list[YoloNASConfig]:
    """The networks that differ in one decision: in the next option up or down, or any other block type. Raises
    ValueError for a config outside the space.
    """
    choices = _choices_in(space, config)
    found = []
    for decision, options in space.decisions.items():
        here = options.index(choices[decision])
        near = options if decision.endswith("block") else options[max(0, here - 1) : here + 2]
        found += [config_of(space, choices | {decision: option}) for option in near if option != choices[decision]]
    return found


def _choices_in(space: Space, config: YoloNASConfig) -> dict[str, Any]:
    if (reason := why_outside(space, config)) is not None:
        raise ValueError(f"{config.name} is not in the space: {reason}")
    return choices_of(config)


def _pick(options, rng: np.random.Generator):
    return options[rng.integers(len(options))]


def _flat(thing: Space | YoloNASConfig) -> dict:
    """The entries of a space, or of a config, that the two have in common, by name."""
    flat = {"stem_channels": thing.stem_channels, "stem_block": thing.stem_block}
    for part in ("backbone", "neck"):
        for number, stage in enumerate(getattr(thing, part)):
            flat |= {f"{part}.{number}.{field}": getattr(stage, field) for field in StageOptions.__dataclass_fields__}
    return flat | {f"head_channels.{level}": width for level, width in enumerate(thing.head_channels)}


def _not_an_option(space: Space, decision: str, value: Any) -> str:
    return f"{decision} is {value}; {space.name} has {', '.join(map(str, space.decisions[decision]))}."


# Deci's space is said to have about 10^14 networks (YOLONAS.md of super-gradients); which ones is not told, so these
# options are ours. The first is around pico and nano, which are in it, and so are their RepVGG twins.
LAB_SPACE = Space(
    name="lab",
    stem_channels=(8, 16),
    backbone=(
        StageOptions((16, 24), blocks=(1, 2), hidden_channels=(8, 16)),
        StageOptions((24, 32, 48), blocks=(1, 2, 3), hidden_channels=(8, 16, 24)),
        StageOptions((48, 64, 96), blocks=(1, 2, 3), hidden_channels=(16, 24, 32)),
        StageOptions((96, 128, 192), blocks=(1, 2), hidden_channels=(24, 32, 48)),
    ),
    neck=(
        StageOptions((24, 32, 48), blocks=(1, 2), hidden_channels=(8, 16, 24)),
        StageOptions((16, 24), blocks=(1, 2), hidden_channels=(8, 16)),
        StageOptions((24, 32, 48), blocks=(1, 2), hidden_channels=(8, 16, 24)),
        StageOptions((48, 64, 96), blocks=(1, 2), hidden_channels=(8, 16, 24)),
    ),
    head_channels=((16, 24), (24, 32), (32, 48, 64)),
    reg_max=8,
    image_size=96,
)

# Around S, M and L, which differ neither in the stem nor in what their stages put out.
FULL_SPACE = Space(
    name="full",
    stem_channels=(48,),
    backbone=(
        StageOptions((96,), blocks=(1, 2, 3), hidden_channels=(32, 64, 96)),
        StageOptions((192,), blocks=(2, 3, 4), hidden_channels=(64, 96, 128)),
        StageOptions((384,), blocks=(3, 4, 5, 6), hidden_channels=(96, 128, 192, 256)),
        StageOptions((768,), blocks=(1, 2, 3), hidden_channels=(192, 256, 384, 512)),
    ),
    neck=(
        StageOptions((192,), blocks=(2, 3, 4), hidden_channels=(64, 128, 192)),
        StageOptions((96,), blocks=(2, 3, 4), hidden_channels=(48, 64, 96, 128)),
        StageOptions((192,), blocks=(2, 3, 4), hidden_channels=(64, 128, 192)),
        StageOptions((384,), blocks=(2, 3, 4), hidden_channels=(64, 128, 192, 256)),
    ),
    head_channels=((64, 96, 128), (128, 192, 256), (256, 384, 512)),
)


def scaled(config: YoloNASConfig, width: float, depth: float) -> YoloNASConfig:
    """What is done without a search: a network with `width` times the channels, up to the next multiple of 8, and
    `depth` times the bottlenecks of each stage, rounded, at least 1. Raises ValueError for one that is not above 0.

    The families of YOLOv5 and YOLOv8 are made so (`width_multiple`, `depth_multiple` in the YAML files of ultralytics);
    how the two belong together: Tan and Le, "EfficientNet", arXiv 1905.11946, section 3.

    >>> from yolonas_lab.models import CONFIGS
    >>> scaled(CONFIGS["yolo_nas_s"], width=0.25, depth=0.5).head_channels
    (16, 32, 64)
    """
    if not (0 < width < math.inf and 0 < depth < math.inf):
        raise ValueError(f"width is {width} and depth {depth}: give numbers above 0, 1 for the network as it is.")

    def channels(count: int) -> int:
        return math.ceil(count * width / 8) * 8

    def stage(old: StageConfig) -> StageConfig:
        blocks = max(1, math.floor(old.blocks * depth + 0.5))
        out, hidden = channels(old.out_channels), channels(old.hidden_channels)
        return replace(old, out_channels=out, blocks=blocks, hidden_channels=hidden)

    return replace(
        config,
        name=f"{config.name} × {width:g} wide, {depth:g} deep",
        stem_channels=channels(config.stem_channels),
        backbone=tuple(map(stage, config.backbone)),
        neck=tuple(map(stage, config.neck)),
        head_channels=tuple(map(channels, config.head_channels)),
    )
