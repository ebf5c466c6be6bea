"""Which layers of a quantized model compute on the grid and which in float: a switch, without any copying.

Notebook 10 finds the layers to leave in float with it.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn

from yolonas_lab.models.blocks import ConvAct, ConvBNAct, QARepVGGBlock, RepVGGBlock
from yolonas_lab.quantization.layers import QuantConv2d, QuantConvAct, QuantConvTranspose2d
from yolonas_lab.quantization.quantizer import Quantizer
from yolonas_lab.suggest import unknown_name

_WITH_CONV = (ConvAct, ConvBNAct, RepVGGBlock, QARepVGGBlock, QuantConvAct)


def quantizable_layers(model: nn.Module) -> list[str]:
    """The convolutions that can be quantized, from the image to the heads, by the names that they have in the fused
    model and in the quantized one.

    The prediction convolutions are not among them: they and all that follows stay in float.
    """
    layers = []
    for name, module in model.named_modules():
        if isinstance(module, _WITH_CONV):
            layers.append(f"{name}.conv")
        elif isinstance(module, nn.ConvTranspose2d):
            layers.append(name)
    return layers


def is_quantized(model: nn.Module) -> bool:
    """True for what `quantize` returns, calibrated or not."""
    return any(isinstance(module, Quantizer) for module in model.modules())


def weight_quantizers(model: nn.Module) -> dict[str, Quantizer]:
    """The weight quantizer of each layer of a quantized model."""
    return {
        n: m.weight_quantizer for n, m in model.named_modules() if isinstance(m, (QuantConv2d, QuantConvTranspose2d))
    }


def activation_quantizers(model: nn.Module) -> list[Quantizer]:
    """The other quantizers, those that calibration gives their grid, each once."""
    weights = set(weight_quantizers(model).values())
    return [module for module in model.modules() if isinstance(module, Quantizer) and module not in weights]


def set_float(model: nn.Module, names: Iterable[str]) -> None:
    """Let exactly these layers of a quantized model compute in float, in place; with none, all are quantized again.

    A float layer has a float weight, and a tensor that only float layers read is not quantized either. Raises
    ValueError for a model that is not quantized and for an unknown name.
    """
    check_quantized(model)
    names = set(names)
    check_layers(model, names)
    for module in model.modules():
        if isinstance(module, Quantizer):
            module.switch(any(reader not in names for reader in module.readers))


def float_layers(model: nn.Module) -> list[str]:
    """The layers of a quantized model that compute in float at the moment."""
    check_quantized(model)
    return [name for name, quantizer in weight_quantizers(model).items() if not quantizer.wanted]


@contextmanager
def quantized_only(model: nn.Module, names: Iterable[str]) -> Iterator[None]:
    """Inside, these layers of a quantized model alone are quantized; afterwards those that were before.

    Raises ValueError as `set_float` does.
    """
    before = float_layers(model)
    names = set(names)
    check_layers(model, names)
    set_float(model, [name for name in quantizable_layers(model) if name not in names])
    try:
        yield
    finally:
        set_float(model, before)


def check_layers(model: nn.Module, names: Iterable[str]) -> None:
    """Raise ValueError naming the nearest layer unless all names are among the quantizable layers."""
    known = quantizable_layers(model)
    for name in names:
        if name not in known:
            raise ValueError(unknown_name("layer", name, known))


def check_quantized(model: nn.Module) -> None:
    """Raise ValueError unless the model is quantized."""
    if not is_quantized(model):
        raise ValueError("The model is not quantized: give what quantize(model) returns.")


def check_float(model: nn.Module) -> None:
    """Raise ValueError if the model is quantized."""
    if is_quantized(model):
        raise ValueError("The model is quantized already: give the float model, or dequantize(model) first.")
