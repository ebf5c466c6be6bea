import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_space import TINY, seeded
from torch import nn
from yolonas_lab.quantization.latency import layer_shapes

import yolonas_lab as yl
from yolonas_lab.latency import parse_layer
from yolonas_lab.models import CONFIGS, YoloNAS, reparameterize
from yolonas_lab.models.yolo_nas import Bottleneck
from yolonas_lab.search import (
    FULL_SPACE,
    LAB_SPACE,
    Layer,
    config_of,
    count_macs,
    network_layers,
    sample,
    space_layers,
)
from yolonas_lab.teaching.lessons.nb04 import network_cost


def observed(config, image_size, num_classes):
    """What the re-parameterized network really runs, seen from outside: its modules by hooks, its concatenations by
    their shape.
    """
    model = yl.models.reparameterize(YoloNAS(config, num_classes)).eval()
    seen, handles = {}, []

    def note(name):
        def hook(module, inputs, output):
            (_, c_in, size, _), c_out = inputs[0].shape, output.shape[1]
            if isinstance(module, nn.MaxPool2d):
                seen[name] = Layer("pool", c_in, c_out, module.kernel_size, 1, size)  # type: ignore[arg-type]
            elif isinstance(module, Bottleneck):
                seen[name] = Layer("add", c_in, c_out, 1, 1, size)
            elif isinstance(module, nn.ConvTranspose2d):
                seen[name] = Layer("upsample", c_in, c_out, module.kernel_size[0], module.stride[0], size)
            else:
                kind = "predict" if name.endswith("_pred") else "conv"
                seen[name] = Layer(kind, c_in, c_out, module.kernel_size[0], module.stride[0], size)

        return hook

    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d, Bottleneck)):
            handles.append(module.register_forward_hook(note(name)))
    concatenated, cat = [], torch.cat

    def counting_cat(tensors, dim=0):
        out = cat(tensors, dim)
        if out.ndim == 4:
            concatenated.append(Layer("concat", out.shape[1], out.shape[1], 1, 1, out.shape[2]))
        return out

    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(torch, "cat", counting_cat)
        model(torch.zeros(1, 3, image_size, image_size))
    return seen, concatenated


def assert_as_observed(config, image_size, num_classes):
    layers = network_layers(config, image_size, num_classes)
    seen, concatenated = observed(config, image_size, num_classes)
    assert {name: layer for name, layer in layers.items() if layer.kind != "concat"} == seen
    assert sorted(layer for layer in layers.values() if layer.kind == "concat") == sorted(concatenated)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), image_size=st.sampled_from([32, 64, 96]))
def test_the_list_is_what_the_network_runs(seed, image_size):
    assert_as_observed(sample(LAB_SPACE, seeded(seed)), image_size, num_classes=3)


def test_the_list_of_m_is_what_m_runs():
    assert_as_observed(CONFIGS["yolo_nas_m"], 64, num_classes=80)


def test_names_and_shapes_agree_with_the_quantizable_layers():
    config = CONFIGS["yolo_nas_nano"]
    layers = network_layers(config, 64, num_classes=3)
    for name, shape in layer_shapes(YoloNAS(config, 3).eval(), 64).items():
        layer = layers[name]
        assert (layer.in_channels, layer.out_channels, layer.kernel) == shape[:3]
        assert (layer.stride, layer.size, layer.macs) == (shape.stride, shape.height, shape.macs)


@pytest.mark.parametrize("space, size", [(LAB_SPACE, 96), (FULL_SPACE, 640)])
def test_multiply_accumulates_are_those_that_hooks_count(space, size):
    config = sample(space, seeded(2))
    macs = count_macs(network_layers(config, size, 7).values())
    assert macs == sum(cost.macs for cost in network_cost(config, size, 7)) > 0


def test_multiply_accumulates_by_hand():
    assert Layer("conv", 5, 7, 3, 2, 8).macs == 5 * 7 * 9 * 4 * 4
    assert Layer("upsample", 5, 7, 2, 2, 4).macs == 5 * 7 * 4 * 4 * 4  # each input pixel meets each weight once
    assert Layer("pool", 5, 5, 9, 1, 8).macs == Layer("add", 5, 5, 1, 1, 8).macs == 0


def test_block_types_make_no_difference_once_fused():
    pico, twin = (network_layers(CONFIGS[name], 64) for name in ("yolo_nas_pico", "yolo_nas_pico_repvgg"))
    assert pico == twin


def test_the_layers_of_a_space_by_brute_force():
    names, options = zip(*TINY.decisions.items())
    every = set()
    for chosen in itertools.product(*options):
        every |= set(network_layers(config_of(TINY, dict(zip(names, chosen))), 64, 2).values())
    found = space_layers(TINY, 64, 2)
    assert set(found) == every and len(found) == len(every)


@pytest.mark.parametrize("space", [LAB_SPACE, FULL_SPACE])
def test_no_network_has_a_layer_that_its_space_lacks(space):
    known, rng = set(space_layers(space, 64, 6)), seeded()
    for _ in range(150):
        assert known.issuperset(network_layers(sample(space, rng), 64, 6).values())


def test_a_layer_survives_its_text():
    assert str(Layer("conv", 16, 24, 3, 2, 32)) == "conv 16→24 3×3/2 at 32 px"
    for layer in space_layers(TINY, 64, 2):
        assert parse_layer(str(layer)) == layer


@pytest.mark.parametrize("text", ["conv 16→24 3×5/2 at 32 px", "gemm 1→1 1×1/1 at 1 px", "conv", ""])
def test_another_text_is_no_layer(text):
    with pytest.raises(ValueError, match="is not an operation such as 'conv 16→24"):
        parse_layer(text)


@pytest.mark.parametrize("size", [0, 16, 100])
def test_a_bad_image_size_is_named(size):
    with pytest.raises(ValueError, match=f"image_size must be a multiple of 32 px, but is {size}"):
        network_layers(CONFIGS["yolo_nas_pico"], size)


def test_the_weights_of_a_network_are_the_parameters_of_its_kernels():
    config = CONFIGS["yolo_nas_pico"]
    fused = reparameterize(YoloNAS(config, 6).eval())
    kernels = sum(p.numel() for p in fused.parameters() if p.ndim == 4)
    assert sum(layer.weights for layer in network_layers(config, 64, 6).values()) == kernels
