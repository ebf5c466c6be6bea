"""Putting quantizers into a network and taking them out again: one per tensor, where the tensor is written.

Notebook 10 goes through the rules, those of NVIDIA's "Explicit Quantization" (TensorRT's documentation): weights per
output channel, activations per tensor, after the ReLU; the skip of a residual sum too; one scale per concatenation;
prediction convolutions, everything after them, and every bias in float.
"""

import copy
from collections.abc import Iterable

from torch import nn

from yolonas_lab.models.blocks import ConvAct, ConvBNAct, QARepVGGBlock, RepVGGBlock
from yolonas_lab.models.reparameterize import reparameterize
from yolonas_lab.models.stages import Bottleneck
from yolonas_lab.models.yolo_nas import YoloNAS
from yolonas_lab.quantization.calibrators import weight_range
from yolonas_lab.quantization.fold import fold_batch_norm
from yolonas_lab.quantization.layers import Borrowed, QuantBottleneck, QuantConv2d, QuantConvAct, QuantConvTranspose2d
from yolonas_lab.quantization.placement import IMAGE, ScaleGroup, scale_groups
from yolonas_lab.quantization.policy import QuantPolicy
from yolonas_lab.quantization.quantizer import Quantizer
from yolonas_lab.quantization.switch import check_float, check_layers, set_float

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
