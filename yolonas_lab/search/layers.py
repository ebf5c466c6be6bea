"""A network as the list of operations that it runs when deployed, worked out from its config alone. Notebook 09.

What decides an operation's time is its kind and its shape. Different networks have many of these in common, so that
few measurements tell the times of many networks. Nothing is built: a list takes microseconds.
"""

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from yolonas_lab.models.configs import StageConfig, YoloNASConfig
from yolonas_lab.models.heads import STRIDES
from yolonas_lab.search.space import Space, config_of

# "conv" has its ReLU behind it, "predict" is a convolution without, "upsample" a transposed one; "add" is the scaled
# sum of a bottleneck. The block types are all the same "conv" once they are fused.
KINDS = ("conv", "predict", "upsample", "add", "concat", "pool")
CONVOLUTIONS = ("conv", "predict", "upsample")


class Layer(NamedTuple):
    """One operation of a fused network on square maps: all that its time depends on."""

    kind: str  # one of KINDS
    in_channels: int  # of a concatenation, of all its pieces together
    out_channels: int
    kernel: int
    stride: int
    size: int  # px, side of the input

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image; only convolutions have any."""
        if self.kind not in CONVOLUTIONS:
            return 0
        side = self.size if self.kind == "upsample" else self.size // self.stride
        return self.weights * side**2

    @property
    def weights(self) -> int:
        """Entries of the kernel, biases not counted; only convolutions have any."""
        return self.in_channels * self.out_channels * self.kernel**2 if self.kind in CONVOLUTIONS else 0

    def __str__(self) -> str:
        """Such as "conv 16→24 3×3/2 at 32 px"."""
        channels = f"{self.in_channels}→{self.out_channels}"
        return f"{self.kind} {channels} {self.kernel}×{self.kernel}/{self.stride} at {self.size} px"


def parse_layer(text: str) -> Layer:
    """The operation that `str` wrote as this text. Raises ValueError for any other text."""
    match = _TEXT.fullmatch(text)
    if match is None or match["kind"] not in KINDS:
        raise ValueError(f"'{text}' is not an operation such as '{Layer('conv', 16, 24, 3, 2, 32)}'.")
    numbers = (int(match[field]) for field in ("c_in", "c_out", "kernel", "stride", "size"))
    return Layer(match["kind"], *numbers)


_TEXT = re.compile(
    r"(?P<kind>\w+) (?P<c_in>\d+)→(?P<c_out>\d+) (?P<kernel>\d+)×(?P=kernel)/(?P<stride>\d+) at (?P<size>\d+) px"
)


def network_layers(config: YoloNASConfig, image_size: int, num_classes: int = 80) -> dict[str, Layer]:
    """Every operation of the fused network on an image of image_size px, by the name of its module, part by part.

    A bottleneck's name stands for its sum, a pyramid's or stage's with ".concat" for what is joined there. Left out is
    what follows the last convolutions (decoding): it is the same for all networks at one image_size. Raises ValueError
    for an image_size that is not a multiple of 32.
    """
    if image_size < STRIDES[-1] or image_size % STRIDES[-1]:
        raise ValueError(f"image_size must be a multiple of {STRIDES[-1]} px, but is {image_size}.")
    return _backbone(config, image_size) | _neck(config, image_size) | _heads(config, image_size, num_classes)


def count_macs(layers: Iterable[Layer]) -> int:
    """Multiply-accumulates of all these operations for one image."""
    return sum(layer.macs for layer in layers)


def space_layers(space: Space, image_size: int, num_classes: int = 80) -> list[Layer]:
    """Every operation that some network of a space has, each once.

    An operation depends on the decisions of one stage and the width of at most one other, so that it is enough to
    combine these. Raises ValueError for an image_size that is not a multiple of 32.
    """
    found: dict[Layer, None] = {}
    for free in _groups(space):
        options = [space.decisions[decision] for decision in free]
        fixed = {decision: options[0] for decision, options in space.decisions.items()}
        for chosen in itertools.product(*options):
            config = config_of(space, fixed | dict(zip(free, chosen)))
            found |= dict.fromkeys(network_layers(config, image_size, num_classes).values())
    return list(found)


def _groups(space: Space) -> Iterator[list[str]]:
    """Sets of decisions that may meet in one operation: those of a stage, and one width of another. Block types are
    left out: fused, they are all the same.
    """
    matter = [decision for decision in space.decisions if not decision.endswith("block")]
    widths = [decision for decision in matter if decision.endswith(("out_channels", "stem_channels"))]
    places = dict.fromkeys(decision.rpartition(".")[0] for decision in matter if decision.count(".") == 2)
    for place in places:
        own = [decision for decision in matter if decision.startswith(f"{place}.")]
        yield from ([*own, width] for width in widths if width not in own)
    heads = [decision for decision in matter if decision.startswith("head_channels")]
    yield from ([head, width] for head in heads for width in widths)


def _backbone(config: YoloNASConfig, size: int) -> dict[str, Layer]:
    layers = {"backbone.stem.conv": Layer("conv", 3, config.stem_channels, 3, 2, size)}
    channels, size = config.stem_channels, size // 2
    for number, stage in enumerate(config.backbone):
        name = f"backbone.stages.{number}"
        layers[f"{name}.downsample.conv"] = Layer("conv", channels, stage.out_channels, 3, 2, size)
        channels, size = stage.out_channels, size // 2
        layers |= _csp(f"{name}.csp", channels, stage, size)
    half, pieces = channels // 2, 1 + len(config.spp_kernels)
    layers["backbone.spp.conv1.conv"] = Layer("conv", channels, half, 1, 1, size)
    for number, kernel in enumerate(config.spp_kernels):
        layers[f"backbone.spp.pools.{number}"] = Layer("pool", half, half, kernel, 1, size)
    layers["backbone.spp.concat"] = _concat(pieces * half, size)
    layers["backbone.spp.conv2.conv"] = Layer("conv", pieces * half, channels, 1, 1, size)
    return layers


def _csp(name: str, in_channels: int, stage: StageConfig, size: int) -> dict[str, Layer]:
    hidden = stage.hidden_channels
    layers = {f"{name}.conv1.conv": Layer("conv", in_channels, hidden, 1, 1, size)}
    for number in range(stage.blocks):
        bottleneck = f"{name}.bottlenecks.{number}"
        for block in ("block1", "block2"):
            layers[f"{bottleneck}.{block}.conv"] = Layer("conv", hidden, hidden, 3, 1, size)
        layers[bottleneck] = Layer("add", hidden, hidden, 1, 1, size)
    joined = hidden * (stage.blocks + 2 if stage.concat else 2)
    layers[f"{name}.conv2.conv"] = Layer("conv", in_channels, hidden, 1, 1, size)
    layers[f"{name}.concat"] = _concat(joined, size)
    layers[f"{name}.conv3.conv"] = Layer("conv", joined, stage.out_channels, 1, 1, size)
    return layers


def _neck(config: YoloNASConfig, image_size: int) -> dict[str, Layer]:
    c2, c3, c4, c5 = (stage.out_channels for stage in config.backbone)
    up1, up2, down1, down2 = config.neck
    return (
        _up("neck.up1", (c5, c4, c3), up1, image_size // 32)
        | _up("neck.up2", (up1.out_channels, c3, c2), up2, image_size // 16)
        | _down("neck.down1", up2.out_channels, up2.out_channels, down1, image_size // 8)
        | _down("neck.down2", down1.out_channels, up1.out_channels, down2, image_size // 16)
    )


def _up(name: str, channels: tuple[int, int, int], stage: StageConfig, size: int) -> dict[str, Layer]:
    """An up stage: `size` is the side of its coarse input in px; its skips have two and four times that."""
    coarse, skip, fine_skip = channels
    out = stage.out_channels
    layers = {
        "reduce.conv": Layer("conv", coarse, out, 1, 1, size),
        "upsample": Layer("upsample", out, out, 2, 2, size),
        "reduce_skip.conv": Layer("conv", skip, out, 1, 1, 2 * size),
        "reduce_fine_skip.conv": Layer("conv", fine_skip, out, 1, 1, 4 * size),
        "downsample_fine_skip.conv": Layer("conv", out, out, 3, 2, 4 * size),
        "concat": _concat(3 * out, 2 * size),
        "reduce_concat.conv": Layer("conv", 3 * out, out, 1, 1, 2 * size),
    }
    return {f"{name}.{key}": layer for key, layer in layers.items()} | _csp(f"{name}.csp", out, stage, 2 * size)


def _down(name: str, fine: int, skip: int, stage: StageConfig, size: int) -> dict[str, Layer]:
    """A down stage: `size` is the side of its fine input in px, that of the skip half of it."""
    half = stage.out_channels // 2
    return {
        f"{name}.downsample.conv": Layer("conv", fine, half, 3, 2, size),
        f"{name}.concat": _concat(half + skip, size // 2),
    } | _csp(f"{name}.csp", half + skip, stage, size // 2)


def _heads(config: YoloNASConfig, image_size: int, num_classes: int) -> dict[str, Layer]:
    features = (stage.out_channels for stage in config.neck[1:])
    layers = {}
    for level, (channels, width) in enumerate(zip(features, config.head_channels, strict=True)):
        name, size = f"heads.levels.{level}", image_size // STRIDES[level]
        layers[f"{name}.stem.conv"] = Layer("conv", channels, width, 1, 1, size)
        for part, outputs in (("class", num_classes), ("box", 4 * (config.reg_max + 1))):
            layers[f"{name}.{part}_conv.conv"] = Layer("conv", width, width, 3, 1, size)
            layers[f"{name}.{part}_pred"] = Layer("predict", width, outputs, 1, 1, size)
    return layers


def _concat(channels: int, size: int) -> Layer:
    return Layer("concat", channels, channels, 1, 1, size)
