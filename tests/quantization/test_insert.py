import copy
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import yolonas_lab as yl
from yolonas_lab.quantization import (
    Quantizer,
    QuantPolicy,
    calibrate,
    fold_batch_norm,
    for_export,
    quantizable_layers,
    quantize,
    scale_groups,
    set_float,
)
from yolonas_lab.quantization.layers import (
    QuantBottleneck,
    QuantConv2d,
    activation_quantizers,
    is_quantized,
    weight_quantizers,
)


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"weight_bits": 1}, "weight_bits is 1.*from 2 to 8"),
        ({"activation_bits": 4.5}, "activation_bits is 4.5.*from 2 to 8"),
        ({"weight_calibrator": "percentil"}, "did you mean 'percentile'"),
        ({"float_layers": "backbone.stem.conv"}, "a tuple of layer names"),
    ],
)
def test_a_policy_names_the_wrong_setting(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        QuantPolicy(**settings)


def decoded(model, images):
    with torch.inference_mode():
        return yl.models.decode(model(images))


def test_at_8_bits_a_quantized_model_detects_what_the_float_model_detects(pico, int8, images, scenes):
    boxes, scores = decoded(pico, images)
    q_boxes, q_scores = decoded(int8, images)
    assert 0 < (q_scores - scores).abs().max() < 0.25 and (q_scores - scores).abs().mean() < 0.005
    confident = scores.amax(dim=2) > 0.5
    assert (q_boxes - boxes)[confident].abs().mean() < 0.5  # px
    ap, q_ap = (yl.evaluate.evaluate(m, scenes[1], progress=False).ap for m in (pico, int8))
    assert ap > 0.4 and abs(ap - q_ap) < 0.03


def test_every_weight_lies_on_its_grid_and_every_read_activation_too(int8, images):
    counts = {}

    def on_grid(name, x, scale, bits=8):
        counts[name] = counts.get(name, 0) + 1
        assert torch.allclose(x / scale, (x / scale).round(), atol=1e-3), name
        assert len(x.unique()) <= 2**bits

    def reads(name, quantizer):
        return lambda module, args: on_grid(name, args[0], quantizer.scale)

    model: Any = copy.deepcopy(int8)
    for name, module in model.named_modules():
        if isinstance(module, (QuantConv2d, nn.ConvTranspose2d)):
            # of the quantizers that serve a reader, those of the terms of a residual sum do not feed it
            serving = [q for q in activation_quantizers(int8) if name in q.readers]
            feeding = [q for q in serving if not q.name.endswith((".block2", ".skip"))]
            assert len(feeding) == 1, name
            module.register_forward_pre_hook(reads(name, feeding[0]))
    decoded(model, images[:2])
    assert sorted(counts) == sorted(quantizable_layers(int8))
    for name, quantizer in weight_quantizers(int8).items():
        weight = int8.get_submodule(name).weight
        axis = 1 if name.endswith("upsample") else 0
        assert quantizer.axis == axis and quantizer.scale.shape == (weight.shape[axis],)
        integers = quantizer.integers(weight)
        assert integers.dtype == torch.int8 and integers.abs().amax() == 127
        rows = weight.transpose(0, axis).flatten(1)
        torch.testing.assert_close(quantizer.scale, rows.abs().amax(dim=1) / 127)


def test_both_terms_of_a_residual_sum_are_quantized_and_the_sum_is_too(int8):
    for module in int8.modules():
        if type(module) is QuantBottleneck:
            block1: Any = module.block1
            block2: Any = module.block2
            x = torch.rand(1, block1.conv.in_channels, 8, 8)
            terms = [module.skip(module.alpha * x), block2(block1(x))]
            for term, quantizer in zip(terms, (module.skip, block2.output)):
                steps = term / quantizer.scale
                assert quantizer.mode == "quantize" and torch.allclose(steps, steps.round(), atol=1e-3)
            assert torch.equal(module(x), module.output(terms[0] + terms[1]))


def test_the_tail_and_biases_stay_in_float(pico, int8):
    for level in int8.heads.levels:
        assert type(level.class_pred) is nn.Conv2d and type(level.box_pred) is nn.Conv2d
        assert isinstance(level.class_conv.output, nn.Identity)
    cpu: Any = quantize(pico, QuantPolicy.cpu())
    assert all(isinstance(level.box_conv.output, Quantizer) for level in cpu.heads.levels)


def test_no_tensor_is_saved_twice_and_names_are_those_of_the_fused_model(pico, int8):
    state = int8.state_dict()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
    fused = yl.models.reparameterize(pico).state_dict()
    assert fused.keys() <= state.keys() and all(torch.equal(fused[name], state[name]) for name in fused)
    assert all(name.endswith((".scale", ".zero_point")) for name in state.keys() - fused.keys())


def test_saved_and_loaded_it_computes_the_same(pico, int8, images, tmp_path):
    tensors = {name: tensor.contiguous() for name, tensor in int8.state_dict().items()}
    save_file(tensors, tmp_path / "q.safetensors")
    fresh = quantize(yl.models.get("yolo_nas_pico", num_classes=6))
    fresh.load_state_dict(load_file(tmp_path / "q.safetensors"))
    for ours, theirs in zip(decoded(fresh, images), decoded(int8, images)):
        assert torch.equal(ours, theirs)


def test_a_model_in_training_mode_stays_so_and_gradients_reach_every_weight(pico, images):
    block_fused = yl.models.fuse_blocks(pico).train()
    model: Any = calibrate(quantize(block_fused, QuantPolicy(weight_bits=4)), [images])
    assert model.training and all(m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    before = model.neck.down1.downsample.bn.running_mean.clone()
    raw = model(images)
    (raw.class_logits.square().mean() + raw.box_logits.square().mean()).backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []
    assert not torch.equal(model.neck.down1.downsample.bn.running_mean, before)  # BatchNorm works


def test_the_model_given_is_left_alone_and_none_is_quantized_twice(pico):
    before = {name: tensor.clone() for name, tensor in pico.state_dict().items()}
    model = quantize(pico)
    with pytest.raises(ValueError, match="quantized already"):
        quantize(model)
    assert not is_quantized(pico) and all(torch.equal(before[k], v) for k, v in pico.state_dict().items())


def test_a_weight_that_is_nan_names_its_layer(pico):
    broken: Any = yl.models.reparameterize(pico)
    with torch.no_grad():
        broken.neck.up1.upsample.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"neck\.up1\.upsample holds NaN"):
        quantize(broken)


def groups_of(model):
    return {group.writers[0]: group for group in scale_groups(model)}


@pytest.fixture(scope="module")
def fused():
    return yl.models.reparameterize(yl.models.get("yolo_nas_pico", num_classes=3))


def test_every_quantizable_layer_reads_one_scale_and_prediction_layers_none(fused):
    readers = [reader for group in scale_groups(fused) for reader in group.readers]
    assert sorted(readers) == sorted(quantizable_layers(fused)) and not any("pred" in reader for reader in readers)
    writers = [writer for group in scale_groups(fused) for writer in group.writers]
    assert len(writers) == len(set(writers))


def test_a_plain_tensor_has_one_writer_and_several_readers(fused):
    groups = groups_of(fused)
    assert groups["image"].readers == ("backbone.stem.conv",)
    group = groups["backbone.stages.1.downsample"]
    assert group.writers == ("backbone.stages.1.downsample",)
    assert group.readers == ("backbone.stages.1.csp.conv1.conv", "backbone.stages.1.csp.conv2.conv")
    head = groups["heads.levels.0.stem"]
    assert head.readers == ("heads.levels.0.class_conv.conv", "heads.levels.0.box_conv.conv")
    assert "heads.levels.0.class_conv" not in groups  # only the prediction layer reads it


def test_what_meets_in_a_concatenation_shares_a_scale(fused):
    groups = groups_of(fused)
    csp = "backbone.stages.0.csp"  # the bottleneck's sum and conv2; conv1 is read by the bottleneck alone
    assert set(groups[f"{csp}.bottlenecks.0"].writers) == {f"{csp}.bottlenecks.0", f"{csp}.conv2"}
    assert groups[f"{csp}.conv1"].readers == (f"{csp}.bottlenecks.0.block1.conv",)
    # The pyramid: pools keep the scale of their input, so that one writer is left.
    assert groups["backbone.spp.conv1"].writers == ("backbone.spp.conv1",)
    assert groups["backbone.spp.conv1"].readers == ("backbone.spp.conv2.conv",)
    up = {"neck.up1.upsample", "neck.up1.reduce_skip", "neck.up1.downsample_fine_skip"}
    assert [set(g.writers) for g in scale_groups(fused) if up & set(g.writers)] == [up]
    # The reduced map is read by the upsampling, and meets the down path in a concatenation far away.
    assert groups["neck.up1.reduce"].writers == ("neck.up1.reduce", "neck.down2.downsample")
    assert set(groups["neck.up1.reduce"].readers) == {
        "neck.up1.upsample", "neck.down2.csp.conv1.conv", "neck.down2.csp.conv2.conv"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["yolo_nas_nano", pytest.param("yolo_nas_m", marks=pytest.mark.slow)])
def test_block_fused_and_fused_models_of_any_size_have_the_same_groups(name):
    model = yl.models.get(name, num_classes=2)
    block_fused = yl.models.fuse_blocks(model)
    assert scale_groups(block_fused) == scale_groups(yl.models.reparameterize(model))
    layers = quantizable_layers(block_fused)
    assert layers == quantizable_layers(model) and len(layers) == len(set(layers))


def test_watching_leaves_no_trace(fused):
    model: Any = yl.models.fuse_blocks(fused)
    model.train()
    model.heads.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    scale_groups(model)
    assert model.training and model.neck.training and not model.heads.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


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


def test_float_models_are_refused(pico):
    for function in (fold_batch_norm, for_export):
        with pytest.raises(ValueError, match="not quantized"):
            function(pico)
