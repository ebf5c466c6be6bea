"""The layers of a quantized model: those of the float model, each with a quantizer on its weight and on its output.

Notebook 10 looks into one. NVIDIA, "Explicit Quantization" in TensorRT's documentation: nothing comes between
convolution, BatchNorm and ReLU, so a quantizer follows the ReLU; the skip of a residual sum is quantized too.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolonas_lab.models.yolo_nas import Bottleneck
from yolonas_lab.quantization.calibrators import Extremes
from yolonas_lab.quantization.fake_quant import fake_quantize, integer_range, scale_and_zero_point, to_integers

# The quantizer: a module that rounds what passes through it to a grid, and in an ONNX export becomes a Q/DQ pair.
#
# Notebooks 10, 11 and 12. QuantizeLinear and DequantizeLinear are specified with the operators of ONNX.


class Quantizer(nn.Module):
    """Fake-quantizes a tensor on a grid that calibration sets (`set_range`); keeps its shape.

    axis None: one scale for the tensor, else one for each of the `channels` indices of that axis. `readers` names the
    layers for whose sake the tensor is quantized: it is as long as one of them is. mode: "off" passes the tensor
    through, "observe" too but shows it to `statistics`, "quantize" rounds it. `narrow` leaves out the smallest
    integer, so that the grid looks the same from both sides.
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
        self.register_load_state_dict_post_hook(_switch_on_what_was_loaded)

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
            self._observe(x)
        return x

    def _observe(self, x: Tensor) -> None:
        assert self.statistics is not None
        try:
            self.statistics.observe(x.detach())
        except ValueError as error:
            raise ValueError(
                f"The activations of {self.name} hold {error}; look for them in the images and the weights."
            ) from error

    def _quantize_dequantize(self, x: Tensor) -> Tensor:
        """The pair of ONNX operators that computes the same; DequantizeLinear alone where the integers are stored."""
        attributes: dict[str, Any] = {} if self.axis is None else {"axis": self.axis}
        grid = (self.scale, self.zero_point)
        integers = self.stored
        if integers is None:
            if self.bits != 8:
                raise ValueError(
                    f"{self.name} has {self.bits} bits, but QuantizeLinear rounds to 8: quantize what is to be "
                    f"exported with activation_bits=8 (weights may have fewer; use for_export)."
                )
            integers = torch.onnx.ops.symbolic(
                "QuantizeLinear", (x, *grid), attributes, dtype=self.zero_point.dtype, shape=x.shape
            )
        return torch.onnx.ops.symbolic(
            "DequantizeLinear", (integers, *grid), attributes, dtype=self.scale.dtype, shape=x.shape
        )

    def extra_repr(self) -> str:
        grid = "symmetric" if self.symmetric else "affine"
        return f"{self.name}, {self.bits} bits, {grid}, axis={self.axis}, {self.mode}"


def _switch_on_what_was_loaded(quantizer: nn.Module, incompatible_keys: Any) -> None:
    """A grid that comes out of a file is used like one that was just calibrated."""
    assert isinstance(quantizer, Quantizer)
    quantizer.switch(quantizer.wanted)


class Borrowed(nn.Module):
    """A quantizer that belongs to another layer: applied here too, but saved, moved and trained only there."""

    def __init__(self, quantizer: Quantizer):
        super().__init__()
        self._lender = (quantizer,)  # a tuple hides it from PyTorch, which would register it twice

    @property
    def quantizer(self) -> Quantizer:
        """The shared quantizer."""
        return self._lender[0]

    def forward(self, x: Tensor) -> Tensor:
        return self.quantizer(x)


class QuantConv2d(nn.Conv2d):
    """A convolution (one group, zero padding) that quantizes its weight whenever it is used; takes over `conv`'s
    parameters.
    """

    def __init__(self, conv: nn.Conv2d, weight_quantizer: Quantizer):
        kernel, stride, padding = conv.kernel_size, conv.stride, conv.padding
        super().__init__(conv.in_channels, conv.out_channels, kernel, stride, padding, device="meta")  # type: ignore[arg-type]
        self.weight, self.bias = conv.weight, conv.bias
        self.weight_quantizer = weight_quantizer

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight_quantizer(self.weight), self.bias)


class QuantConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution that quantizes its weight (c_in, c_out, kh, kw) and its output; takes over `conv`'s
    parameters.
    """

    def __init__(self, conv: nn.ConvTranspose2d, weight_quantizer: Quantizer, output: nn.Module):
        super().__init__(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, device="meta")  # type: ignore[arg-type]
        self.weight, self.bias = conv.weight, conv.bias
        self.weight_quantizer = weight_quantizer
        self.output = output

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        weight = self.weight_quantizer(self.weight)
        return self.output(F.conv_transpose2d(x, weight, self.bias, self.stride))  # type: ignore[arg-type]


class QuantConvAct(nn.Module):
    """Convolution, BatchNorm where the float model still has one, ReLU, quantizer; the first layer of a model also
    quantizes what it reads. (b, c_in, h, w) -> (b, c_out, h / stride, w / stride).
    """

    def __init__(self, conv: QuantConv2d, bn: nn.BatchNorm2d | None, output: nn.Module, image: nn.Module | None = None):
        super().__init__()
        self.image = image
        self.conv = conv
        self.bn = bn
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
