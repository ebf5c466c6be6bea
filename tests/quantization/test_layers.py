import copy
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import yolonas_lab as yl
from yolonas_lab.quantization import (
    Histogram,
    Quantizer,
    QuantPolicy,
    calibrate,
    float_layers,
    quantizable_layers,
    quantize,
    quantized_only,
    set_float,
)
from yolonas_lab.quantization.layers import SharedQuantizer, activation_quantizers, quantizers


def calibrated(low, high, **settings):
    quantizer = Quantizer(**settings)
    quantizer.set_range(torch.tensor(low), torch.tensor(high))
    return quantizer


def names_in(mode, model):
    return [quantizer.name for quantizer in quantizers(model) if quantizer.mode == mode]


def test_passes_everything_until_it_has_a_grid():
    quantizer = Quantizer(bits=2)
    x = torch.randn(3, 4)
    assert quantizer(x) is x and not quantizer.calibrated and quantizer.mode == "off"
    quantizer.set_range(torch.tensor(-1.0), torch.tensor(1.0))
    assert quantizer.mode == "quantize" and set(quantizer(x).unique().tolist()) <= {-2.0, -1.0, 0.0, 1.0}
    quantizer.switch(False)
    assert quantizer(x) is x


def test_observing_shows_the_tensor_and_leaves_it():
    quantizer = calibrated(-1.0, 1.0, name="backbone.stem")
    quantizer.statistics, quantizer.mode = Histogram(), "observe"
    x = torch.tensor([-3.0, 5.0])
    assert quantizer(x) is x and (quantizer.statistics.low, quantizer.statistics.high) == (-3, 5)
    with pytest.raises(ValueError, match=r"backbone\.stem.*NaN"):
        quantizer(torch.tensor([1.0, float("nan")]))


@pytest.mark.parametrize(("symmetric", "bounds"), [(True, (-7, 7)), (False, (0, 15))])
def test_the_narrow_grid_of_a_weight_has_two_equal_sides(symmetric, bounds):
    quantizer = Quantizer(4, symmetric, narrow=True)
    assert (quantizer.low, quantizer.high) == bounds


@pytest.mark.parametrize(("symmetric", "kind"), [(True, torch.int8), (False, torch.uint8)])
def test_a_grid_goes_through_a_state_dict_and_is_used(symmetric, kind):
    settings: Any = {"symmetric": symmetric, "axis": 1, "channels": 3}
    quantizer = calibrated([-1.0, -2.0, -0.1], [3.0, 4.0, 0.2], **settings)
    fresh, off, empty = (Quantizer(**settings) for _ in range(3))
    fresh.load_state_dict(quantizer.state_dict())
    x = torch.randn(2, 3, 4, 4)
    assert fresh.mode == "quantize" and torch.equal(fresh(x), quantizer(x)) and fresh.zero_point.dtype == kind
    off.switch(False)
    off.load_state_dict(quantizer.state_dict())
    assert off.mode == "off"  # it was not wanted
    fresh.load_state_dict(empty.state_dict())
    assert fresh.mode == "off"


def test_a_shared_quantizer_is_saved_once_and_stays_shared_in_a_copy():
    owner = calibrated(-1.0, 1.0)
    both = nn.Sequential(owner, SharedQuantizer(owner))
    assert list(both.state_dict()) == ["0.scale", "0.zero_point"]
    copied: Any = copy.deepcopy(both)
    copied[0].set_range(torch.tensor(-8.0), torch.tensor(8.0))
    x = torch.tensor([5.0])
    assert copied[1](x) == copied[0](x) > 4 and both[1](x) == 1


class Weighted(nn.Module):
    """An activation quantized per tensor times a weight quantized per channel."""

    def __init__(self, symmetric):
        super().__init__()
        self.activation = calibrated(-1.0, 3.0, symmetric=symmetric)
        self.weight = nn.Parameter(torch.randn(3, 4))
        self.weight_quantizer = calibrated([-1.0] * 3, [1.0] * 3, bits=5, axis=0, channels=3, narrow=True)

    def forward(self, x):
        return self.activation(x) @ self.weight_quantizer(self.weight).T


@pytest.mark.slow
@pytest.mark.parametrize("symmetric", [True, False])
def test_becomes_standard_operators_that_compute_the_same(symmetric, tmp_path):
    torch.manual_seed(0)
    model = Weighted(symmetric).eval()
    model.weight_quantizer.stored = model.weight_quantizer.integers(model.weight)
    x = torch.randn(50, 4) * 2
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},)
    path, options = tmp_path / "weighted.onnx", onnxruntime.SessionOptions()
    torch.onnx.export(model, (x,), path, dynamo=True, opset_version=20, dynamic_shapes=shapes, verbose=False)
    graph = onnx.load(path).graph
    linear = sorted(n.op_type for n in graph.node if "Linear" in n.op_type)
    assert linear == ["DequantizeLinear", "DequantizeLinear", "QuantizeLinear"]
    stored = {i.name: i for i in graph.initializer}
    weight = next(n for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in stored)
    assert stored[weight.input[0]].data_type == onnx.TensorProto.INT8
    assert [a.i for a in weight.attribute if a.name == "axis"] == [0]
    assert not any(i.data_type == onnx.TensorProto.FLOAT and list(i.dims) == [3, 4] for i in graph.initializer)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for values in (x, x[:7]):
        (out,) = session.run(None, {session.get_inputs()[0].name: values.numpy()})
        torch.testing.assert_close(torch.from_numpy(out), model(values).detach(), rtol=0, atol=1e-5)


def test_all_layers_in_float_are_the_float_model_again(pico, int8, images):
    model, names = copy.deepcopy(int8), quantizable_layers(int8)
    set_float(model, names)
    assert float_layers(model) == names and not any(q.mode == "quantize" for q in activation_quantizers(model))
    with torch.inference_mode():
        for ours, theirs in zip(yl.models.decode(model(images)), yl.models.decode(pico(images))):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)
        set_float(model, ())
        assert float_layers(model) == [] and torch.equal(model(images).class_logits, int8(images).class_logits)


def test_a_float_layer_has_a_float_weight_and_frees_what_only_it_reads(pico, images):
    layer = "backbone.stages.0.downsample.conv"
    model = calibrate(quantize(pico, QuantPolicy(float_layers=(layer,))), [images])
    assert names_in("off", model) == ["backbone.stem", f"{layer}.weight"] and float_layers(model) == [layer]
    set_float(model, ["backbone.stages.0.csp.conv1.conv"])  # conv2 reads the same tensor
    assert names_in("off", model) == ["backbone.stages.0.csp.conv1.conv.weight"]


def test_quantized_only_is_undone_even_after_an_error(int8):
    model = copy.deepcopy(int8)
    set_float(model, ["backbone.stem.conv"])
    with pytest.raises(RuntimeError), quantized_only(model, ["neck.up1.upsample"]):
        assert names_in("quantize", model) == ["neck.up1.reduce", "neck.up1.upsample.weight"]
        raise RuntimeError
    assert float_layers(model) == ["backbone.stem.conv"]


def test_an_unknown_layer_names_the_nearest(pico, int8):
    for call in (
        lambda: quantize(pico, QuantPolicy(float_layers=("backbone.stem.con",))),
        lambda: set_float(int8, ["backbone.stem.con"]),
        lambda: quantized_only(int8, ["backbone.stem.con"]).__enter__(),
    ):
        with pytest.raises(ValueError, match=r"did you mean 'backbone\.stem\.conv'"):
            call()
    with pytest.raises(ValueError, match="Unknown layer"):
        quantize(pico, QuantPolicy(float_layers=("heads.levels.0.class_pred",)))  # always in float
    for call in (lambda: set_float(pico, []), lambda: float_layers(pico)):
        with pytest.raises(ValueError, match="not quantized"):
            call()
