from dataclasses import replace
from typing import Any

import pytest
import torch

import yolonas_lab as yl
from yolonas_lab.models.blocks import ConvAct
from yolonas_lab.models.configs import CONFIGS
from yolonas_lab.models.yolo_nas import YoloNAS
from yolonas_lab.quantization import ScaleGroup, quantizable_layers, scale_groups


def groups_of(model):
    return {group.writers[0]: group for group in scale_groups(model)}


@pytest.fixture(scope="module")
def pico():
    torch.manual_seed(0)
    return yl.models.reparameterize(yl.models.get("yolo_nas_pico", num_classes=3))


def test_every_quantizable_layer_reads_one_scale_and_prediction_layers_none(pico):
    readers = [reader for group in scale_groups(pico) for reader in group.readers]
    assert sorted(readers) == sorted(quantizable_layers(pico)) and not any("pred" in reader for reader in readers)
    writers = [writer for group in scale_groups(pico) for writer in group.writers]
    assert len(writers) == len(set(writers))


def test_a_plain_tensor_has_one_writer_and_several_readers(pico):
    groups = groups_of(pico)
    assert groups["image"].readers == ("backbone.stem.conv",)
    group = groups["backbone.stages.1.downsample"]
    assert group.writers == ("backbone.stages.1.downsample",)
    assert group.readers == ("backbone.stages.1.csp.conv1.conv", "backbone.stages.1.csp.conv2.conv")
    head = groups["heads.levels.0.stem"]
    assert head.readers == ("heads.levels.0.class_conv.conv", "heads.levels.0.box_conv.conv")
    assert "heads.levels.0.class_conv" not in groups  # only the prediction layer reads it


def test_what_meets_in_a_concatenation_shares_a_scale(pico):
    groups = groups_of(pico)
    csp = "backbone.stages.0.csp"  # the bottleneck's sum and conv2; conv1 is read by the bottleneck alone
    assert set(groups[f"{csp}.bottlenecks.0"].writers) == {f"{csp}.bottlenecks.0", f"{csp}.conv2"}
    assert groups[f"{csp}.conv1"].readers == (f"{csp}.bottlenecks.0.block1.conv",)
    # The pyramid: pools keep the scale of their input, so that one writer is left.
    assert groups["backbone.spp.conv1"].writers == ("backbone.spp.conv1",)
    assert groups["backbone.spp.conv1"].readers == ("backbone.spp.conv2.conv",)
    up = {"neck.up1.upsample", "neck.up1.reduce_skip", "neck.up1.downsample_fine_skip"}
    assert [set(g.writers) for g in scale_groups(pico) if up & set(g.writers)] == [up]
    # The reduced map is read by the upsampling, and meets the down path in a concatenation far away.
    assert groups["neck.up1.reduce"].writers == ("neck.up1.reduce", "neck.down2.downsample")
    assert set(groups["neck.up1.reduce"].readers) == {
        "neck.up1.upsample", "neck.down2.csp.conv1.conv", "neck.down2.csp.conv2.conv"
    }  # fmt: skip


def test_pooling_keeps_the_scale_of_its_input():
    convs = [ConvAct(torch.nn.Conv2d(3, 3, 1)) for _ in range(2)]
    model = torch.nn.Sequential(convs[0], torch.nn.MaxPool2d(2), convs[1])
    assert scale_groups(model)[1] == ScaleGroup(writers=("0",), readers=("2.conv",))


def test_a_layer_that_concatenates_all_its_bottlenecks_has_one_scale_for_all(pico):
    config = CONFIGS["yolo_nas_pico"]
    first = replace(config.backbone[0], blocks=3, concat=True)
    model = yl.models.reparameterize(YoloNAS(replace(config, backbone=(first, *config.backbone[1:])), 3))
    csp = "backbone.stages.0.csp"
    assert set(groups_of(model)[f"{csp}.conv1"].writers) == {
        f"{csp}.conv1", f"{csp}.conv2", *(f"{csp}.bottlenecks.{i}" for i in range(3))
    }  # fmt: skip


@pytest.mark.parametrize("name", ["yolo_nas_nano", "yolo_nas_s", "yolo_nas_m"])
def test_block_fused_and_fused_models_of_any_size_have_the_same_groups(name):
    model = yl.models.get(name, num_classes=2)
    block_fused = yl.models.fuse_blocks(model)
    assert scale_groups(block_fused) == scale_groups(yl.models.reparameterize(model))
    layers = quantizable_layers(block_fused)
    assert layers == quantizable_layers(model) and len(layers) == len(set(layers))


def test_watching_leaves_no_trace(pico):
    model: Any = yl.models.fuse_blocks(pico)
    model.train()
    model.heads.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    scale_groups(model)
    assert model.training and model.neck.training and not model.heads.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
