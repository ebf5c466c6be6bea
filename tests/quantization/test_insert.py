import copy
import pydoc
from typing import Any

import pytest
import torch
from torch import nn

import yolonas_lab as yl
from yolonas_lab.data import CocoDataset, Loader
from yolonas_lab.quantization import (
    Quantizer,
    QuantPolicy,
    calibrate,
    dequantize,
    float_layers,
    is_quantized,
    quantizable_layers,
    quantize,
    quantized_only,
    set_float,
)
from yolonas_lab.quantization.calibrate import activation_quantizers, weight_quantizers
from yolonas_lab.quantization.layers import QuantBottleneck, QuantConv2d, QuantConvAct


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    made = yl.data.make_scenes(tmp_path_factory.mktemp("scenes") / "s", train=16, val=32, image_size=64, seed=31)
    return tuple(CocoDataset(made.images_dir(split), made.annotations(split)) for split in ("train", "val"))


@pytest.fixture(scope="module")
def images(scenes):
    return next(Loader(scenes[0], 16, 64).batches(0)).images


@pytest.fixture(scope="module")
def pico():
    return yl.models.get("yolo_nas_pico", pretrained_weights="scenes")


@pytest.fixture(scope="module")
def quantized(pico, images):
    return calibrate(quantize(pico), [images])


def modules(model) -> list[Any]:
    return list(model.modules())


def decoded(model, images):
    with torch.inference_mode():
        return yl.models.decode(model(images))


def test_at_8_bits_a_quantized_model_detects_what_the_float_model_detects(pico, quantized, images, scenes):
    boxes, scores = decoded(pico, images)
    q_boxes, q_scores = decoded(quantized, images)
    assert 0 < (q_scores - scores).abs().max() < 0.25 and (q_scores - scores).abs().mean() < 0.005
    confident = scores.amax(dim=2) > 0.5
    assert (q_boxes - boxes)[confident].abs().mean() < 0.5  # px
    ap, q_ap = (yl.evaluate.evaluate(m, scenes[1], progress=False).ap for m in (pico, quantized))
    assert ap > 0.4 and abs(ap - q_ap) < 0.03


def test_every_weight_lies_on_its_grid_and_every_read_activation_too(quantized, images):
    counts = {}

    def on_grid(name, x, scale, bits=8):
        counts[name] = counts.get(name, 0) + 1
        assert torch.allclose(x / scale, (x / scale).round(), atol=1e-3), name
        assert len(x.unique()) <= 2**bits

    def reads(name, quantizer):
        return lambda module, args: on_grid(name, args[0], quantizer.scale)

    model: Any = copy.deepcopy(quantized)
    for name, module in model.named_modules():
        if isinstance(module, (QuantConv2d, nn.ConvTranspose2d)):
            # of the quantizers that serve a reader, those of the terms of a residual sum do not feed it
            serving = [q for q in activation_quantizers(quantized) if name in q.readers]
            feeding = [q for q in serving if not q.name.endswith((".block2", ".skip"))]
            assert len(feeding) == 1, name
            module.register_forward_pre_hook(reads(name, feeding[0]))
    decoded(model, images[:2])
    assert sorted(counts) == sorted(quantizable_layers(quantized))
    for name, quantizer in weight_quantizers(quantized).items():
        weight = quantized.get_submodule(name).weight
        axis = 1 if name.endswith("upsample") else 0
        assert quantizer.axis == axis and quantizer.scale.shape == (weight.shape[axis],)
        integers = quantizer.integers(weight)
        assert integers.dtype == torch.int8 and integers.abs().amax() == 127
        rows = weight.transpose(0, axis).flatten(1)
        torch.testing.assert_close(quantizer.scale, rows.abs().amax(dim=1) / 127)


def test_both_terms_of_a_residual_sum_are_quantized_and_the_sum_is_too(quantized):
    for module in modules(quantized):
        if type(module) is QuantBottleneck:
            block1: Any = module.block1
            block2: Any = module.block2
            x = torch.rand(1, block1.conv.in_channels, 8, 8)
            terms = [module.skip(module.alpha * x), block2(block1(x))]
            for term, quantizer in zip(terms, (module.skip, block2.output)):
                steps = term / quantizer.scale
                assert quantizer.mode == "quantize" and torch.allclose(steps, steps.round(), atol=1e-3)
            assert torch.equal(module(x), module.output(terms[0] + terms[1]))


def test_the_tail_and_biases_stay_in_float(quantized):
    for level in quantized.heads.levels:
        assert type(level.class_pred) is nn.Conv2d and type(level.box_pred) is nn.Conv2d
        assert isinstance(level.class_conv.output, nn.Identity)
    cpu: Any = quantize(dequantize(quantized), QuantPolicy.cpu())
    assert all(isinstance(level.box_conv.output, Quantizer) for level in cpu.heads.levels)


def test_no_tensor_is_saved_twice_and_names_are_those_of_the_fused_model(pico, quantized):
    state = quantized.state_dict()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
    fused = yl.models.reparameterize(pico).state_dict()
    assert fused.keys() <= state.keys() and all(torch.equal(fused[name], state[name]) for name in fused)
    assert all(name.endswith((".scale", ".zero_point")) for name in state.keys() - fused.keys())


def test_saved_and_loaded_it_computes_the_same(pico, quantized, images, tmp_path):
    from safetensors.torch import load_file, save_file

    save_file(
        {name: tensor.contiguous() for name, tensor in quantized.state_dict().items()}, tmp_path / "q.safetensors"
    )
    fresh = quantize(yl.models.get("yolo_nas_pico", num_classes=6))
    fresh.load_state_dict(load_file(tmp_path / "q.safetensors"))
    for ours, theirs in zip(decoded(fresh, images), decoded(quantized, images)):
        assert torch.equal(ours, theirs)


def test_a_copy_is_independent(quantized, images):
    copied = copy.deepcopy(quantized)
    expected = decoded(quantized, images)
    for quantizer in activation_quantizers(copied):
        quantizer.set_range(torch.tensor(-0.1), torch.tensor(0.1))
    assert torch.equal(decoded(quantized, images)[1], expected[1])
    assert not torch.equal(decoded(copied, images)[1], expected[1])


@pytest.mark.parametrize("fuse", [yl.models.fuse_blocks, lambda model: model])
def test_dequantize_gives_the_float_model_back(pico, fuse, images):
    for policy in (QuantPolicy(), QuantPolicy(weight_bits=2, activation_bits=3, per_channel=False)):
        plain = dequantize(calibrate(quantize(fuse(pico), policy), [images]))
        assert not is_quantized(plain) and plain.image_size == pico.image_size and plain.class_names == pico.class_names
        assert not any(isinstance(module, nn.BatchNorm2d) for module in modules(plain))
        for ours, theirs in zip(decoded(plain, images), decoded(pico, images)):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_a_model_in_training_mode_stays_so_and_gradients_reach_every_weight(pico, images):
    block_fused = yl.models.fuse_blocks(pico).train()
    model: Any = calibrate(quantize(block_fused, QuantPolicy(weight_bits=4)), [images])
    assert model.training and all(m.training for m in modules(model) if isinstance(m, nn.BatchNorm2d))
    before = model.neck.down1.downsample.bn.running_mean.clone()
    raw = model(images)
    (raw.class_logits.square().mean() + raw.box_logits.square().mean()).backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []
    assert not torch.equal(model.neck.down1.downsample.bn.running_mean, before)  # BatchNorm works


def test_predict_and_fit_work_as_for_a_float_model(quantized, scenes):
    found = quantized.predict(scenes[1][0].image)
    assert len(found.boxes) and found.class_names == quantized.class_names
    model: Any = copy.deepcopy(quantized)
    before = model.state_dict()["backbone.stem.conv.weight"].clone()
    scales = model.backbone.stem.output.scale.clone()
    config = yl.training.TrainConfig(steps=2, epochs=None, batch_size=8, image_size=64, lr=1e-3, evaluate_every=None)
    history = yl.training.fit(model, scenes[0], None, config)
    assert len(history.steps) == 2 and is_quantized(model)
    assert not torch.equal(model.state_dict()["backbone.stem.conv.weight"], before)
    assert torch.equal(model.backbone.stem.output.scale, scales) and model.backbone.stem.output.mode == "quantize"


def test_the_model_given_is_left_alone(pico):
    before = {name: tensor.clone() for name, tensor in pico.state_dict().items()}
    quantize(pico)
    assert not is_quantized(pico) and all(torch.equal(before[k], v) for k, v in pico.state_dict().items())


def test_quantizing_twice_and_dequantizing_a_float_model(pico, quantized):
    with pytest.raises(ValueError, match=r"quantized already.*dequantize"):
        quantize(quantized)
    with pytest.raises(ValueError, match="not quantized"):
        dequantize(pico)


def test_an_unknown_layer_names_the_nearest(pico, quantized):
    for call in (
        lambda: quantize(pico, QuantPolicy(float_layers=("backbone.stem.con",))),
        lambda: set_float(quantized, ["backbone.stem.con"]),
        lambda: quantized_only(quantized, ["backbone.stem.con"]).__enter__(),
    ):
        with pytest.raises(ValueError, match=r"did you mean 'backbone\.stem\.conv'"):
            call()
    with pytest.raises(ValueError, match="Unknown layer"):
        quantize(pico, QuantPolicy(float_layers=("heads.levels.0.class_pred",)))  # always in float


def test_a_weight_that_is_nan_names_its_layer(pico):
    broken: Any = yl.models.reparameterize(pico)
    with torch.no_grad():
        broken.neck.up1.upsample.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"neck\.up1\.upsample holds NaN"):
        quantize(broken)


def test_all_layers_in_float_are_the_float_model_again(pico, quantized, images):
    model: Any = copy.deepcopy(quantized)
    names = quantizable_layers(model)
    set_float(model, names)
    assert float_layers(model) == names and not any(q.mode == "quantize" for q in activation_quantizers(model))
    for ours, theirs in zip(decoded(model, images), decoded(pico, images)):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)
    set_float(model, ())
    assert float_layers(model) == [] and torch.equal(decoded(model, images)[1], decoded(quantized, images)[1])


def test_a_float_layer_has_a_float_weight_and_frees_what_only_it_reads(pico, images):
    layer = "backbone.stages.0.downsample.conv"
    model = calibrate(quantize(pico, QuantPolicy(float_layers=(layer,))), [images])
    off = [m.name for m in modules(model) if isinstance(m, Quantizer) and m.mode == "off"]
    assert off == ["backbone.stem", f"{layer}.weight"] and float_layers(model) == [layer]
    set_float(model, ["backbone.stages.0.csp.conv1.conv"])  # conv2 reads the same tensor
    off = [m.name for m in modules(model) if isinstance(m, Quantizer) and m.mode == "off"]
    assert off == ["backbone.stages.0.csp.conv1.conv.weight"]


def test_quantized_only_is_undone_even_after_an_error(quantized):
    model: Any = copy.deepcopy(quantized)
    set_float(model, ["backbone.stem.conv"])
    with pytest.raises(RuntimeError), quantized_only(model, ["neck.up1.upsample"]):
        on = [m.name for m in modules(model) if isinstance(m, Quantizer) and m.mode == "quantize"]
        assert sorted(on) == sorted(["neck.up1.reduce", "neck.up1.upsample.weight"])
        raise RuntimeError
    assert float_layers(model) == ["backbone.stem.conv"]


def test_half_precision_and_other_devices_take_the_scales_along(quantized, images):
    model: Any = copy.deepcopy(quantized).double()
    assert model.backbone.stem.output.scale.dtype == torch.float64
    scores = decoded(model, images[:4].double())[1]
    assert scores.dtype == torch.float64 and (scores - decoded(quantized, images[:4])[1]).abs().mean() < 1e-3


def test_help_explains_the_public_names():
    text = pydoc.plain(pydoc.render_doc(yl.quantization.quantize)) + pydoc.plain(pydoc.render_doc(QuantConvAct))
    assert "A quantized copy" in text and "BatchNorm" in text
    assert all(getattr(yl.quantization, name).__doc__ for name in yl.quantization.__all__)
