"""The blocks: shapes, and that the faster forms compute what the plain ones do."""

import pytest
import torch
from torch import nn

from yolonas_lab.models import blocks
from yolonas_lab.models.blocks import ConvBN, ConvBNAct, InferenceConv2d, QARepVGGBlock, RepVGGBlock


@pytest.mark.parametrize("block", [ConvBNAct, RepVGGBlock, QARepVGGBlock])
@pytest.mark.parametrize(("c_in", "c_out", "stride"), [(8, 8, 1), (8, 16, 1), (8, 8, 2), (3, 16, 2)])
def test_blocks_keep_or_halve_the_map_and_have_the_published_batch_norms(block, c_in, c_out, stride):
    made = block(c_in, c_out, stride=stride)
    y = made(torch.rand(2, c_in, 12, 16))
    assert y.shape == (2, c_out, 12 // stride, 16 // stride) and (y >= 0).all()  # all end in a ReLU
    norms = [m for m in made.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(bn.eps == 1e-3 and bn.momentum == 0.03 for bn in norms)


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("layer", [nn.Conv2d(4, 6, 1, stride=2), ConvBN(4, 6, 1, stride=2)])
def test_sliced_pointwise_equals_the_strided_convolution(size, layer):
    x, layer = torch.rand(2, 4, size, size, dtype=torch.float64), layer.double().eval()
    torch.testing.assert_close(blocks.pointwise(layer, x), layer(x))


@pytest.mark.parametrize("threshold", [0, 10**9])  # always oneDNN, never oneDNN
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_every_route_of_inference_computes_the_same_convolution(monkeypatch, threshold, kernel, stride, layout):
    monkeypatch.setattr(blocks, "ONEDNN_WORTHWHILE", threshold)
    torch.manual_seed(0)
    conv = InferenceConv2d(6, 10, (kernel, kernel), (stride, stride), (kernel // 2, kernel // 2))
    conv.weight.data = conv.weight.data.contiguous(memory_format=layout)
    x = torch.randn(2, 6, 11, 14).to(memory_format=layout)
    expected = nn.functional.conv2d(x, conv.weight, conv.bias, stride, kernel // 2)
    with torch.inference_mode():
        torch.testing.assert_close(conv(x), expected, rtol=1e-5, atol=1e-5)


def test_training_float64_and_autocast_take_the_plain_route():
    x, conv = torch.rand(1, 3, 4, 4), InferenceConv2d(3, 4, 1)
    assert not blocks.takes_fast_path(x)  # gradients are on
    conv(x).sum().backward()
    assert conv.weight.grad is not None and conv.weight.grad.abs().sum() > 0
    with torch.no_grad():
        assert blocks.takes_fast_path(x) == torch.backends.mkldnn.is_available()
        assert not blocks.takes_fast_path(x.double())
        with torch.autocast("cpu", torch.bfloat16):
            assert not blocks.takes_fast_path(x)
