"""The head that predicts four distances: sure distributions by hand, its loss, and that it starts as DFL does."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import yolonas_lab as yl
from yolonas_lab.experiments import dfl_head
from yolonas_lab.experiments.dfl_head import PlainBoxYoloNAS, expectation, plain_box_loss, sure_distribution
from yolonas_lab.losses import DetectionLoss, Targets
from yolonas_lab.models import CONFIGS, RawPredictions, decode
from yolonas_lab.training import LAB, Hooks, fit, start_with_small_boxes

PICO = CONFIGS["yolo_nas_pico"]


def test_a_sure_distribution_by_hand():
    p = sure_distribution(torch.tensor([0.0, 1.25, 3.0, 7.0, -1.0]), bins=4).exp()
    expected = [[1, 0, 0, 0], [0, 0.75, 0.25, 0], [0, 0, 0, 1], [0, 0, 0, 1], [1, 0, 0, 0]]
    torch.testing.assert_close(p, torch.tensor(expected).float(), rtol=0, atol=1e-6)


@given(st.floats(0.01, 7.99))
def test_a_sure_distribution_has_its_distance_as_mean_and_lets_the_gradient_through(distance):
    d = torch.tensor(distance, dtype=torch.float64, requires_grad=True)
    mean = expectation(sure_distribution(d, bins=9))
    mean.backward()
    assert mean.item() == pytest.approx(distance, abs=1e-6)
    if min(distance % 1, 1 - distance % 1) > 1e-6:
        assert d.grad is not None and d.grad.item() == pytest.approx(1, abs=1e-5)


def without_weights(model):
    """Its box layers predict their biases everywhere."""
    for head in model.heads.levels:
        torch.nn.init.zeros_(head.box_pred.weight)
    return model


def test_both_heads_start_with_the_same_weights_and_the_same_boxes():
    dfl, plain = (dfl_head.make_model(head, 6, seed=3).eval() for head in ("dfl", "plain"))
    assert LAB.box_bias_slope is not None
    start_with_small_boxes(dfl, LAB.box_bias_slope)
    other = {k: v for k, v in plain.state_dict().items() if "box_pred" not in k}
    assert len(other) == len(dfl.state_dict()) - 6 and all(
        torch.equal(v, dfl.state_dict()[k]) for k, v in other.items()
    )
    images = torch.rand(1, 3, 64, 64)
    raw, other_raw = without_weights(plain)(images), without_weights(dfl)(images)
    assert raw.box_logits.shape == other_raw.box_logits.shape
    torch.testing.assert_close(decode(raw)[0], decode(other_raw)[0], rtol=0, atol=1e-3)
    assert sum(p.numel() for p in plain.parameters()) < sum(p.numel() for p in dfl.parameters())


def test_a_plain_head_predicts_four_distances():
    model = without_weights(PlainBoxYoloNAS(PICO, 2, bias_slope=0.5).eval())
    biases = [p for name, p in model.named_parameters() if name.endswith("box_pred.bias")]
    for bias in biases:
        bias.data = torch.tensor([1.0, 2.0, 3.0, 4.0])
    boxes, _ = decode(model(torch.rand(1, 3, 32, 32)))
    left, top, right, bottom = torch.nn.functional.softplus(torch.tensor([1.0, 2.0, 3.0, 4.0])).tolist()
    x = y = 4.0  # the first anchor point, of stride 8
    expected = torch.tensor([x - 8 * left, y - 8 * top, x + 8 * right, y + 8 * bottom])
    torch.testing.assert_close(boxes[0, 0], expected, rtol=0, atol=1e-4)


def test_the_plain_loss_differs_from_that_of_yolo_nas_only_in_the_third_part():
    torch.manual_seed(0)
    raw = PlainBoxYoloNAS(PICO, 2, bias_slope=0.5).train()(torch.rand(2, 3, 64, 64))
    targets = [Targets(torch.tensor([[8.0, 8.0, 40.0, 44.0]]), torch.tensor([1])), no_objects()]
    plain, published = plain_box_loss(raw, targets), DetectionLoss(2)(raw, targets)
    assert torch.equal(plain.classification, published.classification)
    torch.testing.assert_close(plain.iou, published.iou)
    torch.testing.assert_close(plain.total, plain.classification + plain.iou + plain.l1)
    assert torch.isfinite(plain_box_loss(raw, [no_objects()] * 2).total)


def no_objects():
    return Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))


def test_l1_by_hand():
    # One anchor point at (4, 4) of stride 8 with sides 1, 1, 1, 1 strides; the object's are 0.25, 0.25, 2, 1.
    raw = RawPredictions(
        class_logits=torch.zeros(1, 1, 1),
        box_logits=sure_distribution(torch.ones(1, 1, 4), bins=9),
        anchor_points=torch.tensor([[4.0, 4.0]]),
        strides=torch.tensor([[8.0]]),
    )
    target = Targets(torch.tensor([[2.0, 2.0, 20.0, 12.0]]), torch.tensor([0]))
    iou = (10 * 10) / (16 * 16 + 18 * 10 - 10 * 10)  # the quality of the only candidate; the sum of qualities stays 1
    error = (0.75 + 0.75 + 1.0 + 0.0) / 4
    assert plain_box_loss(raw, [target], l1_weight=2.0).l1.item() == pytest.approx(2 * error * iou, rel=1e-4)


@pytest.mark.slow
def test_the_plain_head_learns_boxes(tmp_path):
    made = yl.data.make_scenes(tmp_path / "s", train=8, val=0, image_size=64, difficulty=0.0)
    train_set = yl.data.CocoDataset(made.images_dir("train"), made.annotations("train"))
    model = dfl_head.make_model("plain", len(train_set.class_names), seed=0)
    config = dataclasses.replace(
        LAB, steps=60, warmup_steps=10, augmentation=yl.data.Augmentation.none(), box_bias_slope=None
    )
    hooks = Hooks(compute_loss=lambda raw, batch: plain_box_loss(raw, batch.targets))
    iou = fit(model, train_set, None, config, hooks).column("iou")
    assert iou[-5:].mean() < 0.6 * iou[:5].mean()


@pytest.mark.slow
def test_one_condition_can_be_run_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("YOLONAS_LAB_CACHE", str(tmp_path))
    for name, value in {"train_images": 8, "val_images": 4}.items():
        monkeypatch.setitem(dfl_head.SETTINGS, name, value)
    numbers = dfl_head.run(0, budget=0.002, conditions=("short",))
    assert numbers.keys() == {"dfl short", "plain short"}
    assert all(set(arm) == set(dfl_head.METRICS) for arm in numbers.values())
    assert dfl_head.run(0, budget=0.002, conditions=("short",)) == numbers
