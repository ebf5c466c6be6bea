import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import yolonas_lab as yl
from yolonas_lab.models import CONFIGS
from yolonas_lab.teaching.lessons.nb04 import (
    by_part,
    count_layers,
    multiple_of_8,
    network_cost,
    scaled_config,
    time_parts,
)

S = CONFIGS["yolo_nas_s"]


def test_a_convolution_by_hand():
    layer = nn.Conv2d(3, 5, 3, stride=2, padding=1)
    (cost,) = count_layers(nn.Sequential(layer), (1, 3, 8, 10))
    # 5 outputs · 3 inputs · 9 weights, at 4 × 5 places
    assert cost.macs == 5 * 3 * 9 * 4 * 5
    assert cost.parameters == 5 * 3 * 9 + 5
    assert cost.name == "0" and cost.output_shape == (1, 5, 4, 5)
    (without_bias,) = count_layers(nn.Sequential(nn.Conv2d(3, 5, 3, stride=2, padding=1, bias=False)), (1, 3, 8, 10))
    assert without_bias.parameters == 5 * 3 * 9 and without_bias.macs == cost.macs


def test_a_transposed_convolution_by_hand():
    (cost,) = count_layers(nn.Sequential(nn.ConvTranspose2d(4, 6, 2, stride=2)), (1, 4, 3, 5))
    # every one of the 3 × 5 input cells meets all 4 · 6 · 2 · 2 weights once
    assert cost.macs == 4 * 6 * 4 * 3 * 5
    assert cost.output_shape == (1, 6, 6, 10)


def test_a_batch_does_not_change_the_count_for_one_image():
    model = nn.Sequential(nn.Conv2d(2, 3, 1))
    assert count_layers(model, (4, 2, 5, 5))[0].macs == count_layers(model, (1, 2, 5, 5))[0].macs == 6 * 25


@pytest.mark.parametrize("name", ["yolo_nas_pico", "yolo_nas_nano", "yolo_nas_s"])
def test_macs_equal_those_of_pytorchs_flop_counter(name):
    model = yl.models.reparameterize(yl.models.get(name))
    with FlopCounterMode(display=False) as counter:
        model(torch.rand(1, 3, 64, 96))  # with gradients, so that no fast path hides a convolution
    macs = sum(cost.macs for cost in count_layers(model, (1, 3, 64, 96)))
    assert macs == counter.get_total_flops() // 2


@pytest.mark.parametrize("name", ["yolo_nas_nano", "yolo_nas_m"])
def test_network_cost_is_that_of_the_reparameterized_model(name):
    with torch.device("meta"):
        model = yl.models.YoloNAS(CONFIGS[name], 7)
    assert network_cost(CONFIGS[name], 96, 7) == count_layers(yl.models.reparameterize(model), (1, 3, 96, 96))


def test_published_parameters_of_s():
    total = sum(cost.parameters for cost in network_cost(S, 64))
    assert round(total / 1e6, 2) == 12.17
    fused = yl.models.reparameterize(yl.models.get("yolo_nas_s"))
    assert total == sum(p.numel() for n, p in fused.named_parameters() if not n.endswith("alpha"))


def test_macs_grow_with_the_area_and_parameters_do_not():
    small, large = network_cost(S, 64), network_cost(S, 128)
    assert [4 * a.macs for a in small] == [b.macs for b in large]
    assert [a.parameters for a in small] == [b.parameters for b in large]


def test_the_model_given_is_left_untouched():
    model = yl.models.reparameterize(yl.models.get("yolo_nas_pico"))
    count_layers(model, (1, 3, 32, 32))
    assert all(p.device.type == "cpu" for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


def test_a_convolution_that_is_never_called_is_named():
    with pytest.raises(ValueError, match=r"5 convolutions were never called as modules .*re-parameterized"):
        count_layers(yl.models.get("yolo_nas_pico"), (1, 3, 64, 64))


def test_parts_add_up_and_strangers_are_named():
    costs = network_cost(S, 64)
    parts = by_part(costs)
    assert sum(p for p, _ in parts.values()) == sum(c.parameters for c in costs)
    assert sum(m for _, m in parts.values()) == sum(c.macs for c in costs)
    assert parts["stem"] == (9 * 3 * 48 + 48, 9 * 3 * 48 * 32 * 32)
    with pytest.raises(ValueError, match=r"layer neck\.\S+ belongs to none"):
        by_part(costs, {"backbone": "backbone"})


def test_times_are_positive_and_hooks_are_taken_off():
    model = yl.models.reparameterize(yl.models.get("yolo_nas_pico"))
    times = time_parts(model, torch.rand(1, 3, 32, 32), rounds=3)
    assert list(times) == ["stem", "stages", "SPP", "neck", "heads"]
    assert all(len(values) == 3 and sum(values) > 0 for values in times.values())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_hooks_are_taken_off_after_an_error_too():
    model = yl.models.reparameterize(yl.models.get("yolo_nas_pico"))
    with pytest.raises(ValueError, match="multiples of 32"):
        time_parts(model, torch.rand(1, 3, 33, 32), rounds=1)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_channels_are_rounded_to_multiples_of_8():
    assert [multiple_of_8(c) for c in (1, 8, 11.9, 12, 44, 768.1)] == [8, 8, 8, 16, 48, 768]


def test_scaling_by_one_changes_nothing_but_the_name():
    same = scaled_config(S, 1, 1)
    assert (same.backbone, same.neck, same.head_channels) == (S.backbone, S.neck, S.head_channels)
    assert same.stem_channels == S.stem_channels


def test_scaled_networks_run():
    config = scaled_config(S, depth=0.4, width=0.25)
    assert [s.blocks for s in config.backbone] == [1, 1, 2, 1]
    assert [s.out_channels for s in config.backbone] == [24, 48, 96, 192]
    raw = yl.models.YoloNAS(config, 3).eval()(torch.zeros(1, 3, 64, 64))
    assert raw.class_logits.shape == (1, 84, 3)
    deeper = scaled_config(S, depth=2, width=1)
    assert [s.blocks for s in deeper.neck] == [4, 4, 4, 4]


@pytest.mark.parametrize(("depth", "width"), [(0, 1), (1, -0.5)])
def test_multipliers_must_be_positive(depth, width):
    with pytest.raises(ValueError, match="must be above 0"):
        scaled_config(S, depth, width)
