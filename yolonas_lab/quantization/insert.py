"""Putting quantizers into a network and taking them out again: one per tensor, where the tensor is written.

Notebook 10 goes through the rules, those of NVIDIA's "Explicit Quantization" (TensorRT's documentation): weights per
output channel, activations per tensor, after the ReLU; the skip of a residual sum too; one scale per concatenation;
prediction convolutions, everything after them, and every bias in float.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from yolonas_lab.common import unknown_name
from yolonas_lab.models.blocks import ConvAct, ConvBNAct, QARepVGGBlock, RepVGGBlock
from yolonas_lab.models.reparameterize import Kernel, fold_bn, kernel_of, reparameterize
from yolonas_lab.models.yolo_nas import STRIDES, Bottleneck, YoloNAS
from yolonas_lab.quantization.calibrate import check_float, check_layers, check_quantized, set_float
from yolonas_lab.quantization.calibrators import WEIGHT_METHODS, weight_range
from yolonas_lab.quantization.fake_quant import along, check_bits
from yolonas_lab.quantization.layers import (
    Borrowed,
    QuantBottleneck,
    QuantConv2d,
    QuantConvAct,
    QuantConvTranspose2d,
    Quantizer,
)

# Where quantizers belong: the tensors of a network, who writes them, who reads them, and which must share one scale.
#
# Notebook 10 shows the result. The network is run once on a small image and watched, so that the rules hold for every
# size: tensors that meet in a concatenation share a scale, and max-pooling keeps that of its input (NVIDIA, "Explicit
# Quantization" in TensorRT's documentation).

IMAGE = "image"


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
    """
    parameter = next(model.parameters())
    image = torch.zeros(1, 3, STRIDES[-1], STRIDES[-1], device=parameter.device, dtype=parameter.dtype)
    watch = _Watch()
    watch.written.append((IMAGE, watch.key(image)))
    handles = [module.register_forward_hook(hook) for module, hook in _hooks(model, watch)]
    modes = {module: module.training for module in model.modules()}
    try:
        with watch:
            model.eval()(image)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    return watch.groups()


class _Watch(TorchFunctionMode):
    """Sorts the tensors of one forward pass into sets that share a scale, by joining sets (union-find)."""

    def __init__(self) -> None:
        super().__init__()
        self.parent: dict[int, int] = {}  # a tensor's identity -> that of another of its set, or its own
        self.alive: list[Tensor] = []  # the identity of a tensor that is gone may be given to another
        self.written: list[tuple[str, int]] = []
        self.read: list[tuple[str, int]] = []

    def key(self, tensor: Tensor) -> int:
        """What stands for the tensor's set at the moment."""
        self.alive.append(tensor)
        return self.root(self.parent.setdefault(id(tensor), id(tensor)))

    def root(self, key: int) -> int:
        """What stands for the set of `key` by now."""
        while self.parent[key] != key:
            key = self.parent[key]
        return key

    def join(self, tensors: list[Tensor]) -> None:
        """From now on these tensors are of one set."""
        for tensor in tensors[1:]:
            self.parent[self.key(tensor)] = self.key(tensors[0])

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.cat:
            self.join([*args[0], out])
        return out

    def groups(self) -> list[ScaleGroup]:
        """The sets that somebody reads."""
        sets: dict[int, tuple[list[str], list[str]]] = {}
        for place, pairs in enumerate((self.written, self.read)):
            for name, key in pairs:
                sets.setdefault(self.root(key), ([], []))[place].append(name)
        return [ScaleGroup(tuple(writers), tuple(readers)) for writers, readers in sets.values() if readers]


def _hooks(model: nn.Module, watch: _Watch) -> Iterator[tuple[nn.Module, Callable[..., None]]]:
    """What to watch, and how: convolutions read and write, a residual sum writes, pooling keeps the scale."""

    def convolution(writer: str, reader: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            watch.read.append((reader, watch.key(args[0])))
            watch.written.append((writer, watch.key(out)))

        return hook

    def residual_sum(writer: str) -> Callable[..., None]:
        return lambda module, args, out: watch.written.append((writer, watch.key(out)))

    for name, module in model.named_modules():
        if isinstance(module, (ConvAct, ConvBNAct)):
            yield module, convolution(name, f"{name}.conv")
        elif isinstance(module, nn.ConvTranspose2d):
            yield module, convolution(name, name)
        elif isinstance(module, Bottleneck):
            yield module, residual_sum(name)
        elif isinstance(module, nn.MaxPool2d):
            yield module, lambda module, args, out: watch.join([args[0], out])


# What to quantize and how finely, in one small table of settings. Notebook 10 turns them one by one.
#
# The defaults are what TensorRT's INT8 convolutions take: NVIDIA, "Explicit Quantization" in TensorRT's documentation.


@dataclass(frozen=True)
class QuantPolicy:
    """How weights and activations are quantized.

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


# Folding BatchNorm into a quantized convolution without touching its integers; notebook 11 does it after training.
#
# BatchNorm scales each output channel. A weight grid with one scale per channel takes that factor into the scale, so
# that the integers stay, up to the sign of the factor. What goes wrong otherwise: Krishnamoorthi, arXiv 1806.08342,
# section 3.2.2.


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


DEFAULT_POLICY = QuantPolicy()


def quantize(model: nn.Module, policy: QuantPolicy = DEFAULT_POLICY) -> YoloNAS:
    """A quantized copy: the same network and interface, with a quantizer on each weight and each activation.

    RepVGG and QARepVGG blocks are fused first, and BatchNorms with them; a model from `fuse_blocks` keeps its plain
    Conv-BN pairs, for training. Weights are quantized at once, activations as soon as `calibrate` has found their
    ranges. Raises ValueError for a model that is quantized already, unknown float_layers, NaN weights.
    """
    check_float(model)
    check_layers(model, policy.float_layers)
    blocks = any(isinstance(module, (RepVGGBlock, QARepVGGBlock)) for module in model.modules())
    quantized = reparameterize(model) if blocks else copy.deepcopy(model)
    assert isinstance(quantized, YoloNAS)
    _insert(quantized, scale_groups(quantized), policy)
    set_float(quantized, policy.float_layers)
    return quantized


def dequantize(model: YoloNAS) -> YoloNAS:
    """The float model in a quantized one: a fused copy in eval mode with the float weights, as trained, and no
    quantizers.

    Raises ValueError for a model that is not quantized.
    """
    folded = fold_batch_norm(model)
    plain = reparameterize(YoloNAS(model.config, model.num_classes, model.class_names))
    assert isinstance(plain, YoloNAS)
    parameter = next(folded.parameters())
    plain.to(parameter.device, parameter.dtype)
    trained = folded.state_dict()
    plain.load_state_dict({name: trained[name] for name in plain.state_dict()})
    plain.image_size, plain.load_report = model.image_size, model.load_report
    return plain


def _insert(model: YoloNAS, groups: list[ScaleGroup], policy: QuantPolicy) -> None:
    """Replace every layer by its quantized twin, from the image to the heads."""
    outputs = _output_quantizers(groups, policy)
    device = next(model.parameters()).device
    for name, module in list(model.named_modules()):
        twin: nn.Module | None = None
        if isinstance(module, (ConvAct, ConvBNAct)):
            twin = _conv_act(module, name, outputs, policy)
        elif isinstance(module, nn.ConvTranspose2d):
            twin = QuantConvTranspose2d(module, _weight_quantizer(module, name, policy), outputs[name])
        elif isinstance(module, Bottleneck):
            # Its two blocks follow in this loop and are replaced in the twin, which has taken them over.
            readers = _quantizer_of(outputs[name]).readers
            outputs[f"{name}.block2"] = _activation_quantizer(f"{name}.block2", readers, policy)
            twin = QuantBottleneck(module, _activation_quantizer(f"{name}.skip", readers, policy), outputs[name])
        if twin is not None:
            model.set_submodule(name, twin.train(module.training))
    model.to(device)


def _output_quantizers(groups: list[ScaleGroup], policy: QuantPolicy) -> dict[str, nn.Module]:
    """For each writer, what quantizes its output: the first of a group owns the quantizer, the others borrow it."""
    outputs: dict[str, nn.Module] = {}
    for group in groups:
        owner, *others = group.writers
        quantizer = _activation_quantizer(owner, group.readers, policy)
        outputs[owner] = quantizer
        outputs.update({writer: Borrowed(quantizer) for writer in others})
    return outputs


def _conv_act(
    module: ConvAct | ConvBNAct, name: str, outputs: dict[str, nn.Module], policy: QuantPolicy
) -> QuantConvAct:
    layer = f"{name}.conv"
    output = outputs.get(name)
    if output is None:  # only a prediction convolution reads it
        last = policy.quantize_prediction_inputs
        output = _activation_quantizer(name, (layer,), policy) if last else nn.Identity()
    image = outputs[IMAGE] if layer in _quantizer_of(outputs[IMAGE]).readers else None
    bn = module.bn if isinstance(module, ConvBNAct) else None
    return QuantConvAct(QuantConv2d(module.conv, _weight_quantizer(module.conv, layer, policy)), bn, output, image)


def _activation_quantizer(name: str, readers: Iterable[str], policy: QuantPolicy) -> Quantizer:
    return Quantizer(policy.activation_bits, policy.activation_symmetric, name=name, readers=tuple(readers))


def _weight_quantizer(conv: nn.Conv2d | nn.ConvTranspose2d, name: str, policy: QuantPolicy) -> Quantizer:
    """A calibrated quantizer for a weight; the output channels of a transposed convolution are on axis 1."""
    axis = (1 if isinstance(conv, nn.ConvTranspose2d) else 0) if policy.per_channel else None
    quantizer = Quantizer(
        policy.weight_bits, axis=axis, channels=conv.out_channels, narrow=True, name=f"{name}.weight", readers=(name,)
    ).to(conv.weight.device)
    try:
        largest = weight_range(conv.weight, policy.weight_bits, policy.weight_calibrator, axis)
    except ValueError as error:
        raise ValueError(f"The weight of layer {name} holds {error}; use an earlier checkpoint.") from error
    quantizer.set_range(-largest, largest)
    return quantizer


def _quantizer_of(output: nn.Module) -> Quantizer:
    quantizer = output.quantizer if isinstance(output, Borrowed) else output
    assert isinstance(quantizer, Quantizer)
    return quantizer
