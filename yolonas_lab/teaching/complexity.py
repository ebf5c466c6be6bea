"""What a network costs: parameters and multiply-accumulates per layer by forward hooks, and forward time per part.

Notebook 04 derives the counts, notebook 09 searches with them. Shapes are all that counting needs, so it runs on
PyTorch's meta device: no memory, no arithmetic, milliseconds.
"""

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from yolonas_lab.models import ConvBN, ConvBNAct, StageConfig, YoloNAS, YoloNASConfig

Conv = nn.Conv2d | nn.ConvTranspose2d


@dataclass(frozen=True)
class LayerCost:
    """One convolution: its name in the model, its parameters, and its multiply-accumulates for one image."""

    name: str
    parameters: int
    macs: int
    output_shape: tuple[int, ...]  # (b, c, h, w)


def conv_macs(layer: Conv, input_shape: Sequence[int], output_shape: Sequence[int]) -> int:
    """Multiply-accumulates of one call for one image: every weight is used once per output position, or once per input
    position in a transposed convolution. Biases are additions and not counted.
    """
    _, _, h, w = input_shape if isinstance(layer, nn.ConvTranspose2d) else output_shape
    return layer.weight.numel() * h * w


def count_layers(model: nn.Module, input_shape: Sequence[int]) -> list[LayerCost]:
    """Cost of every convolution of a model for an input (b, c, h, w), in the order in which they run.

    Works on a copy without data; the model is left untouched. Raises ValueError naming the convolutions that were not
    called as modules (a training block may compute one by hand: count its re-parameterized copy).
    """
    model = copy.deepcopy(model).to("meta").eval()
    costs: list[LayerCost] = []
    convs = {name: layer for name, layer in model.named_modules() if isinstance(layer, Conv)}

    def hook_for(name: str):
        def hook(layer: Conv, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            macs = conv_macs(layer, inputs[0].shape, output.shape)
            parameters = sum(p.numel() for p in layer.parameters())
            costs.append(LayerCost(name, parameters, macs, tuple(output.shape)))

        return hook

    for name, layer in convs.items():
        layer.register_forward_hook(hook_for(name))
    with torch.no_grad():
        model(torch.empty(*input_shape, device="meta"))
    uncalled = sorted(convs.keys() - {cost.name for cost in costs})
    if uncalled:
        some = ", ".join(uncalled[:3]) + (", …" if len(uncalled) > 3 else "")
        raise ValueError(
            f"{len(uncalled)} convolutions were never called as modules ({some}); count the re-parameterized model."
        )
    return costs


def network_cost(config: YoloNASConfig, image_size: int, num_classes: int = 80) -> list[LayerCost]:
    """Cost of every convolution of this size as deployed (re-parameterized), for one image of image_size² px.

    Builds it without data and with one plain Conv-BN in place of each block, which has the shape of the block fused.
    """

    def fused(stage: StageConfig) -> StageConfig:
        return replace(stage, block=ConvBNAct)

    plain = replace(
        config,
        stem_block=ConvBNAct,
        backbone=tuple(map(fused, config.backbone)),
        neck=tuple(map(fused, config.neck)),
    )
    with torch.device("meta"):
        model = YoloNAS(plain, num_classes)
    for module in model.modules():
        if isinstance(module, ConvBN):
            module.bn = nn.Identity()  # type: ignore[assignment]  # folding leaves nothing of it but a bias
    costs = count_layers(model, (1, 3, image_size, image_size))
    without_bias = {name for name, layer in model.named_modules() if isinstance(layer, Conv) and layer.bias is None}
    return [replace(c, parameters=c.parameters + c.output_shape[1] * (c.name in without_bias)) for c in costs]


PARTS = {"stem": "backbone.stem", "stages": "backbone.stages", "SPP": "backbone.spp", "neck": "neck", "heads": "heads"}


def by_part(costs: Sequence[LayerCost], parts: Mapping[str, str] = PARTS) -> dict[str, tuple[int, int]]:
    """Sums (parameters, macs) for each part, given as {label: prefix of the layers' names}.

    Raises ValueError for a layer that belongs to no part.
    """
    sums = {label: (0, 0) for label in parts}
    for cost in costs:
        label = next((label for label, prefix in parts.items() if cost.name.startswith(prefix + ".")), None)
        if label is None:
            raise ValueError(f"layer {cost.name} belongs to none of the parts {', '.join(parts.values())}.")
        parameters, macs = sums[label]
        sums[label] = (parameters + cost.parameters, macs + cost.macs)
    return sums


def time_parts(
    model: nn.Module, images: Tensor, rounds: int = 15, parts: Mapping[str, str] = PARTS
) -> dict[str, list[float]]:
    """Milliseconds of CPU time that each part's forward takes in each of `rounds` inferences, after two that warm up.

    Compare at one thread: CPU time adds up all threads. A part that is a ModuleList has no forward of its own: its
    children are timed and added up.
    """
    seconds: dict[str, float] = dict.fromkeys(parts, 0.0)
    began: dict[str, float] = {}
    handles = []
    for label, prefix in parts.items():
        part = model.get_submodule(prefix)
        for module in list(part) if isinstance(part, nn.ModuleList) else [part]:

            def start(*_, label: str = label) -> None:
                began[label] = time.process_time()

            def stop(*_, label: str = label) -> None:
                seconds[label] += time.process_time() - began[label]

            handles += [module.register_forward_pre_hook(start), module.register_forward_hook(stop)]
    times: dict[str, list[float]] = {label: [] for label in parts}
    try:
        with torch.inference_mode():
            for number in range(rounds + 2):
                seconds.update(dict.fromkeys(parts, 0.0))
                model(images)
                if number >= 2:
                    for label in parts:
                        times[label].append(seconds[label] * 1000)
    finally:
        for handle in handles:
            handle.remove()
    return times


def multiple_of_8(channels: float) -> int:
    """The multiple of 8 nearest to a number of channels, at least 8."""
    return max(8, 8 * int(channels / 8 + 0.5))


def scaled_config(config: YoloNASConfig, depth: float, width: float) -> YoloNASConfig:
    """This config with its bottlenecks per stage times `depth` (at least 1) and its channels times `width` (multiples
    of 8). Raises ValueError for a multiplier that is not positive.
    """
    if depth <= 0 or width <= 0:
        raise ValueError(f"depth={depth} and width={width} must be above 0.")

    def scaled(stage: StageConfig) -> StageConfig:
        return replace(
            stage,
            out_channels=multiple_of_8(stage.out_channels * width),
            blocks=max(1, int(stage.blocks * depth + 0.5)),
            hidden_channels=multiple_of_8(stage.hidden_channels * width),
        )

    return replace(
        config,
        name=f"{config.name} × depth {depth:g}, width {width:g}",
        stem_channels=multiple_of_8(config.stem_channels * width),
        backbone=tuple(map(scaled, config.backbone)),
        neck=tuple(map(scaled, config.neck)),
        head_channels=tuple(multiple_of_8(c * width) for c in config.head_channels),
    )
