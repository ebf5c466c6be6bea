"""A smaller network as a part of the largest: its first channels, its first bottlenecks, the same weights. Notebook 09.

Weights that many sizes share: Yu and Huang, "Universally Slimmable Networks", arXiv 1903.05134; Cai et al.,
"Once-for-All", arXiv 1908.09791, section 3. What is ours is the care for concatenated maps: each piece of them keeps
the columns that it has in the largest network.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from yolonas_lab.models.configs import StageConfig, YoloNASConfig
from yolonas_lab.search.space import choices_of

Channels = dict[str, int]  # pieces of a map by name, in order, with their numbers of channels


class Unit(NamedTuple):
    """One block of a network: the pieces of the map that it writes and of the one that it reads.

    None stands for all channels: they are the same in every network.
    """

    out: Channels | None
    into: Channels | None


def slice_state_dict(tensors: Mapping[str, Tensor], largest: YoloNASConfig, config: YoloNASConfig) -> dict[str, Tensor]:
    """The tensors of the network `config` by name, cut out of those of the network `largest` with shared weights.

    They are views where one piece is taken, and joined pieces elsewhere; gradients reach the shared weights. Both a
    state dict and named parameters can be cut. Raises ValueError where config is no part of the largest network.
    """
    if (reason := why_no_part(largest, config)) is not None:
        raise ValueError(f"{config.name} is no part of {largest.name}: {reason}")
    there, here = units_of(largest), units_of(config)
    cut = {}
    for name, tensor in tensors.items():
        unit = _unit_name(name, here)
        if unit:  # bottlenecks that the smaller network lacks belong to none
            cut[name] = _cut(tensor, there[unit], here[unit])
    return cut


def why_no_part(largest: YoloNASConfig, config: YoloNASConfig) -> str | None:
    """The first reason why a network is no part of another, as a sentence; None where it is one."""
    for field in ("spp_kernels", "reg_max"):
        if getattr(config, field) != getattr(largest, field):
            return f"{field} is {getattr(config, field)}, and {getattr(largest, field)} there."
    most = choices_of(largest)
    for decision, value in choices_of(config).items():
        if decision.endswith("block"):
            if value != most[decision]:
                return f"{decision} is {value}, and {most[decision]} there."
        elif value > most[decision]:  # type: ignore[operator]  (numbers, or False below True)
            return f"{decision} is {value}, and at most {most[decision]} there."
    return None


def units_of(config: YoloNASConfig) -> dict[str, Unit]:
    """The blocks of a network by the names of their modules."""
    return _backbone(config) | _neck(config) | _heads(config)


def _backbone(config: YoloNASConfig) -> dict[str, Unit]:
    units = {"backbone.stem": Unit(_whole(config.stem_channels), None)}
    channels = config.stem_channels
    for number, stage in enumerate(config.backbone):
        name = f"backbone.stages.{number}"
        units[f"{name}.downsample"] = Unit(_whole(stage.out_channels), _whole(channels))
        channels = stage.out_channels
        units |= _csp(f"{name}.csp", _whole(channels), stage)
    half = channels // 2
    pooled = {"map": half} | {f"maxima over {kernel}": half for kernel in config.spp_kernels}
    units["backbone.spp.conv1"] = Unit(_whole(half), _whole(channels))
    units["backbone.spp.conv2"] = Unit(_whole(channels), pooled)
    return units


def _neck(config: YoloNASConfig) -> dict[str, Unit]:
    c2, c3, c4, c5 = (stage.out_channels for stage in config.backbone)
    up1, up2, down1, down2 = config.neck
    return (
        _up("neck.up1", (c5, c4, c3), up1)
        | _up("neck.up2", (up1.out_channels, c3, c2), up2)
        | _down("neck.down1", up2.out_channels, up2.out_channels, down1)
        | _down("neck.down2", down1.out_channels, up1.out_channels, down2)
    )


def _up(name: str, channels: tuple[int, int, int], stage: StageConfig) -> dict[str, Unit]:
    """The blocks of an up stage that reads a coarse map, a skip and a fine skip with these channels."""
    coarse, skip, fine_skip = (_whole(count) for count in channels)
    out = _whole(stage.out_channels)
    joined: Channels = {piece: stage.out_channels for piece in ("coarse", "skip", "fine skip")}
    units = {
        "reduce": Unit(out, coarse),
        "upsample": Unit(out, out),  # a transposed kernel: (c_in, c_out, 2, 2), but as many of both
        "reduce_skip": Unit(out, skip),
        "reduce_fine_skip": Unit(out, fine_skip),
        "downsample_fine_skip": Unit(out, out),
        "reduce_concat": Unit(out, joined),
    }
    return {f"{name}.{key}": unit for key, unit in units.items()} | _csp(f"{name}.csp", out, stage)


def _down(name: str, fine: int, skip: int, stage: StageConfig) -> dict[str, Unit]:
    half = stage.out_channels // 2
    downsample = {f"{name}.downsample": Unit(_whole(half), _whole(fine))}
    return downsample | _csp(f"{name}.csp", {"fine": half, "skip": skip}, stage)


def _csp(name: str, into: Channels, stage: StageConfig) -> dict[str, Unit]:
    hidden = _whole(stage.hidden_channels)
    steps = [f"after {count} bottlenecks" for count in range(stage.blocks + 1)]
    joined = dict.fromkeys([*(steps if stage.concat else steps[-1:]), "around"], stage.hidden_channels)
    units = {
        f"{name}.conv1": Unit(hidden, into),
        f"{name}.conv2": Unit(hidden, into),
        f"{name}.conv3": Unit(_whole(stage.out_channels), joined),
    }
    for number in range(stage.blocks):
        bottleneck = f"{name}.bottlenecks.{number}"
        units |= {f"{bottleneck}.{block}": Unit(hidden, hidden) for block in ("block1", "block2")}
        units[f"{bottleneck}.alpha"] = Unit(None, None)
    return units


def _heads(config: YoloNASConfig) -> dict[str, Unit]:
    units = {}
    features = (stage.out_channels for stage in config.neck[1:])
    for level, (channels, width) in enumerate(zip(features, config.head_channels, strict=True)):
        name = f"heads.levels.{level}"
        units[f"{name}.stem"] = Unit(_whole(width), _whole(channels))
        for part in ("class", "box"):
            units[f"{name}.{part}_conv"] = Unit(_whole(width), _whole(width))
            units[f"{name}.{part}_pred"] = Unit(None, _whole(width))
    return units


def _whole(channels: int) -> Channels:
    """A map of one piece."""
    return {"map": channels}


def _unit_name(name: str, units: Mapping[str, Unit]) -> str:
    """The block that a tensor belongs to; "" for none."""
    while name and name not in units:
        name = name.rpartition(".")[0]
    return name


def _cut(tensor: Tensor, there: Unit, here: Unit) -> Tensor:
    """A kernel's rows (what is written) and columns (what is read), or the entries of a vector."""
    if tensor.ndim > 0:
        tensor = _take(tensor, 0, there.out, here.out)
    if tensor.ndim > 1:
        tensor = _take(tensor, 1, there.into, here.into)
    return tensor


def _take(tensor: Tensor, dim: int, there: Channels | None, here: Channels | None) -> Tensor:
    """The first channels of each piece along a dimension."""
    if there is None or here is None or there == here:
        return tensor
    starts, start = {}, 0
    for piece, count in there.items():
        starts[piece], start = start, start + count
    parts = [tensor.narrow(dim, starts[piece], count) for piece, count in here.items()]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
