# A network's modules are Tensor or Module to a type checker, whatever they are.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportIndexIssue=false

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from yolonas_lab.models import CONFIGS, RepVGGBlock, YoloNAS
from yolonas_lab.models.configs import with_block
from yolonas_lab.search import LAB_SPACE, config_of, largest, sample, smallest, with_blocks_of
from yolonas_lab.search.supernet import SUPERNET_SPACE, slice_state_dict, units_of, why_no_part

LARGEST = largest(SUPERNET_SPACE)


def shared(config=LARGEST, classes=3):
    """A network in which every tensor is different, BatchNorm's too."""
    torch.manual_seed(0)
    network = YoloNAS(config, classes)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) * 0.2 + 0.4 * (tensor.ndim == 1) - 0.1 * (tensor.ndim > 1))
    return network.eval()


def part(network, config):
    small = YoloNAS(config, network.num_classes).eval()
    small.load_state_dict(slice_state_dict(network.state_dict(), network.config, config))
    return small


def chosen(**choices):
    """The largest network with other choices in places such as "backbone/1/concat"."""
    decisions = {decision: options[-1] for decision, options in SUPERNET_SPACE.decisions.items()}
    return config_of(SUPERNET_SPACE, decisions | {name.replace("/", "."): value for name, value in choices.items()})


@pytest.mark.parametrize("seed", range(4))
def test_every_part_loads_strictly_and_runs(seed):
    config = sample(SUPERNET_SPACE, np.random.default_rng(seed))
    raw = part(shared(), config)(torch.rand(1, 3, 64, 64))
    assert raw.class_logits.shape == (1, 84, 3) and torch.isfinite(raw.box_logits).all()


@pytest.mark.parametrize("config", [smallest(SUPERNET_SPACE), CONFIGS["yolo_nas_pico"], CONFIGS["yolo_nas_nano"]])
def test_the_named_sizes_are_parts(config):
    assert why_no_part(LARGEST, config) is None
    part(shared(), config)


def test_the_largest_is_all_of_itself_without_a_copy():
    tensors = shared().state_dict()
    cut = slice_state_dict(tensors, LARGEST, LARGEST)
    assert cut.keys() == tensors.keys() and all(cut[name] is tensors[name] for name in tensors)


def test_repvgg_blocks_with_an_identity_norm_are_cut_too():
    space = with_blocks_of(LAB_SPACE, CONFIGS["yolo_nas_nano_repvgg"])
    part(shared(largest(space)), smallest(space))


def test_columns_of_a_concatenation_by_hand():
    config = chosen(**{"backbone/1/blocks": 2, "backbone/1/hidden_channels": 8})  # of 3 bottlenecks with 24
    name = "backbone.stages.1.csp.conv3.conv.weight"
    kernel = torch.arange(48 * 5 * 24).reshape(48, 5 * 24, 1, 1)
    cut = slice_state_dict({name: kernel}, LARGEST, config)[name]
    piece = [*range(0, 8), *range(24, 32), *range(48, 56), *range(96, 104)]  # conv1, two bottlenecks, conv2
    assert torch.equal(cut, kernel[:, piece])


def test_columns_without_a_concatenation_are_those_of_the_last_bottleneck_and_the_way_around():
    config = chosen(**{"backbone/1/blocks": 2, "backbone/1/concat": False})
    name = "backbone.stages.1.csp.conv3.conv.weight"
    kernel = torch.arange(48 * 5 * 24).reshape(48, 5 * 24, 1, 1)
    cut = slice_state_dict({name: kernel}, LARGEST, config)[name]
    assert torch.equal(cut, kernel[:, [*range(48, 72), *range(96, 120)]])


def test_columns_of_pyramid_down_stage_and_up_stage_by_hand():
    config = chosen(**{"backbone/3/out_channels": 96, "neck/2/out_channels": 24, "neck/1/out_channels": 16})
    kernels = {
        "backbone.spp.conv2.conv.weight": torch.rand(192, 4 * 96, 1, 1),
        "neck.down1.csp.conv1.conv.weight": torch.rand(24, 24 + 24, 1, 1),
        "neck.up2.reduce_concat.conv.weight": torch.rand(24, 3 * 24, 1, 1),
    }
    cut = slice_state_dict(kernels, LARGEST, config)
    pyramid, down, up = kernels.values()
    columns = [column for piece in range(4) for column in range(96 * piece, 96 * piece + 48)]
    assert torch.equal(cut["backbone.spp.conv2.conv.weight"], pyramid[:96, columns])
    assert torch.equal(cut["neck.down1.csp.conv1.conv.weight"], down[:, [*range(12), *range(24, 40)]])
    columns = [*range(16), *range(24, 40), *range(48, 64)]
    assert torch.equal(cut["neck.up2.reduce_concat.conv.weight"], up[:16, columns])


@pytest.mark.parametrize("seed", range(3))
def test_a_part_computes_what_the_largest_does_with_everything_else_silenced(seed):
    """The oracle: channels that a part lacks are switched off behind each BatchNorm, and no kernel is cut at all."""
    config = sample(SUPERNET_SPACE, np.random.default_rng(seed))
    network, images = shared(), torch.rand(1, 3, 64, 64)
    expected = part(network, config)(images)
    _silence(network, config)
    found = network(images)
    assert torch.allclose(found.class_logits, expected.class_logits, rtol=1e-4, atol=1e-4)
    assert torch.allclose(found.box_logits, expected.box_logits, rtol=1e-4, atol=1e-4)


def _silence(network, config):
    units = units_of(config)
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            unit = name
            while unit and unit not in units:
                unit = unit.rpartition(".")[0]
            if unit and units[unit].out is not None:
                module.weight.data[sum(units[unit].out.values()) :] = 0  # followed by ReLU: channels that are 0
                module.bias.data[sum(units[unit].out.values()) :] = 0
    for name, module in network.named_modules():
        if isinstance(module, nn.ConvTranspose2d):  # no BatchNorm: silenced in the kernel
            keep = units[name].out["map"]
            module.weight.data[:, keep:], module.bias.data[keep:] = 0, 0
    stages = [*network.backbone.stages, network.neck.up1, network.neck.up2, network.neck.down1, network.neck.down2]
    for stage, want in zip(stages, [*config.backbone, *config.neck], strict=True):
        kernel = stage.csp.conv3.conv.weight.data  # (c_out, pieces · hidden, 1, 1)
        hidden, pieces = stage.csp.conv1.bn.num_features, kernel.shape[1] // stage.csp.conv1.bn.num_features
        for piece in range(pieces - 1):  # the last one is the way around
            taken = piece <= want.blocks if want.concat else piece == want.blocks
            kernel[:, piece * hidden : (piece + 1) * hidden] *= taken


def test_gradients_reach_the_shared_kernel_and_only_its_part():
    network = shared()
    cut = slice_state_dict(dict(network.named_parameters()), LARGEST, smallest(SUPERNET_SPACE))
    sum(tensor.sum() for tensor in cut.values()).backward()
    stem = network.backbone.stem.branch3x3.conv.weight
    assert stem.grad[:8].eq(1).all() and stem.grad[8:].eq(0).all()
    assert network.backbone.stages[0].csp.bottlenecks[1].alpha.grad is None


def test_what_is_no_part_is_refused_with_the_reason():
    network = shared()
    twin = with_block(CONFIGS["yolo_nas_pico"], RepVGGBlock, "twin")
    with pytest.raises(ValueError, match=r"twin is no part of .*: stem_block is repvgg, and qarepvgg there"):
        slice_state_dict(network.state_dict(), LARGEST, twin)
    with pytest.raises(ValueError, match="reg_max is 16, and 8 there"):
        slice_state_dict(network.state_dict(), LARGEST, CONFIGS["yolo_nas_s"])
    wide = replace(CONFIGS["yolo_nas_nano"], head_channels=(24, 40, 64))
    with pytest.raises(ValueError, match=r"head_channels.1 is 40, and at most 32 there"):
        slice_state_dict(network.state_dict(), LARGEST, wide)
    nano = CONFIGS["yolo_nas_nano"]
    joined = replace(nano, backbone=(replace(nano.backbone[0], concat=True), *nano.backbone[1:]))
    assert why_no_part(nano, joined) == "backbone.0.concat is True, and at most False there."
