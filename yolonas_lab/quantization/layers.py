"""The layers of a quantized model: those of the float model, each with a quantizer on its weight and on its output.

Notebook 10 looks into one. NVIDIA, "Explicit Quantization" in TensorRT's documentation: nothing comes between
convolution, BatchNorm and ReLU, so a quantizer follows the ReLU; the skip of a residual sum is quantized too.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from yolonas_lab.models.stages import Bottleneck
from yolonas_lab.quantization.quantizer import Quantizer


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
