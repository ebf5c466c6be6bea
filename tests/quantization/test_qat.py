import copy
import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import nn

import yolonas_lab as yl
from yolonas_lab.models import fuse_blocks
from yolonas_lab.quantization import (
    Quantizer,
    QuantPolicy,
    calibrate,
    fine_tune,
    qat_recipe,
    quantize,
    set_float,
)
from yolonas_lab.quantization.qat import learned_scales
from yolonas_lab.training import COCO_S, FINE_TUNE, LAB, Hooks, TrainConfig

W4 = QuantPolicy(weight_bits=4, per_channel=False)


@pytest.fixture(scope="module")
def start(scenes, pico):
    """A calibrated pico with 4-bit weights, as quantized after training."""
    return calibrate(quantize(pico, W4), scenes[0], max_images=32)


def config(**changes) -> TrainConfig:
    settings = {"steps": 6, "batch_size": 8, "warmup_steps": 1, "evaluate_every": None} | changes
    return dataclasses.replace(qat_recipe(LAB), **settings)


def grid_of(model):
    return {name: value.clone() for name, value in model.state_dict().items() if name.endswith(("scale", "zero_point"))}


def norms(model) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def test_the_recipe_by_hand():
    lab, coco, tuned = qat_recipe(LAB), qat_recipe(COCO_S, lr_ratio=0.01), qat_recipe(FINE_TUNE)
    assert (lab.steps, lab.epochs, lab.warmup_steps) == (160, None, 5)
    assert lab.lr == pytest.approx(5e-4) and lab.final_lr_ratio == 0.01 and lab.box_bias_slope is None
    assert (coco.steps, coco.epochs, coco.warmup_steps) == (None, 30, 100) and coco.lr == pytest.approx(2e-6)
    assert tuned.epochs == 10 and tuned.warmup_epochs == pytest.approx(0.3)
    assert lab.ema_decay == LAB.ema_decay and lab.batch_size == LAB.batch_size
    assert qat_recipe(dataclasses.replace(LAB, out_dir="runs/x")).out_dir is None
    assert qat_recipe(dataclasses.replace(LAB, steps=3)).steps == 1


@pytest.mark.slow
def test_it_gets_back_ap_and_the_model_stays_on_its_grid(scenes, start):
    train_set, val_set = scenes
    qmodel = copy.deepcopy(start)
    grid = grid_of(qmodel)
    before = yl.evaluate.evaluate(qmodel, val_set, progress=False).ap
    history = fine_tune(qmodel, train_set, val_set, config(steps=48, warmup_steps=4))
    loss = history.column("total")
    assert loss[-12:].mean() < 0.95 * loss[:6].mean()
    assert history.last_ap > before + 0.03
    assert all(torch.equal(value, grid[name]) for name, value in grid_of(qmodel).items())  # through the average, too
    moved = 0
    for name, module in qmodel.named_modules():
        if isinstance(getattr(module, "weight_quantizer", None), Quantizer):
            quantizer = module.weight_quantizer
            steps = quantizer(module.weight) / quantizer.scale
            torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-4)
            assert steps.unique().numel() <= 15 and steps.abs().max() <= 7.001
            moved += not torch.equal(module.weight, start.get_submodule(name).weight)
    assert moved == len(yl.quantization.quantizable_layers(qmodel))


def test_float_layers_stay_float(scenes, start):
    qmodel = copy.deepcopy(start)
    set_float(qmodel, ["backbone.stem.conv"])
    fine_tune(qmodel, scenes[0], None, config(steps=2), scales="learned")
    modes = {q.name: q.mode for q in qmodel.modules() if isinstance(q, Quantizer)}
    assert modes.pop("backbone.stem.conv.weight") == "off"
    assert modes.pop("image") == "off" and set(modes.values()) == {"quantize"}


@pytest.mark.slow
def test_learned_scales_move_and_are_buffers_again(scenes, start):
    qmodel = copy.deepcopy(start)
    grid = grid_of(qmodel)
    fine_tune(qmodel, scenes[0], None, config(), scales="learned")
    after = grid_of(qmodel)
    assert after.keys() == grid.keys() and not [n for n, _ in qmodel.named_parameters() if "scale" in n]
    scales = [name for name in grid if name.endswith("scale")]
    changes = torch.stack([(after[name] / grid[name]).log().abs() for name in scales])
    assert (changes > 0).float().mean() > 0.95 and changes.max() < 6 * 5e-4 * 1.01  # Adam's steps are at most lr long
    assert all(torch.equal(after[name], grid[name]) for name in grid if name.endswith("zero_point"))


def test_the_gradient_of_a_learned_scale():
    """Against the numerical one of the loss in which rounding is taken as the identity (LSQ, section 2.1)."""
    quantizer = Quantizer(4)
    quantizer.set_range(torch.tensor(-1.4), torch.tensor(1.4))
    x = torch.tensor([0.31, -0.55, 3.0, -9.0, 1.39])
    model = nn.Sequential(quantizer)
    with learned_scales(model):
        assert isinstance(model[0].scale, torch.Tensor) and model[0].scale.item() == pytest.approx(0.2)
        (model[0](x) * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])).sum().backward()
        (log_scale,) = model[0].parameters()
        # round(x / s) - x / s inside, the bound outside; times ds / dlog s = s.
        slopes = [2 - 1.55, -3 + 2.75, 7, -8, 7 - 6.95]
        expected = 0.2 * sum(weight * slope for weight, slope in zip((1, 2, 3, 4, 5), slopes))
        assert log_scale.grad is not None and log_scale.grad.item() == pytest.approx(expected, rel=1e-4)
    assert not list(model.parameters()) and quantizer.scale.item() == pytest.approx(0.2)


class Stopped(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("scales", ["fixed", "learned"])
def test_a_stopped_fine_tuning_goes_on_bit_for_bit(scenes, pico, scales, tmp_path):
    """A block-fused model, whose BatchNorms are frozen halfway: stopped after that, it must go on with them frozen."""
    base = calibrate(quantize(fuse_blocks(pico), W4), scenes[0], max_images=16)
    whole, halves = copy.deepcopy(base), copy.deepcopy(base)
    fine_tune(whole, scenes[0], None, config(), scales)

    def stop(state):
        if state.step == 5:
            raise Stopped

    settings = config(out_dir=tmp_path, checkpoint_every=4)
    with pytest.raises(Stopped):
        fine_tune(halves, scenes[0], None, settings, scales, hooks=Hooks(on_step=stop))
    fine_tune(halves, scenes[0], None, settings, scales)
    expected = whole.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in halves.state_dict().items())


@pytest.mark.slow
def test_a_checkpoint_of_another_grid_is_refused(scenes, start, pico, tmp_path):
    fine_tune(copy.deepcopy(start), scenes[0], None, config(steps=2, out_dir=tmp_path))
    other = calibrate(quantize(pico, dataclasses.replace(W4, weight_bits=8)), scenes[0], max_images=16)
    with pytest.raises(ValueError, match="differs in grids"):
        fine_tune(other, scenes[0], None, config(steps=2, out_dir=tmp_path))
    with pytest.raises(ValueError, match="differs in freeze_bn_after"):
        fine_tune(copy.deepcopy(start), scenes[0], None, config(steps=2, out_dir=tmp_path), freeze_bn_after=0.1)


@pytest.mark.parametrize("share, updates", [(0.0, 0), (0.5, 3), (1.0, 6)])
def test_batch_norm_is_frozen_after_its_share_of_the_steps(scenes, pico, share, updates):
    qmodel = calibrate(quantize(fuse_blocks(pico), W4), scenes[0], max_images=16)
    before = int(norms(qmodel)[0].num_batches_tracked)
    states = []
    hooks = Hooks(on_step=lambda state: states.append(state.step))
    fine_tune(qmodel, scenes[0], None, config(), freeze_bn_after=share, hooks=hooks)
    assert norms(qmodel) and {int(n.num_batches_tracked) - before for n in norms(qmodel)} == {updates}
    assert states == [1, 2, 3, 4, 5, 6]  # the caller's own on_step is called as well


def test_bad_input_is_refused(scenes, start, pico):
    with pytest.raises(ValueError, match="not quantized"):
        fine_tune(copy.deepcopy(pico), scenes[0], None, config())
    with pytest.raises(ValueError, match="no range, such as"):
        fine_tune(quantize(pico, W4), scenes[0], None, config())
    with pytest.raises(ValueError, match="did you mean 'learned'"):
        fine_tune(copy.deepcopy(start), scenes[0], None, config(), scales="learnt")
    for share in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match="freeze_bn_after"):
            fine_tune(copy.deepcopy(start), scenes[0], None, config(), freeze_bn_after=share)
