"""The network: shapes, anchor points, gradients, twins, and wrong input."""

import itertools

import pytest
import torch

import yolonas_lab as yl
from yolonas_lab.models import ConvBNAct, QARepVGGBlock, RepVGGBlock, decode


@pytest.mark.parametrize("name", ["yolo_nas_s", "yolo_nas_m", "yolo_nas_l", "yolo_nas_pico", "yolo_nas_nano"])
def test_shapes_at_non_square_sizes_and_batches(name):
    torch.manual_seed(0)
    model = yl.models.get(name, num_classes=7)
    h, w = 64, 96
    with torch.inference_mode():
        raw = model(torch.rand(2, 3, h, w))
    a = sum((h // s) * (w // s) for s in (8, 16, 32))
    bins = model.config.reg_max + 1
    assert [tuple(t.shape) for t in raw] == [(2, a, 7), (2, a, 4, bins), (a, 2), (a, 1)]
    boxes, scores = decode(raw)
    assert boxes.shape == (2, a, 4) and scores.shape == (2, a, 7)
    assert 0.005 < scores.mean() < 0.02 and (boxes[..., 2:] > boxes[..., :2]).all()  # near the prior


def test_cached_anchor_points_are_not_mixed_up_and_every_parameter_gets_a_gradient():
    model = yl.models.get("yolo_nas_pico", num_classes=2)
    for h, w in itertools.product((32, 64, 96), repeat=2):  # more sizes than the cache holds, and h x w beside w x h
        for _ in range(2):
            points = model(torch.rand(1, 3, h, w)).anchor_points
            assert points[:, 0].max() < w and points[:, 1].max() < h and len(points) == h * w * 21 // 1024
    with torch.inference_mode():
        model(torch.rand(1, 3, 128, 64))  # a size that was not asked for before
    boxes, scores = decode(model.train()(torch.rand(2, 3, 128, 64)))  # backward refuses inference-mode tensors
    (boxes.square().mean() + scores.mean()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_anchor_points_keep_their_digits_under_bfloat16():
    model = yl.models.get("yolo_nas_pico", num_classes=2)
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        raw = model(torch.rand(1, 3, 640, 640))
    assert raw.class_logits.dtype == torch.bfloat16 and raw.anchor_points.dtype == torch.float32
    assert raw.anchor_points[79].tolist() == [636, 4]


def test_a_twin_differs_in_its_re_parameterizable_blocks_alone():
    def kinds(model):
        return [type(m) for m in model.modules() if type(m) in (QARepVGGBlock, RepVGGBlock, ConvBNAct)]

    for name in ("yolo_nas_pico", "yolo_nas_nano"):
        model, twin = yl.models.get(name, num_classes=3), yl.models.get(f"{name}_repvgg", num_classes=3)
        pairs = set(zip(kinds(model), kinds(twin), strict=True))
        assert pairs == {(QARepVGGBlock, RepVGGBlock), (ConvBNAct, ConvBNAct)}


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(1, 1, 64, 64), r"\(b, 3, h, w\)"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "divide uint8 images by 255"),
        (torch.rand(1, 3, 60, 64), "multiples of 32"),
        (torch.rand(1, 3, 0, 64), "multiples of 32"),
        ("street.jpg", r"tensor \(b, 3, h, w\)"),
        ((0, None), "at least 1 class"),
        ((3, ["a", "b"]), "2 class_names were given for num_classes=3"),
    ],
)
def test_wrong_images_and_class_counts_are_refused(images, message):
    num_classes, names = images if isinstance(images, tuple) else (2, None)
    with pytest.raises(ValueError, match=message):
        yl.models.get("yolo_nas_pico", num_classes, class_names=names)(images)
