"""Folding BatchNorm into a quantized convolution without touching its integers; notebook 11 does it after training.

BatchNorm scales each output channel. A weight grid with one scale per channel takes that factor into the scale, so
that the integers stay, up to the sign of the factor. What goes wrong otherwise: Krishnamoorthi, arXiv 1806.08342,
section 3.2.2.
"""

import copy

import torch
from torch import nn

from yolonas_lab.models.reparameterize import Kernel, fold_bn, kernel_of
from yolonas_lab.models.yolo_nas import YoloNAS
from yolonas_lab.quantization.fake_quant import along
from yolonas_lab.quantization.layers import QuantConv2d, QuantConvAct, QuantConvTranspose2d
from yolonas_lab.quantization.quantizer import Quantizer
from yolonas_lab.quantization.switch import check_quantized


@torch.no_grad()
def fold_batch_norm(model: YoloNAS) -> YoloNAS:
    """An eval-mode copy of a quantized model without BatchNorm and with the same outputs; weights quantized per tensor
    have one scale per channel afterwards.

    Raises ValueError for a model that is not quantized.
    """
    check_quantized(model)
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if isinstance(module, QuantConvAct) and module.bn is not None:
            _fold(module.conv, module.bn)
            module.bn = None
    return model


def for_export(model: YoloNAS) -> YoloNAS:
    """An eval-mode copy to export to ONNX: BatchNorm folded, each quantized weight held as its integers too, so that
    the file holds int8 weights that nothing but DequantizeLinear reads.

    Raises ValueError for a model that is not quantized.
    """
    model = fold_batch_norm(model)
    for module in model.modules():
        if isinstance(module, (QuantConv2d, QuantConvTranspose2d)) and module.weight_quantizer.mode == "quantize":
            module.weight_quantizer.stored = module.weight_quantizer.integers(module.weight)
    return model


def _fold(conv: QuantConv2d, bn: nn.BatchNorm2d) -> None:
    assert bn.running_var is not None
    before = conv.weight_quantizer
    gain = bn.weight / torch.sqrt(bn.running_var + bn.eps)  # (c_out,)
    after = Quantizer(
        before.bits, axis=0, channels=conv.out_channels, narrow=True, name=before.name, readers=before.readers
    ).to(gain.device, gain.dtype)
    scale = before.scale * gain.abs()  # (c_out,)
    after.scale.copy_(torch.where(scale > 0, scale, 1.0))
    after.switch(before.wanted)
    kernel = fold_bn(kernel_of(conv), bn)
    integers = before.integers(conv.weight) * along(0, conv.weight, gain.sign().to(torch.int8))
    conv.weight = nn.Parameter(_on_the_same_integers(kernel, integers, after))
    conv.bias = nn.Parameter(kernel.bias)
    conv.weight_quantizer = after


def _on_the_same_integers(kernel: Kernel, integers: torch.Tensor, quantizer: Quantizer) -> torch.Tensor:
    """The folded weight; the few values that rounding took across the middle between two integers are moved back."""
    grid = integers * along(0, kernel.weight, quantizer.scale)
    same = quantizer.integers(kernel.weight) == integers
    return torch.where(same, kernel.weight, torch.lerp(kernel.weight, grid, 1e-3))  # 1/2000 of a step
