import pytest
import torch
from torch import nn

from yolonas_lab.models import blocks as inference_conv
from yolonas_lab.models.blocks import InferenceConv2d, takes_fast_path


@pytest.mark.parametrize("threshold", [0, 10**9])  # always oneDNN, never oneDNN
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_every_route_computes_the_same_convolution(monkeypatch, threshold, kernel, stride, layout):
    monkeypatch.setattr(inference_conv, "ONEDNN_WORTHWHILE", threshold)
    torch.manual_seed(0)
    conv = InferenceConv2d(6, 10, (kernel, kernel), (stride, stride), (kernel // 2, kernel // 2))
    conv.weight.data = conv.weight.data.contiguous(memory_format=layout)
    x = torch.randn(2, 6, 11, 14).to(memory_format=layout)
    expected = nn.functional.conv2d(x, conv.weight, conv.bias, stride, kernel // 2)
    with torch.inference_mode():
        torch.testing.assert_close(conv(x), expected, rtol=1e-5, atol=1e-5)


def test_training_float64_and_autocast_take_the_plain_route():
    x = torch.rand(1, 3, 4, 4)
    assert not takes_fast_path(x)  # gradients are on
    with torch.no_grad():
        assert takes_fast_path(x) == torch.backends.mkldnn.is_available()
        assert not takes_fast_path(x.double())
        with torch.autocast("cpu", torch.bfloat16):
            assert not takes_fast_path(x)


def test_gradients_flow():
    conv = InferenceConv2d(3, 4, 1)
    conv(torch.rand(1, 3, 4, 4)).sum().backward()
    assert conv.weight.grad is not None and conv.weight.grad.abs().sum() > 0
