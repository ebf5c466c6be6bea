"""Exported files compute what the models compute, carry what a detector needs, and are written whole or not at all."""

import copy
import json
import re
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from exports import cpu_nano, float_nano, int8_nano, nano, noise, open_pico, pico, quantized_nano, scene_images, scenes
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

import yolonas_lab as yl
from yolonas_lab.deployment import OnnxDetector, check_qdq, export_onnx, quantized_layers
from yolonas_lab.deployment.export import KEY, ExportInfo, read_info, write_info
from yolonas_lab.deployment.onnx_graph import load_onnx, metadata_of
from yolonas_lab.models import decode
from yolonas_lab.quantization import Quantizer, QuantPolicy, calibrate, quantizable_layers, quantize, set_float

torch.set_num_threads(1)


@torch.inference_mode()
def difference(model, path, images) -> tuple[float, float]:
    """Largest difference of boxes in px and of scores between a model and its file, computed as it is written."""
    boxes, scores = decode(model(images))
    file_boxes, file_scores = OnnxDetector(path, threads=1, optimize=False)(images)
    assert file_boxes.shape == boxes.shape and file_scores.shape == scores.shape
    return (boxes - file_boxes).abs().max().item(), (scores - file_scores).abs().max().item()


# float


def test_float_export_computes_what_the_unfused_model_computes():
    boxes, scores = difference(nano(), float_nano(), scene_images())
    assert boxes < 1e-2 and scores < 1e-4


@pytest.mark.slow
def test_open_batch_and_size():
    for shape in ((1, 3, 64, 64), (3, 3, 96, 160), (2, 3, 32, 32)):
        boxes, scores = difference(pico(), open_pico(), noise(*shape))
        assert boxes < 1e-2 and scores < 1e-4
    graph = load_onnx(open_pico()).graph
    values = (*graph.input, *graph.output)
    dims = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
    names = {"images": ["batch", 3, "height", "width"], "boxes": ["batch", "anchors", 4]}
    assert dims == {**names, "scores": ["batch", "anchors", 6]}


@pytest.mark.slow
def test_yolo_nas_s(tmp_path):
    torch.manual_seed(0)
    model = yl.models.get("yolo_nas_s", num_classes=5)
    for module in model.modules():  # fresh statistics are 0 and 1, which no fold could get wrong
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    boxes, scores = difference(model, export_onnx(model, tmp_path / "m.onnx", image_size=64), noise(1, 3, 64, 64))
    assert boxes < 1e-2 and scores < 1e-4


@pytest.mark.slow
def test_the_model_is_left_as_it_is_and_gives_the_same_bytes_again(tmp_path):
    model = copy.deepcopy(nano()).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    again = export_onnx(model, tmp_path / "again.onnx", batch=2)
    assert model.training and all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert again.read_bytes() == float_nano().read_bytes()


# names and metadata


def test_nodes_are_named_after_modules():
    names = [node.name for node in load_onnx(float_nano()).graph.node]
    assert len(set(names)) == len(names)
    layers = [name.partition("/")[0] for name in names if name.endswith(("/Conv", "/ConvTranspose"))]
    predictions = [f"heads.levels.{i}.{kind}_pred" for i in range(3) for kind in ("class", "box")]
    assert sorted(layers) == sorted([*quantizable_layers(nano()), *predictions])
    assert {"decode/Softmax", "decode/Sigmoid"} <= set(names)


def test_nothing_of_the_exporting_machine_is_in_the_file():
    content = float_nano().read_bytes()
    assert b"/site-packages/" not in content and b"yolonas_lab/models" not in content
    model = load_onnx(float_nano())
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert not any(i.data_location == TensorProto.EXTERNAL for i in model.graph.initializer)  # it is one file


def test_metadata():
    info = OnnxDetector(float_nano()).info
    assert (
        info.model == "yolo_nas_nano" and info.num_classes == 6 and list(info.class_names or ()) == nano().class_names
    )
    assert (info.image_size, info.images, info.outputs) == (64, "float_nchw", "boxes_and_scores")
    assert (info.precision, info.activations) == ("float32", "float")
    assert re.fullmatch("[0-9a-f]{64}", info.source_sha256)
    (entry,) = load_onnx(float_nano()).metadata_props
    preparation = json.loads(entry.value)["preparation"]
    assert (preparation["padding_value"], preparation["longest_side_px"]) == (114, 64)


INFO = ExportInfo("m", 2, ("Straße", "犬"), 640, "float_nchw", "boxes_and_scores", "float32", "int8", "0" * 64)


@given(names=st.none() | st.lists(st.text(), min_size=1).map(tuple), steps=st.integers(1, 50))
def test_metadata_survives_the_way_into_a_file_and_out(names, steps):
    info = replace(INFO, class_names=names, image_size=32 * steps)
    proto = onnx.ModelProto()
    write_info(proto, info)
    proto.ParseFromString(proto.SerializeToString())
    assert read_info(metadata_of(proto), "a file") == info


def test_unreadable_metadata():
    for content in ("no json", "{}", "[]"):
        with pytest.raises(ValueError, match=r"metadata of a\.onnx cannot be read .*export it with"):
            read_info({KEY: content}, "a.onnx")


# quantized


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "path"), [(QuantPolicy(), int8_nano), (QuantPolicy.cpu(), cpu_nano)])
def test_a_quantized_export_is_the_fake_quantized_model(policy, path):
    with torch.inference_mode():
        boxes, scores = decode(quantized_nano(policy)(scene_images()))
    file_boxes, file_scores = OnnxDetector(path(), threads=1, optimize=False)(scene_images())
    # A value on the edge between two integers may fall to either side; quantizing moves the mean by .2 px and 1e-3.
    assert (boxes - file_boxes).abs().mean() < 0.02 and (scores - file_scores).abs().mean() < 1e-4
    of_model = yl.evaluate.evaluate(quantized_nano(policy), scenes(), progress=False)
    of_file = yl.evaluate.evaluate(OnnxDetector(path(), threads=1), scenes(), progress=False)  # optimized for CPUs
    assert of_model.ap > 0.5 and abs(of_file.ap - of_model.ap) < (3e-3 if path is int8_nano else 0.02)


@pytest.mark.slow
def test_every_layer_but_the_predictions_is_quantized_and_no_rule_is_broken():
    assert OnnxDetector(int8_nano()).info.activations == "int8"
    assert check_qdq(int8_nano()) == []
    layers = quantized_layers(int8_nano())
    left = [name for name, quantized in layers.items() if not quantized]
    assert left == [f"heads.levels.{i}.{kind}_pred/Conv" for i in range(3) for kind in ("class", "box")]
    assert len(layers) - len(left) == len(quantizable_layers(quantized_nano(QuantPolicy())))


@pytest.mark.slow
def test_cpu_export_is_marked_by_the_rules():
    assert OnnxDetector(cpu_nano()).info.activations == "uint8"
    assert {found.rule for found in check_qdq(cpu_nano())} == {"R1", "R3", "R7"}
    weights = [
        i for i in load_onnx(cpu_nano()).graph.initializer if i.data_type == TensorProto.INT8 and len(i.dims) == 4
    ]
    assert len(weights) == len(quantizable_layers(quantized_nano(QuantPolicy.cpu())))
    assert max(np.abs(onnx.numpy_helper.to_array(weight)).max() for weight in weights) <= 64


@pytest.mark.slow
def test_layers_left_in_float_break_no_rule(tmp_path):
    float_layers = {
        "backbone.stages.0.csp.conv1.conv",  # both readers of one tensor
        "backbone.stages.0.csp.conv2.conv",
        "backbone.stages.1.csp.bottlenecks.0.block1.conv",  # beside a skip
        "backbone.spp.conv2.conv",  # behind a Concat
        "neck.up1.upsample",
        "heads.levels.0.stem.conv",
    }
    model = calibrate(quantize(pico()), [noise(2, 3, 64, 64)], method="max")
    set_float(model, float_layers)
    path = export_onnx(model, tmp_path / "mixed.onnx")
    assert check_qdq(path) == []
    in_float = {name.partition("/")[0] for name, quantized in quantized_layers(path).items() if not quantized}
    assert {name for name in in_float if "_pred" not in name} == float_layers


@pytest.mark.slow
def test_power_of_two_scales_make_every_optimization_level_exact(tmp_path):
    """With such scales and biases on their grid all sums are exact, so nothing can round differently."""
    model = quantize(pico(), QuantPolicy(weight_bits=7))
    calibrate(model, [noise(2, 3, 64, 64)], method="max")
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, Quantizer):
                module.scale.copy_(2.0 ** module.scale.log2().ceil())
            elif isinstance(module, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)) and module.bias is not None:
                module.bias.copy_((module.bias * 16).round() / 16)  # a multiple of every product of two scales
        for name, parameter in model.named_parameters():
            if name.endswith("alpha"):
                parameter.fill_(0.5)
    path = export_onnx(model, tmp_path / "exact.onnx")
    images = (noise(1, 3, 64, 64) * 128).round() / 128
    with torch.inference_mode():
        boxes, scores = decode(model(images))
    for optimize in (False, True):
        found_boxes, found_scores = OnnxDetector(path, threads=1, optimize=optimize)(images)
        torch.testing.assert_close(found_boxes, boxes, rtol=0, atol=4e-5)
        torch.testing.assert_close(found_scores, scores, rtol=0, atol=4e-6)


# what cannot be exported


def test_settings_models_and_places_that_do_not_fit(tmp_path):
    uncalibrated = quantize(pico())
    six_bits = calibrate(quantize(pico(), QuantPolicy(activation_bits=6)), [noise(2, 3, 64, 64)], method="max")
    path, nowhere = tmp_path / "model.onnx", tmp_path / "nowhere" / "model.onnx"
    for model, to, settings, message in (
        (pico(), path, {"image_size": 100}, "image_size is 100"),
        (pico(), path, {"precision": "float61"}, "Unknown precision 'float61'; did you mean 'float16'"),
        (pico(), path, {"batch": 0}, "batch must be at least 1, or None"),
        (pico(), nowhere, {}, "the folder .*nowhere does not exist"),
        (uncalibrated, path, {}, "have no scale yet: calibrate the model first"),
        (six_bits, path, {}, "have 6 bits, but ONNX rounds to 8"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            export_onnx(model, to, **settings)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
