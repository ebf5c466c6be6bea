"""Re-parameterization: train with branches and BatchNorm, deploy one convolution per block, with the same outputs.

Notebook 03 derives it. Ding et al., "RepVGG", arXiv 2101.03697, section 3.3; for the QARepVGG block Chu et al., arXiv
2212.01593. It rests on three facts: BatchNorm in eval mode scales and shifts each output channel; a 1×1 kernel is
a 3×3 one with zeros around it, the identity one with a single 1; and convolutions of one input add up to one.
"""

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolonas_lab.models.blocks import ConvAct, ConvBN, ConvBNAct, InferenceConv2d, QARepVGGBlock, RepVGGBlock


class Kernel(NamedTuple):
    """One convolution as its numbers: weight (c_out, c_in, kh, kw) and bias (c_out,)."""

    weight: Tensor
    bias: Tensor


def fold_bn(kernel: Kernel, bn: nn.BatchNorm2d) -> Kernel:
    """The single convolution equal to this convolution followed by this BatchNorm in eval mode."""
    assert bn.running_mean is not None and bn.running_var is not None
    gain = bn.weight / torch.sqrt(bn.running_var + bn.eps)  # (c_out,): each output channel has its own
    return Kernel(kernel.weight * gain[:, None, None, None], (kernel.bias - bn.running_mean) * gain + bn.bias)


def identity_kernel(channels: int, size: int = 3, like: Tensor | None = None) -> Tensor:
    """The (c, c, size, size) kernel that copies its input: 1 in the center of each channel's own plane, 0 elsewhere."""
    kernel = torch.zeros(channels, channels, size, size, dtype=None if like is None else like.dtype)
    index = torch.arange(channels)
    kernel[index, index, size // 2, size // 2] = 1
    return kernel if like is None else kernel.to(like.device)


def pad_1x1(weight: Tensor) -> Tensor:
    """A 1×1 kernel (c_out, c_in, 1, 1) as the 3×3 kernel with zeros around it."""
    return F.pad(weight, (1, 1, 1, 1))  # (c_out, c_in, 3, 3)


def kernel_of(layer: nn.Conv2d | ConvBN) -> Kernel:
    """The kernel and bias of a convolution, or of a Conv-BN pair folded."""
    conv = layer.conv if isinstance(layer, ConvBN) else layer
    bias = conv.bias if conv.bias is not None else conv.weight.new_zeros(conv.out_channels)
    kernel = Kernel(conv.weight, bias)
    return fold_bn(kernel, layer.bn) if isinstance(layer, ConvBN) else kernel


def fuse_repvgg(block: RepVGGBlock) -> Kernel:
    """BN(3×3) + BN(1×1) + BN(identity) as one 3×3 convolution."""
    main, point = kernel_of(block.branch3x3), kernel_of(block.branch1x1)
    weight, bias = main.weight + pad_1x1(point.weight), main.bias + point.bias
    if block.identity_bn is not None:  # BatchNorm alone is BatchNorm after the convolution that copies its input
        identity = identity_kernel(weight.shape[0], like=weight)
        skip = fold_bn(Kernel(identity, torch.zeros_like(bias)), block.identity_bn)
        weight, bias = weight + skip.weight, bias + skip.bias
    return Kernel(weight, bias)


def fuse_qarepvgg(block: QARepVGGBlock) -> Kernel:
    """BN(BN(3×3) + 1×1 + identity) as one 3×3 convolution: sum the branches, then fold the outer BatchNorm."""
    main, point = kernel_of(block.branch3x3), kernel_of(block.branch1x1)
    weight, bias = main.weight + pad_1x1(point.weight), main.bias + point.bias
    if block.has_identity:
        weight = weight + identity_kernel(weight.shape[0], like=weight)
    return fold_bn(Kernel(weight, bias), block.bn)


def conv_from(kernel: Kernel, like: nn.Conv2d) -> nn.Conv2d:
    """A convolution with this kernel and bias, the stride of `like`, and same padding."""
    weight, bias = kernel
    out_channels, in_channels, kh, kw = weight.shape
    stride, padding = (like.stride[0], like.stride[1]), (kh // 2, kw // 2)
    # on "meta" no memory is taken and no random number drawn for weights that are replaced at once
    conv = InferenceConv2d(in_channels, out_channels, (kh, kw), stride, padding, device="meta", dtype=weight.dtype)
    conv.weight, conv.bias = nn.Parameter(weight.detach().clone()), nn.Parameter(bias.detach().clone())
    return conv


def fuse_block(module: nn.Module) -> nn.Module:
    """A RepVGG or QARepVGG block as one convolution and ReLU; any other module is returned as it is."""
    if isinstance(module, RepVGGBlock):
        return ConvAct(conv_from(fuse_repvgg(module), module.branch3x3.conv))
    if isinstance(module, QARepVGGBlock):
        return ConvAct(conv_from(fuse_qarepvgg(module), module.branch3x3.conv))
    return module


def fuse_conv_bn(module: nn.Module) -> nn.Module:
    """A plain Conv-BN-ReLU as one convolution and ReLU; any other module is returned as it is."""
    return ConvAct(conv_from(kernel_of(module), module.conv)) if isinstance(module, ConvBNAct) else module


def fuse_blocks(model: nn.Module) -> nn.Module:
    """An eval-mode copy in which each RepVGG or QARepVGG block is one convolution; plain Conv-BN pairs stay.

    This is as far as the original implementation goes; `reparameterize` goes on to fold the other pairs too.
    """
    return _replaced(copy.deepcopy(model), fuse_block).eval()


def reparameterize(model: nn.Module) -> nn.Module:
    """An eval-mode copy in which every block and every Conv-BN pair is one convolution: same outputs, faster.

    Outputs agree to rounding (1e-3 px and 1e-5 in scores in float32). The copy is laid out channels_last and meant
    for inference; the model given is left untouched, train it and re-parameterize again. Raises ValueError naming a
    BatchNorm in a block that is none of blocks.py.

    >>> from yolonas_lab.models import QARepVGGBlock
    >>> [name for name, _ in reparameterize(QARepVGGBlock(4, 4)).named_children()]
    ['conv', 'act']
    """
    model = _replaced(copy.deepcopy(model), lambda module: fuse_conv_bn(fuse_block(module))).eval()
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            raise ValueError(f"{name} is a BatchNorm in a block that cannot be fused: use those of models/blocks.py.")
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@torch.no_grad()
def _replaced(module: nn.Module, fuse) -> nn.Module:
    """The module itself, with every submodule (and itself) swapped for `fuse` of it, from the top down."""
    replacement = fuse(module)
    if replacement is module:
        for name, child in module.named_children():
            setattr(module, name, _replaced(child, fuse))
    return replacement
