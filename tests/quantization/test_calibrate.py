import tracemalloc
from typing import Any

import pytest
import torch

import yolonas_lab as yl
from yolonas_lab.data import Loader
from yolonas_lab.detect import prepare
from yolonas_lab.models import reparameterize
from yolonas_lab.quantization import Quantizer, calibrate, quantize, set_float
from yolonas_lab.quantization.layers import activation_quantizers, weight_quantizers
from yolonas_lab.quantization.selective import output_noise


@pytest.fixture(scope="module")
def dataset(scenes):
    return scenes[1].subset(range(20))


def scales(model):
    return torch.stack([quantizer.scale for quantizer in activation_quantizers(model)])


def test_max_is_what_the_float_model_shows(pico, dataset):
    model: Any = calibrate(quantize(pico), dataset, method="max", batch_size=8)
    fused = yl.models.reparameterize(pico)
    largest = {}

    def watch(name):
        def hook(module, args, out):
            largest[name] = max(largest.get(name, 0.0), out.abs().max().item())

        return hook

    for name in ("backbone.stem", "neck.up1.upsample", "neck.up1.reduce_skip", "neck.up1.downsample_fine_skip"):
        fused.get_submodule(name).register_forward_hook(watch(name))
    images = prepare([dataset[i].image for i in range(len(dataset))], 64)[0]
    with torch.inference_mode():
        fused(images)
    assert model.backbone.stem.image.scale.item() == pytest.approx(images.max().item() / 127)
    assert model.backbone.stem.output.scale.item() * 127 == pytest.approx(largest.pop("backbone.stem"), rel=1e-4)
    # what meets in a concatenation has the largest of their ranges
    shared = model.neck.up1.upsample.output.scale.item() * 127
    assert len(largest) == 3 and shared == pytest.approx(max(largest.values()), rel=1e-4)


@pytest.mark.parametrize("method", ["max", "mse", pytest.param("entropy", marks=pytest.mark.slow)])
def test_the_grouping_into_batches_does_not_matter(pico, dataset, method):
    images = prepare([dataset[i].image for i in range(12)], 64)[0]
    ways = [images, list(images.split(5)), list(images.flip(0).split(4))]
    models = [calibrate(quantize(pico), way, method=method) for way in ways]
    for other in models[1:]:
        torch.testing.assert_close(scales(other), scales(models[0]), rtol=0.02, atol=0)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_entropy_of_few_images_is_as_good_as_a_percentile(pico, dataset, count):
    images = prepare([dataset[i].image for i in range(len(dataset))], 64)[0]
    with torch.inference_mode():
        clean = reparameterize(pico)(images)
        noise = {
            method: output_noise(clean, calibrate(quantize(pico), images[:count], method)(images))
            for method in ("percentile", "entropy")
        }
    assert noise["entropy"] < 1.2 * noise["percentile"]


def test_data_sets_loaders_and_tensors_are_the_same_images(pico, dataset):
    loader = Loader(dataset, 5, 64, shuffle=False)
    from_loader = calibrate(quantize(pico), loader, method="max")
    from_batches = calibrate(quantize(pico), loader.batches(0), method="max")
    assert torch.equal(scales(from_loader), scales(from_batches))
    from_dataset = calibrate(quantize(pico), dataset, method="max", batch_size=5)
    images = (prepare([dataset[i].image for i in range(k, k + 5)], 64)[0] for k in range(0, 20, 5))
    assert torch.equal(scales(from_dataset), scales(calibrate(quantize(pico), images, method="max")))


def test_exactly_max_images_are_used(pico, dataset):
    images = prepare([dataset[i].image for i in range(10)], 64)[0]
    model: Any = calibrate(quantize(pico), images.split(4), max_images=6, method="max")
    assert model.calibration.images == 6
    torch.testing.assert_close(scales(model), scales(calibrate(quantize(pico), images[:6], method="max")))
    model = calibrate(model, dataset, max_images=7, batch_size=4)
    assert model.calibration.images == 7
    model = calibrate(model, dataset)
    assert model.calibration.images == 20


def test_says_what_it_did(pico, dataset):
    model: Any = calibrate(quantize(pico), dataset, method="percentile", percentile=99.9, max_images=8)
    report = model.calibration
    assert "percentile (99.9 %) on 8 images" in str(report) and f"{len(report.ranges)} activations" in str(report)
    low, high = report.ranges["backbone.stem"]
    assert low == 0 < high  # a ReLU wrote it


def test_modes_batch_norm_and_float_layers_are_left_as_they_were(pico, dataset):
    model: Any = quantize(yl.models.fuse_blocks(pico)).train()
    model.heads.eval()
    set_float(model, ["backbone.stem.conv"])
    statistics = {n: b.clone() for n, b in model.named_buffers() if "running" in n}
    calibrate(model, dataset, max_images=8)
    assert model.training and not model.heads.training and statistics
    assert all(torch.equal(b, statistics[n]) for n, b in model.named_buffers() if n in statistics)
    assert not model.backbone.stem.image.mode == "quantize" and model.backbone.stem.output.mode == "quantize"
    assert all(q.statistics is None for q in model.modules() if isinstance(q, Quantizer))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(pico):
    model: Any = quantize(pico)

    def peak(count):
        batches = (torch.rand(4, 3, 64, 64) for _ in range(count))
        tracemalloc.start()
        calibrate(model, batches, max_images=10_000)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(1)
    assert peak(12) < 1.5 * peak(3) + 200_000


def test_no_images(pico, dataset):
    model: Any = quantize(pico)
    for nothing in ([], iter(()), torch.zeros(0, 3, 64, 64)):
        with pytest.raises(ValueError, match="no images to calibrate with"):
            calibrate(model, nothing)
    assert not any(q.calibrated for q in activation_quantizers(model))


def test_what_is_not_an_image(pico):
    for wrong in (
        [torch.zeros(3, 64, 64)],
        [torch.zeros(1, 3, 64, 64, dtype=torch.uint8)],
        [torch.zeros(1, 3, 60, 64)],
    ):
        with pytest.raises(ValueError, match=r"images|Image sides"):
            calibrate(quantize(pico), wrong)


def test_nan_activations_name_the_tensor_and_change_nothing(pico):
    model: Any = calibrate(quantize(pico), torch.rand(2, 3, 64, 64))
    before = scales(model)
    with pytest.raises(ValueError, match="activations of image hold NaN"):
        calibrate(model, torch.full((1, 3, 64, 64), float("nan")))
    with torch.no_grad():
        model.backbone.stages[0].downsample.conv.bias[0] = float("inf")
    with pytest.raises(ValueError, match=r"activations of backbone\.stages\.0\.downsample hold NaN"):
        calibrate(model, torch.rand(1, 3, 64, 64))
    assert torch.equal(scales(model), before)
    assert all(q.mode == "quantize" and q.statistics is None for q in activation_quantizers(model))
    assert all(q.mode == "quantize" for q in weight_quantizers(model).values())


def test_bad_settings(pico):
    model, images = quantize(pico), torch.rand(1, 3, 64, 64)
    with pytest.raises(ValueError, match="did you mean 'percentile'"):
        calibrate(model, images, method="percentiles")
    with pytest.raises(ValueError, match="from 50 to 100"):
        calibrate(model, images, percentile=0.9999)
    with pytest.raises(ValueError, match="at least 1 of each"):
        calibrate(model, images, max_images=0)
    with pytest.raises(ValueError, match="not quantized"):
        calibrate(pico, images)
