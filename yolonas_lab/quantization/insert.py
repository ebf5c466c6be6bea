"""Putting quantizers into a network, one per tensor, where the tensor is written; and making the network deployable.

Notebook 10 goes through the rules, those of NVIDIA's "Explicit Quantization" (TensorRT's documentation): weights per
output channel, activations per tensor, after the ReLU; the skip of a residual sum too; one scale per concatenation;
prediction convolutions, everything after them, and every bias in float. Folding BatchNorm: notebook 11.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from yolonas_lab.common import unknown_name
from yolonas_lab.models.blocks import ConvAct, ConvBNAct, QARepVGGBlock, RepVGGBlock
from yolonas_lab.models.reparameterize import fold_bn, kernel_of, reparameterize
from yolonas_lab.models.yolo_nas import STRIDES, Bottleneck, YoloNAS
from yolonas_lab.quantization.calibrators import WEIGHT_METHODS
from yolonas_lab.quantization.fake_quant import along, check_bits
from yolonas_lab.quantization.layers import (
    QuantBottleneck,
    QuantConv2d,
    QuantConvAct,
    QuantConvTranspose2d,
    Quantizer,
    SharedQuantizer,
    check_layers,
    check_quantized,
    is_quantized,
    layer_name,
    modes_kept,
    set_float,
    weight_quantizer,
    weight_quantizers,
)

IMAGE = "image"


@dataclass(frozen=True)
class QuantPolicy:
    """How weights and activations are quantized; the defaults are what TensorRT's INT8 convolutions take.

    weight_bits, activation_bits: 2 … 8. per_channel: one weight scale per output channel, not one per layer.
    activation_symmetric: integers around 0 with zero-point 0, else 0 … 2^bits-1 with a zero-point. weight_calibrator:
    "max", "percentile" or "mse", how a weight's range is chosen. float_layers: layers left in float, by the
    names of `quantizable_layers`. quantize_prediction_inputs: also quantize what the prediction convolutions read
    (they themselves always stay in float); onnxruntime computes a layer in integers only if its output is quantized.
    """

    weight_bits: int = 8
    activation_bits: int = 8
    per_channel: bool = True
    activation_symmetric: bool = True
    weight_calibrator: str = "max"
    float_layers: tuple[str, ...] = ()
    quantize_prediction_inputs: bool = False

    def __post_init__(self) -> None:
        check_bits(self.weight_bits, "weight_bits")
        check_bits(self.activation_bits, "activation_bits")
        if self.weight_calibrator not in WEIGHT_METHODS:
            raise ValueError(unknown_name("weight_calibrator", self.weight_calibrator, WEIGHT_METHODS))
        if isinstance(self.float_layers, str):
            raise ValueError(f"float_layers is the text {self.float_layers!r}: give a tuple of layer names.")
        object.__setattr__(self, "float_layers", tuple(self.float_layers))

    @classmethod
    def tensorrt(cls) -> QuantPolicy:
        """For TensorRT: symmetric int8 everywhere, weights per channel."""
        return cls()

    @classmethod
    def cpu(cls) -> QuantPolicy:
        """For CPUs: activations in 0 … 255, and weights of 7 bits, because without VNNI two products of 8-bit numbers
        overflow the 16 bits in which they are summed.
        """
        return cls(weight_bits=7, activation_symmetric=False, quantize_prediction_inputs=True)


def quantize(model: nn.Module, policy: QuantPolicy = QuantPolicy()) -> YoloNAS:
    """A quantized copy: the same network and interface, with a quantizer on each weight and each activation.

    RepVGG and QARepVGG blocks are fused first, and BatchNorms with them; a model from `fuse_blocks` keeps its plain
    Conv-BN pairs, for training. Weights are quantized at once, activations as soon as `calibrate` has found their
    ranges. Raises ValueError for a model that is quantized already, unknown float_layers, NaN weights.

    >>> import yolonas_lab as yl
    >>> int8 = quantize(yl.models.get("yolo_nas_pico", num_classes=6), QuantPolicy(weight_bits=4))
    >>> int8.backbone.stem.conv.weight_quantizer
    Quantizer(backbone.stem.conv.weight, 4 bits, symmetric, axis=0, quantize)
    """
    if is_quantized(model):
        raise ValueError("The model is quantized already: give the float model.")
    check_layers(model, policy.float_layers)
    blocks = any(isinstance(module, (RepVGGBlock, QARepVGGBlock)) for module in model.modules())
    quantized = reparameterize(model) if blocks else copy.deepcopy(model)
    assert isinstance(quantized, YoloNAS)
    _insert(quantized, policy)
    set_float(quantized, policy.float_layers)
    return quantized


def _insert(model: YoloNAS, policy: QuantPolicy) -> None:
    """Replace every layer by its quantized twin, from the image to the heads."""

    def activation(name: str, readers: Sequence[str]) -> Quantizer:
        return Quantizer(policy.activation_bits, policy.activation_symmetric, name=name, readers=tuple(readers))

    def weight(conv: nn.Conv2d | nn.ConvTranspose2d, layer: str) -> Quantizer:
        return weight_quantizer(conv, layer, policy.weight_bits, policy.per_channel, policy.weight_calibrator)

    outputs: dict[str, nn.Module] = {}  # what quantizes the output of each writer
    readers: dict[str, Sequence[str]] = {}
    for group in scale_groups(model):
        owner, *others = group.writers  # the first to write owns the quantizer
        quantizer = outputs[owner] = activation(owner, group.readers)
        outputs |= {writer: SharedQuantizer(quantizer) for writer in others}
        readers |= dict.fromkeys(group.writers, group.readers)

    device = next(model.parameters()).device
    for name, module in list(model.named_modules()):
        twin: nn.Module | None = None
        if isinstance(module, (ConvAct, ConvBNAct)):
            layer = f"{name}.conv"
            if name not in outputs:  # only a prediction convolution reads it
                quantized = policy.quantize_prediction_inputs
                outputs[name] = activation(name, [layer]) if quantized else nn.Identity()
            image = outputs[IMAGE] if layer in readers[IMAGE] else None
            twin = QuantConvAct(module, weight(module.conv, layer), outputs[name], image)
        elif isinstance(module, nn.ConvTranspose2d):
            twin = QuantConvTranspose2d(module, weight(module, name), outputs[name])
        elif isinstance(module, Bottleneck):
            # Its two blocks follow in this loop and are replaced in the twin, which has taken them over.
            outputs[f"{name}.block2"] = activation(f"{name}.block2", readers[name])
            twin = QuantBottleneck(module, activation(f"{name}.skip", readers[name]), outputs[name])
        if twin is not None:
            model.set_submodule(name, twin.train(module.training))
    model.to(device)


@dataclass(frozen=True)
class ScaleGroup:
    """Tensors that share one scale: the modules that write them (IMAGE for the input) and the convolutions that read
    them, by name, in the order of computation.
    """

    writers: tuple[str, ...]
    readers: tuple[str, ...]


@torch.no_grad()
def scale_groups(model: nn.Module) -> list[ScaleGroup]:
    """Every scale that a fused or block-fused model needs: the tensors that a convolution which can be quantized
    reads, in the order of computation.

    The network is run once on a small image and watched, so that the rules hold for every size: tensors that meet in a
    concatenation share a scale, and max-pooling keeps that of its input.
    """
    parameter = next(model.parameters())
    image = torch.zeros(1, 3, STRIDES[-1], STRIDES[-1], device=parameter.device, dtype=parameter.dtype)
    watch = _Watch()
    watch.written.append((IMAGE, image))
    handles = [module.register_forward_hook(watch.hook(name)) for name, module in model.named_modules()]
    try:
        with modes_kept(model), watch:
            model.eval()(image)
    finally:
        for handle in handles:
            handle.remove()
    return watch.groups()


class _Watch(TorchFunctionMode):
    """Notes who writes and who reads a tensor in one forward pass, and which tensors share a scale."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[tuple[str, Tensor]] = []
        self.read: list[tuple[str, Tensor]] = []
        self.scales: dict[Tensor, int] = {}  # tensors with the same number share one; keeps them alive, too

    def scale(self, tensor: Tensor) -> int:
        return self.scales.setdefault(tensor, len(self.scales))

    def share(self, *tensors: Tensor) -> None:
        """These tensors, and all that share a scale with one of them, share one from now on."""
        merged = {self.scale(tensor) for tensor in tensors}
        self.scales = {t: min(merged) if scale in merged else scale for t, scale in self.scales.items()}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.cat:
            self.share(*args[0], out)
        return out

    def hook(self, name: str) -> Callable[..., None]:
        """What to note about the module of this name: convolutions read and write, a residual sum writes."""

        def after(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
            layer = layer_name(name, module)
            if layer:
                self.read.append((layer, args[0]))
            if layer or isinstance(module, Bottleneck):
                self.written.append((name, out))
            elif isinstance(module, nn.MaxPool2d):
                self.share(args[0], out)

        return after

    def groups(self) -> list[ScaleGroup]:
        """The scales that somebody reads."""
        sets: dict[int, tuple[list[str], list[str]]] = {}
        for place, pairs in enumerate((self.written, self.read)):
            for name, tensor in pairs:
                sets.setdefault(self.scale(tensor), ([], []))[place].append(name)
        return [ScaleGroup(tuple(writers), tuple(readers)) for writers, readers in sets.values() if readers]


@torch.no_grad()
def fold_batch_norm(model: YoloNAS) -> YoloNAS:
    """An eval-mode copy of a quantized model without BatchNorm and with the same outputs; weights quantized per tensor
    have one scale per channel afterwards.

    BatchNorm scales each output channel. A grid with one scale per channel takes that factor into the scale, so that
    the integers stay, up to the sign of the factor. What goes wrong otherwise: Krishnamoorthi, arXiv 1806.08342,
    section 3.2.2. Raises ValueError for a model that is not quantized.
    """
    check_quantized(model)
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if isinstance(module, QuantConvAct) and module.bn is not None:
            _fold(module.conv, module.bn)
            module.bn = None
    return model


def _fold(conv: QuantConv2d, bn: nn.BatchNorm2d) -> None:
    assert bn.running_var is not None
    old = conv.weight_quantizer
    gain = bn.weight / torch.sqrt(bn.running_var + bn.eps)  # (c_out,)
    new = Quantizer(old.bits, axis=0, channels=conv.out_channels, narrow=True, name=old.name, readers=old.readers)
    new.to(gain.device, gain.dtype)
    scale = old.scale * gain.abs()  # (c_out,)
    new.scale.copy_(torch.where(scale > 0, scale, 1.0))
    new.switch(old.wanted)
    kernel = fold_bn(kernel_of(conv), bn)
    integers = old.integers(conv.weight) * along(0, conv.weight, gain.sign().to(torch.int8))
    # The few values that rounding took across the middle between two integers move back by 1/2000 of a step.
    inwards = torch.lerp(kernel.weight, integers * along(0, kernel.weight, new.scale), 1e-3)
    same = new.integers(kernel.weight) == integers
    conv.weight = nn.Parameter(torch.where(same, kernel.weight, inwards))
    conv.bias = nn.Parameter(kernel.bias)
    conv.weight_quantizer = new


def for_export(model: YoloNAS) -> YoloNAS:
    """An eval-mode copy to export to ONNX: BatchNorm folded, each quantized weight held as its integers too, so that
    the file holds int8 weights that nothing but DequantizeLinear reads.

    Raises ValueError for a model that is not quantized.
    """
    model = fold_batch_norm(model)
    for name, quantizer in weight_quantizers(model).items():
        if quantizer.mode == "quantize":
            quantizer.stored = quantizer.integers(model.get_parameter(f"{name}.weight"))
    return model
