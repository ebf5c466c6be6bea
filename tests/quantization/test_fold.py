from typing import Any

import pytest
import torch
from torch import nn

import yolonas_lab as yl
from yolonas_lab.quantization import QuantPolicy, calibrate, fold_batch_norm, for_export, quantize, set_float
from yolonas_lab.quantization.calibrate import weight_quantizers


@pytest.fixture(scope="module")
def images():
    return torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(5))


def block_fused(images, **policy) -> Any:
    """A quantized pico whose remaining BatchNorms have gains of both signs, one of them 0."""
    model = yl.models.fuse_blocks(yl.models.get("yolo_nas_pico", pretrained_weights="scenes"))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.mul_(torch.where(torch.rand(module.weight.shape, generator=generator) < 0.3, -1.0, 1.0))
                module.weight[0] = 0.0
    return calibrate(quantize(model, QuantPolicy(**policy)), [images])


@pytest.mark.parametrize("policy", [{}, {"weight_bits": 3}, {"weight_bits": 4, "per_channel": False}])
def test_folding_keeps_outputs_and_integers(images, policy):
    # In float64, where no activation happens to lie so near the middle between two integers that it flips.
    model = block_fused(images, **policy).double()
    folded: Any = fold_batch_norm(model)
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules())  # the one given stays as it is
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    before, after = weight_quantizers(model), weight_quantizers(folded)
    for name, quantizer in before.items():
        integers = quantizer.integers(model.get_submodule(name).weight)
        assert torch.equal(after[name].integers(folded.get_submodule(name).weight).abs()[1:], integers.abs()[1:])
        assert (after[name].scale > 0).all()
    with torch.inference_mode():
        ours, theirs = model(images.double()), folded(images.double())
    torch.testing.assert_close(ours.class_logits, theirs.class_logits, rtol=0, atol=1e-9)
    torch.testing.assert_close(ours.box_logits, theirs.box_logits, rtol=0, atol=1e-9)


def test_a_folded_layer_equals_convolution_and_batch_norm_exactly(images):
    model = block_fused(images, weight_bits=4, per_channel=False).double()
    folded: Any = fold_batch_norm(model)
    layer, twin = model.neck.down1.downsample.eval(), folded.neck.down1.downsample
    x = torch.rand(2, layer.conv.in_channels, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(twin.conv(x), layer.bn(layer.conv(x)), rtol=0, atol=1e-12)
    assert twin.conv.weight_quantizer.scale.shape == (layer.conv.out_channels,)


def test_weights_in_the_middle_between_two_integers_keep_theirs(images):
    model = block_fused(images)
    layer = model.neck.down1.downsample
    halves = torch.arange(-100, 100)[torch.randint(0, 200, layer.conv.weight.shape)] + 0.5
    with torch.no_grad():
        layer.conv.weight.copy_(halves * layer.conv.weight_quantizer.scale.view(-1, 1, 1, 1))
    folded: Any = fold_batch_norm(model)
    twin = folded.neck.down1.downsample
    gain = layer.bn.weight / torch.sqrt(layer.bn.running_var + layer.bn.eps)
    expected = layer.conv.weight_quantizer.integers(layer.conv.weight) * gain.sign().view(-1, 1, 1, 1)
    assert torch.equal(twin.conv.weight_quantizer.integers(twin.conv.weight).float(), expected)


def test_for_export_stores_the_integers_of_quantized_weights_only(images):
    model = block_fused(images, weight_bits=5)
    set_float(model, ["backbone.stem.conv"])
    ready: Any = for_export(model)
    for name, quantizer in weight_quantizers(ready).items():
        if name == "backbone.stem.conv":
            assert quantizer.stored is None
        else:
            assert quantizer.stored is not None and quantizer.stored.dtype == torch.int8
            scale = quantizer.scale.view([-1 if i == quantizer.axis else 1 for i in range(4)])
            torch.testing.assert_close(quantizer.stored * scale, quantizer(ready.get_submodule(name).weight))
    assert not any("stored" in name for name in ready.state_dict())
    with torch.inference_mode():
        assert torch.equal(ready(images).class_logits, fold_batch_norm(model)(images).class_logits)


def test_float_models_are_refused():
    model = yl.models.get("yolo_nas_pico")
    for function in (fold_batch_norm, for_export):
        with pytest.raises(ValueError, match="not quantized"):
            function(model)
