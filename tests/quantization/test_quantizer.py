import copy
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from yolonas_lab.quantization import Histogram, Quantizer
from yolonas_lab.quantization.layers import Borrowed


def calibrated(low, high, **settings):
    quantizer = Quantizer(**settings)
    quantizer.set_range(torch.tensor(low), torch.tensor(high))
    return quantizer


def test_passes_everything_until_it_has_a_grid():
    quantizer = Quantizer(bits=2)
    x = torch.randn(3, 4)
    assert quantizer(x) is x and not quantizer.calibrated and quantizer.mode == "off"
    quantizer.set_range(torch.tensor(-1.0), torch.tensor(1.0))
    assert quantizer.mode == "quantize" and set(quantizer(x).unique().tolist()) <= {-2.0, -1.0, 0.0, 1.0}
    quantizer.switch(False)
    assert quantizer(x) is x


def test_observing_shows_the_tensor_and_leaves_it():
    quantizer = calibrated(-1.0, 1.0)
    quantizer.statistics, quantizer.mode = Histogram(), "observe"
    x = torch.tensor([-3.0, 5.0])
    assert quantizer(x) is x and (quantizer.statistics.low, quantizer.statistics.high) == (-3, 5)


def test_names_the_tensor_that_holds_nan():
    quantizer = Quantizer(name="backbone.stem")
    quantizer.statistics, quantizer.mode = Histogram(), "observe"
    with pytest.raises(ValueError, match=r"backbone\.stem.*NaN"):
        quantizer(torch.tensor([1.0, float("nan")]))


@pytest.mark.parametrize(("symmetric", "bounds"), [(True, (-7, 7)), (False, (0, 15))])
def test_the_narrow_grid_of_a_weight_has_two_equal_sides(symmetric, bounds):
    quantizer = Quantizer(4, symmetric, narrow=True)
    assert (quantizer.low, quantizer.high) == bounds


@pytest.mark.parametrize(("symmetric", "kind"), [(True, torch.int8), (False, torch.uint8)])
def test_a_grid_goes_through_a_state_dict_and_is_used(symmetric, kind):
    quantizer = calibrated([-1.0, -2.0, -0.1], [3.0, 4.0, 0.2], symmetric=symmetric, axis=1, channels=3)
    fresh = Quantizer(symmetric=symmetric, axis=1, channels=3)
    fresh.load_state_dict(quantizer.state_dict())
    x = torch.randn(2, 3, 4, 4)
    assert fresh.mode == "quantize" and torch.equal(fresh(x), quantizer(x)) and fresh.zero_point.dtype == kind
    off = Quantizer(symmetric=symmetric, axis=1, channels=3)
    off.switch(False)
    off.load_state_dict(quantizer.state_dict())
    assert off.mode == "off"  # it was not wanted
    empty = Quantizer(symmetric=symmetric, axis=1, channels=3)
    empty.load_state_dict(Quantizer(symmetric=symmetric, axis=1, channels=3).state_dict())
    assert empty.mode == "off"


def test_a_borrowed_quantizer_is_saved_once_and_stays_shared_in_a_copy():
    owner = calibrated(-1.0, 1.0)
    both = nn.Sequential(owner, Borrowed(owner))
    assert list(both.state_dict()) == ["0.scale", "0.zero_point"]
    copied: Any = copy.deepcopy(both)
    assert copied[1].quantizer is copied[0] and copied[0] is not owner
    assert copied.half()[1].quantizer.scale.dtype == torch.float16


class Weighted(nn.Module):
    """An activation quantized per tensor times a weight quantized per channel."""

    def __init__(self, symmetric):
        super().__init__()
        self.activation = calibrated(-1.0, 3.0, symmetric=symmetric)
        self.weight = nn.Parameter(torch.randn(3, 4))
        self.weight_quantizer = calibrated([-1.0] * 3, [1.0] * 3, bits=5, axis=0, channels=3, narrow=True)

    def forward(self, x):
        return self.activation(x) @ self.weight_quantizer(self.weight).T


@pytest.mark.parametrize("symmetric", [True, False])
def test_becomes_standard_operators_that_compute_the_same(symmetric, tmp_path):
    torch.manual_seed(0)
    model = Weighted(symmetric).eval()
    model.weight_quantizer.stored = model.weight_quantizer.integers(model.weight)
    x = torch.randn(50, 4) * 2
    batch = torch.export.Dim("batch", min=1, max=64)
    path = tmp_path / "weighted.onnx"
    torch.onnx.export(
        model,
        (x,),
        path,
        dynamo=True,
        opset_version=20,
        dynamic_shapes=({0: batch},),
        external_data=False,
        verbose=False,
    )
    graph = onnx.load(path).graph
    assert sorted(n.op_type for n in graph.node if "Linear" in n.op_type) == [
        "DequantizeLinear", "DequantizeLinear", "QuantizeLinear"
    ]  # fmt: skip
    stored = {i.name: i for i in graph.initializer}
    weight = next(n for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in stored)
    assert stored[weight.input[0]].data_type == onnx.TensorProto.INT8
    assert [a.i for a in weight.attribute if a.name == "axis"] == [0]
    assert not any(i.data_type == onnx.TensorProto.FLOAT and list(i.dims) == [3, 4] for i in graph.initializer)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for values in (x, x[:7]):
        (out,) = session.run(None, {session.get_inputs()[0].name: values.numpy()})
        torch.testing.assert_close(torch.from_numpy(out), model(values).detach(), rtol=0, atol=1e-5)


def test_fewer_bits_cannot_be_exported_as_an_activation():
    quantizer = calibrated(-1.0, 1.0, bits=4, name="stem")
    with pytest.raises(ValueError, match=r"stem has 4 bits.*activation_bits=8"):
        torch.export.export(quantizer, (torch.randn(3),), strict=False)
