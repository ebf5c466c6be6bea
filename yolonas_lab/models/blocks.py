"""The convolution blocks of YOLO-NAS: a plain Conv-BN-ReLU, RepVGG and QARepVGG.

Notebook 03 takes them apart. RepVGG: Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", arXiv 2101.03697,
section 3; QARepVGG: Chu et al., "Make RepVGG Greater Again: A Quantization-aware Approach", arXiv 2212.01593, section
4. Two faster forms stand beside the plain ones: `pointwise` for training, `InferenceConv2d` for inference.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BN_EPS = 1e-3  # PyTorch's default is 1e-5; a larger one bounds how much folding can amplify a nearly dead channel
BN_MOMENTUM = 0.03  # how far each batch moves the running statistics; PyTorch's default is 0.1


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """A BatchNorm2d with the epsilon and momentum that every BatchNorm of YOLO-NAS uses."""
    return nn.BatchNorm2d(channels, eps=BN_EPS, momentum=BN_MOMENTUM)


class ConvBN(nn.Module):
    """Convolution without bias, then BatchNorm: (b, c_in, h, w) -> (b, c_out, h / stride, w / stride)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1):
        super().__init__()
        # no bias: BatchNorm subtracts the mean, and with it any bias, and then adds a bias of its own
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)
        self.bn = batch_norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))  # (b, c_out, h / stride, w / stride)


class ConvBNAct(ConvBN):
    """Convolution, BatchNorm, ReLU: the plain block of the neck's down path and of all 1×1 layers."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1):
        super().__init__(in_channels, out_channels, kernel_size, stride)
        self.act = nn.ReLU(inplace=True)  # in place: what comes out of the BatchNorm is needed nowhere else

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))  # (b, c_out, h / stride, w / stride)


class RepVGGBlock(nn.Module):
    """Three parallel branches, each with its own BatchNorm, summed: BN(3×3) + BN(1×1) + BN(identity), then ReLU.

    The identity branch exists where input and output have the same shape (stride 1, equal channels).
    (b, c_in, h, w) -> (b, c_out, h / stride, w / stride).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        self.branch3x3 = ConvBN(in_channels, out_channels, 3, stride)
        self.branch1x1 = ConvBN(in_channels, out_channels, 1, stride)
        self.identity_bn = batch_norm(in_channels) if in_channels == out_channels and stride == 1 else None
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch3x3(x) + pointwise(self.branch1x1, x)  # (b, c_out, h / stride, w / stride)
        if self.identity_bn is not None:
            y = y + self.identity_bn(x)
        return self.act(y)  # one activation after the sum: any inside a branch would keep it from being folded


class QARepVGGBlock(nn.Module):
    """The quantization-aware RepVGG block: BN(BN(3×3) + 1×1 + identity), then ReLU.

    Only the 3×3 branch keeps its own BatchNorm; the 1×1 branch has a bias instead, the identity is the bare input,
    and one BatchNorm after the sum keeps the output's spread, and with it the fused kernel's, in check.
    (b, c_in, h, w) -> (b, c_out, h / stride, w / stride).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        self.branch3x3 = ConvBN(in_channels, out_channels, 3, stride)
        self.branch1x1 = nn.Conv2d(in_channels, out_channels, 1, stride)  # its own BatchNorm would widen the kernel
        self.has_identity = in_channels == out_channels and stride == 1
        self.bn = batch_norm(out_channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch3x3(x) + pointwise(self.branch1x1, x)  # (b, c_out, h / stride, w / stride)
        if self.has_identity:
            y = y + x
        return self.act(self.bn(y))


Block = type[ConvBNAct] | type[RepVGGBlock] | type[QARepVGGBlock]


def pointwise(layer: nn.Module, x: Tensor) -> Tensor:
    """`layer(x)` for a 1×1 convolution (or Conv-BN), made faster where it is strided.

    A strided 1×1 convolution reads only every stride-th pixel; slicing them out and convolving with stride 1 gives
    the same numbers and is several times faster on CPU, forward and backward.
    """
    conv = layer.conv if isinstance(layer, ConvBN) else layer
    assert isinstance(conv, nn.Conv2d)
    stride = conv.stride[0]
    if stride == 1:
        return layer(x)
    x = x[:, :, ::stride, ::stride]  # (b, c_in, h / stride, w / stride)
    y = F.conv2d(x, conv.weight, conv.bias)  # (b, c_out, h / stride, w / stride)
    return layer.bn(y) if isinstance(layer, ConvBN) else y


class ConvAct(nn.Module):
    """One convolution with bias, then ReLU: what every block becomes after re-parameterization."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.conv = conv
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x))  # (b, c_out, h / stride, w / stride)


# Below this many input values a oneDNN call costs more than the convolution (measured, lab models to S).
ONEDNN_WORTHWHILE = 50_000


class InferenceConv2d(nn.Conv2d):
    """An nn.Conv2d (one group, no dilation, zero padding) with a faster CPU path in float32 inference.

    At one thread PyTorch routes many convolutions past oneDNN to an im2col that copies the input. Under
    `torch.inference_mode()` or `no_grad()` this layer calls oneDNN itself for large maps, and for small ones writes a
    1×1 convolution as the matrix product that it is (notebook 03 measures it). Both want channels_last.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not takes_fast_path(x):
            return super().forward(x)
        if x.numel() >= ONEDNN_WORTHWHILE:
            return torch.mkldnn_convolution(x, self.weight, self.bias, self.padding, self.stride, (1, 1), 1)  # type: ignore[arg-type]
        if self.kernel_size == (1, 1) and self.stride == (1, 1):
            y = F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias)  # (b, h, w, c_out)
            return y.permute(0, 3, 1, 2)  # (b, c_out, h, w), channels_last in memory
        return super().forward(x)


def takes_fast_path(x: Tensor) -> bool:
    """True for float32 CPU inference outside autocast, tracing, export and compilation, which see plain layers."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
    )
