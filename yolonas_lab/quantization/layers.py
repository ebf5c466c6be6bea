"""The layers of a quantized model: those of the float model, each with a quantizer on its weight and on its output.

Notebook 10 looks into one, 11 trains them, 12 exports them. NVIDIA, "Explicit Quantization" in TensorRT's
documentation: nothing comes between convolution, BatchNorm and ReLU, so a quantizer follows the ReLU; the skip of a
residual sum is quantized too.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolonas_lab.common import unknown_name
from yolonas_lab.models.blocks import ConvAct, ConvBNAct, QARepVGGBlock, RepVGGBlock
from yolonas_lab.models.yolo_nas import Bottleneck
from yolonas_lab.quantization.calibrators import Extremes, weight_range
from yolonas_lab.quantization.fake_quant import fake_quantize, integer_range, scale_and_zero_point, to_integers


class Quantizer(nn.Module):
    """Fake-quantizes a tensor on a grid that calibration sets (`set_range`); keeps its shape. In an ONNX export it
    becomes a pair of QuantizeLinear and DequantizeLinear.

    axis None: one scale for the tensor, else one for each of the `channels` indices of that axis. narrow: without the
    smallest integer, so that the grid looks the same from both sides. readers: the layers for whose sake the tensor is
    quantized, as long as one of them is. mode: "off" passes the tensor through, "observe" too but shows it to
    `statistics`, "quantize" rounds it.
    """

    scale: Tensor  # 0 until there is a grid
    zero_point: Tensor  # int8, or uint8 if affine
    stored: Tensor | None  # a constant tensor as its integers, for an export

    def __init__(
        self,
        bits: int = 8,
        symmetric: bool = True,
        axis: int | None = None,
        channels: int = 1,
        narrow: bool = False,
        name: str = "tensor",
        readers: tuple[str, ...] = (),
    ):
        super().__init__()
        self.low, self.high = integer_range(bits, symmetric)
        if narrow and symmetric:
            self.low += 1
        self.bits, self.symmetric, self.axis, self.name, self.readers = bits, symmetric, axis, name, readers
        self.wanted = True
        self.mode = "off"
        self.statistics: Extremes | None = None
        shape = () if axis is None else (channels,)
        self.register_buffer("scale", torch.zeros(shape))
        self.register_buffer("zero_point", torch.zeros(shape, dtype=torch.int8 if symmetric else torch.uint8))
        self.register_buffer("stored", None, persistent=False)
        self.register_load_state_dict_post_hook(_use_what_was_loaded)

    @property
    def calibrated(self) -> bool:
        """True once it has a grid."""
        return bool((self.scale > 0).all())

    def set_range(self, low: Tensor, high: Tensor) -> None:
        """Take the grid for values from low to high, both of the shape of `scale`, and use it if wanted."""
        scale, zero_point = scale_and_zero_point(low, high, self.bits, self.symmetric)
        with torch.no_grad():
            self.scale.copy_(scale)
            self.zero_point.copy_(zero_point)
        self.switch(self.wanted)

    def switch(self, wanted: bool) -> None:
        """Quantize from now on, or once there is a grid; or let everything pass."""
        self.wanted = wanted
        self.mode = "quantize" if wanted and self.calibrated else "off"

    def integers(self, x: Tensor) -> Tensor:
        """The integers that stand for x, in the type of zero_point."""
        return to_integers(x, self.scale, self.zero_point, self.low, self.high, self.axis)

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "quantize":
            if torch.compiler.is_exporting():
                return self._quantize_dequantize(x)
            zero_point = None if self.symmetric else self.zero_point
            return fake_quantize(x, self.scale, zero_point, self.low, self.high, self.axis)
        if self.mode == "observe":
            assert self.statistics is not None
            self.statistics.observe(x.detach(), self.name)
        return x

    def _quantize_dequantize(self, x: Tensor) -> Tensor:
        """The pair of ONNX operators that computes the same; DequantizeLinear alone where the integers are stored."""
        attributes: dict[str, Any] = {} if self.axis is None else {"axis": self.axis}

        def operator(name: str, x: Tensor, dtype: torch.dtype) -> Tensor:
            return torch.onnx.ops.symbolic(
                name, (x, self.scale, self.zero_point), attributes, dtype=dtype, shape=x.shape
            )

        integers = operator("QuantizeLinear", x, self.zero_point.dtype) if self.stored is None else self.stored
        return operator("DequantizeLinear", integers, self.scale.dtype)

    def extra_repr(self) -> str:
        grid = "symmetric" if self.symmetric else "affine"
        return f"{self.name}, {self.bits} bits, {grid}, axis={self.axis}, {self.mode}"


def _use_what_was_loaded(quantizer: Any, incompatible_keys: Any) -> None:
    """A grid that comes out of a file is used like one that was just calibrated."""
    quantizer.switch(quantizer.wanted)


class SharedQuantizer(nn.Module):
    """The quantizer of another layer, with the same grid: applied here too, but saved, moved and trained only there."""

    def __init__(self, quantizer: Quantizer):
        super().__init__()
        self.owned_elsewhere = (quantizer,)  # a tuple hides it from PyTorch, which would register it twice

    def forward(self, x: Tensor) -> Tensor:
        return self.owned_elsewhere[0](x)


class QuantConv2d(nn.Conv2d):
    """A convolution (one group, zero padding) that quantizes the weight that it takes over from `conv`."""

    def __init__(self, conv: nn.Conv2d, weight_quantizer: Quantizer):
        kernel, stride, padding = conv.kernel_size, conv.stride, conv.padding
        super().__init__(conv.in_channels, conv.out_channels, kernel, stride, padding, device="meta")  # type: ignore[arg-type]
        self.weight, self.bias = conv.weight, conv.bias
        self.weight_quantizer = weight_quantizer

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight_quantizer(self.weight), self.bias)


class QuantConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution that quantizes the weight (c_in, c_out, kh, kw) that it takes over, and its output."""

    def __init__(self, conv: nn.ConvTranspose2d, weight_quantizer: Quantizer, output: nn.Module):
        super().__init__(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, device="meta")  # type: ignore[arg-type]
        self.weight, self.bias = conv.weight, conv.bias
        self.weight_quantizer = weight_quantizer
        self.output = output

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        weight = self.weight_quantizer(self.weight)
        return self.output(F.conv_transpose2d(x, weight, self.bias, self.stride))  # type: ignore[arg-type]


class QuantConvAct(nn.Module):
    """Convolution, BatchNorm where the float `layer` still has one, ReLU, quantizer; the first layer of a model also
    quantizes what it reads. (b, c_in, h, w) -> (b, c_out, h / stride, w / stride).
    """

    def __init__(
        self, layer: ConvAct | ConvBNAct, weight_quantizer: Quantizer, output: nn.Module, image: nn.Module | None = None
    ):
        super().__init__()
        self.image = image
        self.conv = QuantConv2d(layer.conv, weight_quantizer)
        self.bn = layer.bn if isinstance(layer, ConvBNAct) else None
        self.act = nn.ReLU(inplace=True)
        self.output = output

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x if self.image is None else self.image(x))
        return self.output(self.act(y if self.bn is None else self.bn(y)))


class QuantBottleneck(nn.Module):
    """alpha · x + block2(block1(x)) with both terms and the sum quantized; takes over `bottleneck`'s parts."""

    def __init__(self, bottleneck: Bottleneck, skip: Quantizer, output: nn.Module):
        super().__init__()
        self.block1, self.block2, self.alpha = bottleneck.block1, bottleneck.block2, bottleneck.alpha
        self.skip = skip
        self.output = output

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.skip(self.alpha * x) + self.block2(self.block1(x)))


def weight_quantizer(
    conv: nn.Conv2d | nn.ConvTranspose2d, layer: str, bits: int, per_channel: bool, method: str
) -> Quantizer:
    """A calibrated quantizer for the weight of a layer; the output channels of a transposed convolution are on axis 1.

    Raises ValueError naming the layer for a weight that holds NaN.
    """
    if not torch.isfinite(conv.weight).all():
        raise ValueError(f"The weight of layer {layer} holds NaN or infinite values; use an earlier checkpoint.")
    axis = (1 if isinstance(conv, nn.ConvTranspose2d) else 0) if per_channel else None
    name = f"{layer}.weight"
    quantizer = Quantizer(bits, axis=axis, channels=conv.out_channels, narrow=True, name=name, readers=(layer,))
    quantizer.to(conv.weight.device)
    largest = weight_range(conv.weight, bits, method, axis)
    quantizer.set_range(-largest, largest)
    return quantizer


def layer_name(name: str, module: nn.Module) -> str | None:
    """What the convolution is called that can be quantized in this module, in a model before and after fusing and
    quantizing; None where there is none.
    """
    if isinstance(module, (ConvAct, ConvBNAct, RepVGGBlock, QARepVGGBlock, QuantConvAct)):
        return f"{name}.conv"
    return name if isinstance(module, nn.ConvTranspose2d) else None


def quantizable_layers(model: nn.Module) -> list[str]:
    """The convolutions that can be quantized, from the image to the heads, by their names in the fused model and in the
    quantized one; the prediction convolutions are not among them, they and all that follows stay in float.
    """
    return [layer for name, module in model.named_modules() if (layer := layer_name(name, module))]


def quantizers(model: nn.Module) -> list[Quantizer]:
    """Every quantizer of a model, each once."""
    return [module for module in model.modules() if isinstance(module, Quantizer)]


def is_quantized(model: nn.Module) -> bool:
    """True for what `quantize` returns, calibrated or not."""
    return bool(quantizers(model))


def weight_quantizers(model: nn.Module) -> dict[str, Quantizer]:
    """The weight quantizer of each layer of a quantized model."""
    layers = ((n, m) for n, m in model.named_modules() if isinstance(m, (QuantConv2d, QuantConvTranspose2d)))
    return {name: layer.weight_quantizer for name, layer in layers}


def activation_quantizers(model: nn.Module) -> list[Quantizer]:
    """The other quantizers, those that calibration gives their grid, each once."""
    weights = set(weight_quantizers(model).values())
    return [quantizer for quantizer in quantizers(model) if quantizer not in weights]


def set_float(model: nn.Module, names: Iterable[str]) -> None:
    """Let exactly these layers of a quantized model compute in float, in place; with none, all are quantized again.

    A float layer has a float weight, and a tensor that only float layers read is not quantized either. Raises
    ValueError for a model that is not quantized and for an unknown name.
    """
    check_quantized(model)
    names = check_layers(model, names)
    for quantizer in quantizers(model):
        quantizer.switch(any(reader not in names for reader in quantizer.readers))


def float_layers(model: nn.Module) -> list[str]:
    """The layers of a quantized model that compute in float at the moment. Raises ValueError as `set_float` does."""
    check_quantized(model)
    return [name for name, quantizer in weight_quantizers(model).items() if not quantizer.wanted]


@contextmanager
def quantized_only(model: nn.Module, names: Iterable[str]) -> Iterator[None]:
    """Inside, these layers of a quantized model alone are quantized, afterwards those that were before. Raises
    ValueError as `set_float` does.
    """
    before = float_layers(model)
    names = check_layers(model, names)
    set_float(model, [name for name in quantizable_layers(model) if name not in names])
    try:
        yield
    finally:
        set_float(model, before)


def check_layers(model: nn.Module, names: Iterable[str]) -> set[str]:
    """The names as a set; ValueError naming the nearest layer unless all are among the quantizable layers."""
    names, known = set(names), quantizable_layers(model)
    for name in names.difference(known):
        raise ValueError(unknown_name("layer", name, known))
    return names


def check_quantized(model: nn.Module) -> None:
    """Raise ValueError unless the model is quantized."""
    if not is_quantized(model):
        raise ValueError("The model is not quantized: give what quantize(model) returns.")


def check_calibrated(qmodel: nn.Module) -> None:
    """Raise ValueError unless the model is quantized and all its quantizers have a range."""
    check_quantized(qmodel)
    waiting = [quantizer.name for quantizer in quantizers(qmodel) if not quantizer.calibrated]
    if waiting:
        raise ValueError(f"{len(waiting)} quantizers have no range, such as '{waiting[0]}': calibrate the model.")


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Afterwards every module is in the mode that it had, and no quantizer observes."""
    training = {module: module.training for module in model.modules()}
    modes = {quantizer: quantizer.mode for quantizer in quantizers(model)}
    try:
        yield
    finally:
        for module, was_training in training.items():
            module.training = was_training
        for quantizer, mode in modes.items():
            quantizer.mode, quantizer.statistics = mode, None
