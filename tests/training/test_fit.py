# The two data sets in *sets cannot be counted by a type checker.
# pyright: reportCallIssue=false
"""The training loop: it learns from boxes and from a teacher, goes on bit for bit, and says what is wrong."""

import copy
import json
import math
import os
import warnings
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from tiny_training import FrozenBatchNorm, same, tiny_config, tiny_model, tiny_scenes
from torch import Tensor

import yolonas_lab as yl
from yolonas_lab.data.augment import Augmentation
from yolonas_lab.losses import DetectionLoss, DistillConfig, distillation_losses
from yolonas_lab.models import CONFIGS, YoloNAS
from yolonas_lab.training import FINE_TUNE, Hooks, fit
from yolonas_lab.training.checkpoint import load_checkpoint

BOX_BIAS = "heads.levels.0.box_pred.bias"


class Stop(Exception):
    pass


def stop_at(step):
    def stop(state):
        if state.step == step:
            raise Stop

    return Hooks(on_step=stop)


@pytest.mark.slow
def test_eight_images_are_learnt_by_heart(tmp_path):
    train_set, _ = tiny_scenes(tmp_path, train=8)
    model = tiny_model(len(train_set.class_names))
    config = tiny_config(steps=250, batch_size=8, warmup_steps=20, lr=1e-2, augmentation=Augmentation.none())
    history = fit(model, train_set, train_set, config)
    assert history.last_ap > 0.9
    assert yl.evaluate.evaluate(model, train_set, image_size=64).ap == history.last_ap


def test_the_model_is_the_average_and_the_copy_is_what_learns(sets, model):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    seen = []

    def on_step(state):
        assert state.model is model and not model.training and state.network.training
        seen.append((state.step, state.network.neck.up1.csp.conv1.conv.weight.detach().clone()))

    fit(model, *sets, tiny_config(steps=3, ema_decay=0.98), Hooks(on_step=on_step))
    assert [step for step, _ in seen] == [1, 2, 3]
    expected = before["neck.up1.csp.conv1.conv.weight"]
    for t, weight in seen:
        decay = (1 + t) / (10 + t)  # still below 0.98
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(model.neck.up1.csp.conv1.conv.weight.detach(), expected)
    assert model.class_names == sets[0].class_names and model.image_size == 64


def test_history_and_files_have_every_step_and_evaluation(sets, model, tmp_path):
    config = tiny_config(steps=6, evaluate_every=1.0, out_dir=tmp_path)  # 18 images in batches of 4: 4 steps an epoch
    calls = []
    hooks = Hooks(
        on_start=lambda state: calls.append((state.step, state.total_steps)),
        on_evaluation=lambda state, metrics: calls.append((state.step, metrics.ap)),
    )
    found = fit(model, *sets, config, hooks)
    assert found.column("step").tolist() == list(range(1, 7)) and found.column("epoch")[3] == 1.0
    parts = sum(found.column(name) for name in ("classification", "iou", "dfl"))
    np.testing.assert_allclose(found.column("total"), parts, rtol=1e-6)
    assert calls == [(0, 6)] + [(row["step"], row["ap"]) for row in found.evaluations]
    assert [row["step"] for row in found.evaluations] == [4, 6]
    loaded = yl.models.get("yolo_nas_pico", checkpoint_path=tmp_path / "checkpoint.pt")
    assert same(loaded.state_dict(), model.state_dict())
    best = yl.models.get("yolo_nas_pico", checkpoint_path=tmp_path / "best.safetensors")
    assert found.best_ap == max(row["ap"] for row in found.evaluations)
    assert same(best.state_dict(), model.state_dict()) == (found.last_ap == found.best_ap)
    rows = [json.loads(line) for line in open(tmp_path / "log.jsonl")]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 4, 5, 6, 6]
    assert rows[-1]["ap"] == found.last_ap and rows[-1]["ap_large"] is None  # no object that large in 64 px


def test_accumulating_two_batches_averages_their_gradients(train_set, tmp_path):
    loss = DetectionLoss(6, normalizer=lambda q: q.new_tensor(10.0))  # a sum, so that batches add up
    hooks = Hooks(compute_loss=lambda raw, batch: loss(raw, batch.targets))

    def moments(batch_size, accumulate):
        folder = tmp_path / str(batch_size)
        config = tiny_config(steps=1, batch_size=batch_size, accumulate=accumulate, grad_clip=None, out_dir=folder)
        fit(FrozenBatchNorm(6), train_set, None, config, hooks)
        state = load_checkpoint(folder / "checkpoint.pt")["optimizer"]["state"]
        return torch.cat([entry["exp_avg"].flatten() for entry in state.values()])

    torch.testing.assert_close(moments(4, 2), moments(8, 1) / 2, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"channels_last": True}, {"accumulate": 2}, {"precision": "bf16"}])
def test_going_on_is_as_if_it_had_never_stopped(sets, tmp_path, settings):
    config = tiny_config(steps=7, checkpoint_every=5, evaluate_every=1.0, **settings)  # 5: amid an epoch
    with pytest.raises(Stop):
        fit(tiny_model(6), *sets, replace(config, out_dir=tmp_path / "a"), stop_at(6))
    steps = []
    resumed, whole = tiny_model(6), tiny_model(6)
    # what decides no weight may change in between
    again = replace(config, out_dir=tmp_path / "a", workers=1, log_every=3)
    found = fit(resumed, *sets, again, Hooks(on_step=lambda state: steps.append(state.step)))
    assert steps == [6, 7]
    other = fit(whole, *sets, replace(config, out_dir=tmp_path / "b"))
    assert same(resumed.state_dict(), whole.state_dict()) and same(vars(found), vars(other))
    a, b = (load_checkpoint(tmp_path / d / "checkpoint.pt") for d in "ab")
    assert same(a["net"], b["net"]) and same(a["optimizer"], b["optimizer"]) and not same(a["net"], a["ema_net"])
    loaded = tiny_model(6)  # a finished training is only loaded
    assert same(vars(fit(loaded, *sets, replace(config, out_dir=tmp_path / "b"), stop_at(7))), vars(other))
    assert same(loaded.state_dict(), whole.state_dict())


def test_channels_last_trains_a_copy_and_other_bits(train_set, model):
    seen = []

    def look(state):
        weight = state.network.neck.up1.csp.conv1.conv.weight
        seen.append(weight.is_contiguous(memory_format=torch.channels_last))

    losses = fit(model, train_set, None, tiny_config(steps=2, channels_last=True), Hooks(on_step=look)).column("total")
    assert seen == [True] * 2 and all(p.is_contiguous() for p in model.parameters())  # the caller's keeps its layout
    usual = tiny_model(6)
    assert fit(usual, train_set, None, tiny_config(steps=2)).column("total") == pytest.approx(losses, rel=1e-3)
    assert not same(usual.state_dict(), model.state_dict())


def test_a_recipe_for_a_gpu_runs_on_a_processor(train_set, model):
    changes = {"epochs": None, "steps": 1, "batch_size": 2, "image_size": 64, "workers": 0, "accelerator": "cpu"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(fit(model, train_set, None, replace(FINE_TUNE, **changes, live_plot=False)).steps) == 1


def test_another_training_in_the_same_folder_is_refused(sets, model, tmp_path):
    config = tiny_config(steps=1, out_dir=tmp_path)
    fit(model, *sets, config)
    with pytest.raises(ValueError, match=r"lr \(0.005 there, 0.001 now\).*another out_dir"):
        fit(model, *sets, replace(config, lr=1e-3))
    with pytest.raises(ValueError, match=r"augmentation.flip \(0.5 there, 0.0 now\)"):
        fit(model, *sets, replace(config, augmentation=replace(config.augmentation, flip=0.0)))
    with pytest.raises(ValueError, match=r"channels_last \(None there, True now\)"):
        fit(model, *sets, replace(config, channels_last=True))


class OnlyTotal(NamedTuple):
    total: Tensor


def test_a_loss_that_explodes_stops_before_it_spoils_anything(train_set, model, tmp_path):
    seen = []

    def compute_loss(raw, batch):
        seen.append(batch.image_ids)
        return OnlyTotal(raw.class_logits.square().mean() * (math.nan if len(seen) == 4 else 1.0))

    config = tiny_config(steps=5, checkpoint_every=2, out_dir=tmp_path)
    with pytest.raises(FloatingPointError) as caught:
        fit(model, train_set, None, config, Hooks(compute_loss=compute_loss))
    message = str(caught.value)
    assert "step 4" in message and str(seen[3]) in message and "learning rate below 0.005" in message
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_reported_and_leaves_the_last_checkpoint(train_set, model, tmp_path):
    def fill(state):
        if state.step == 4:
            (tmp_path / "checkpoint.pt.partial").symlink_to("/dev/full")  # writing there fails as on a full disk

    with pytest.raises(OSError, match=r"checkpoint.pt could not be written \(No space left on device\): make room"):
        fit(model, train_set, None, tiny_config(steps=5, checkpoint_every=2, out_dir=tmp_path), Hooks(on_step=fill))
    assert not (tmp_path / "checkpoint.pt.partial").is_symlink()
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 2


def test_an_unreadable_image_is_named(model, tmp_path):
    train_set, _ = tiny_scenes(tmp_path)
    train_set.image_path(3).write_bytes(b"no image")
    for workers in (0, 1):
        with pytest.raises(ValueError, match=r"000003\.png"):
            fit(model, train_set, None, tiny_config(steps=40, cache=False, workers=workers))


class Few:
    """Some images of a data set, as a list of samples with class names."""

    def __init__(self, dataset, images, class_names=None, **changes):
        self.class_names = class_names or dataset.class_names
        self.samples = [replace(dataset[i], **changes) for i in range(images)]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


def test_data_that_does_not_fit_is_refused(sets, model):
    train_set, val_set = sets
    bad = [
        (
            model,
            Few(train_set, 1, crowd=np.ones(len(train_set[0].boxes), bool)),
            r"No image of train_set \(1\) has an obj",
        ),
        (model, Few(train_set, 1, train_set.class_names[::-1]), "train_set has the classes .* they must be the same"),
        (yl.models.get("yolo_nas_pico"), train_set, "predicts 80 classes, but train_set has 6: give num_classes=6"),
    ]
    for network, images, message in bad:
        with pytest.raises(ValueError, match=message):
            fit(network, images, val_set, tiny_config())
    found = fit(model, Few(train_set, 5), None, tiny_config(steps=1))  # any list of samples with class names
    assert len(found.steps) == 1 and math.isnan(found.best_ap)


def test_boxes_start_small_only_where_nothing_was_learnt(train_set, model, tmp_path):
    def first_bias(model):
        seen = []
        hooks = Hooks(on_start=lambda state: seen.append(state.network.state_dict()[BOX_BIAS].clone()))
        fit(model, train_set, None, tiny_config(steps=1), hooks)
        return seen[0]

    assert torch.equal(first_bias(model), (-0.5 * torch.arange(9.0)).repeat(4))
    fit(model, train_set, None, tiny_config(steps=3, out_dir=tmp_path))
    trained = model.state_dict()[BOX_BIAS].clone()  # by fit, just before, and handed to it again as it is
    learnt = yl.models.get("yolo_nas_pico", checkpoint_path=tmp_path / "checkpoint.pt")
    assert not torch.allclose(trained, (-0.5 * torch.arange(9.0)).repeat(4))
    assert torch.equal(first_bias(learnt), trained) and torch.equal(first_bias(model), trained)


def test_weights_of_boxes_reach_the_training_and_full_ones_change_no_bit(train_set, tmp_path):
    def trained(weight_of, workers=0):
        content, model = train_set.coco_dict, tiny_model(6)
        for row in content["annotations"]:
            row["weight"] = weight_of(row["id"])
        (tmp_path / "weighted.json").write_text(json.dumps(content))
        weighted = yl.data.CocoDataset(train_set.images_dir, tmp_path / "weighted.json")
        fit(model, weighted, None, tiny_config(steps=2, workers=workers))
        return model.state_dict()

    fit(plain := tiny_model(6), train_set, None, tiny_config(steps=2))
    assert same(plain.state_dict(), trained(lambda _: 1.0))
    doubted = trained(lambda annotation: 0.2 if annotation % 2 else 1, workers=1)
    assert not same(plain.state_dict(), doubted)


@pytest.fixture
def teacher():
    return yl.models.get("yolo_nas_pico", pretrained_weights="scenes")


def test_a_taught_step_is_that_of_the_losses_written_out(train_set, teacher):
    settings = DistillConfig(class_weight=1.5, dfl_weight=4.0, temperature=3.0)
    config = tiny_config(steps=2, grad_clip=None)
    loss, fused = DetectionLoss(6), yl.models.reparameterize(teacher)

    def by_hand(raw, batch):
        parts = loss(raw, batch.targets)
        with torch.no_grad():
            wanted = fused(batch.images)
        return parts._replace(total=parts.total + sum(distillation_losses(raw, wanted, settings)))

    before, taught, expected = copy.deepcopy(teacher.state_dict()), tiny_model(6), tiny_model(6)
    found = fit(taught, train_set, None, config, teacher=teacher.train(), distillation=settings)
    assert same(teacher.state_dict(), before) and all(module.training for module in teacher.modules())
    assert all(p.grad is None and p.requires_grad for p in teacher.parameters())
    fit(expected, train_set, None, config, Hooks(compute_loss=by_hand))
    assert same(taught.state_dict(), expected.state_dict())
    names = ("classification", "iou", "dfl", "kd_class", "kd_dfl")
    np.testing.assert_allclose(found.column("total"), sum(found.column(name) for name in names), rtol=1e-5)


@pytest.mark.slow
def test_a_training_goes_on_with_the_same_teacher_alone(train_set, teacher, tmp_path):
    config = tiny_config(steps=3, checkpoint_every=1)
    resuming = replace(config, out_dir=tmp_path)
    with pytest.raises(Stop):
        fit(tiny_model(6), train_set, None, resuming, stop_at(2), teacher=teacher)
    for other, settings, message in (
        (tiny_model(6), None, r"another training, which differs in teacher \('yolo_nas_pico "),
        (teacher, DistillConfig(temperature=1.0), "differs in distillation"),
        (None, None, "None now"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(tiny_model(6), train_set, None, resuming, teacher=other, distillation=settings)
    resumed, whole = tiny_model(6), tiny_model(6)
    fit(resumed, train_set, None, resuming, teacher=copy.deepcopy(teacher))  # another object with the same weights
    fit(whole, train_set, None, config, teacher=teacher)
    assert same(resumed.state_dict(), whole.state_dict())


def test_a_teacher_of_something_else_is_refused(train_set, model, teacher):
    renamed, config = tiny_model(6), tiny_config(steps=1)
    renamed.class_names = list("abcdef")
    for bad, said in (
        (renamed, "teacher has the classes a, b, .* and train_set has airplane"),
        (YoloNAS(CONFIGS["yolo_nas_pico"], 3), "teacher predicts 3 classes and the student 6"),
        (YoloNAS(replace(CONFIGS["yolo_nas_pico"], reg_max=16), 6), "teacher predicts 17 bins and the student 9"),
    ):
        with pytest.raises(ValueError, match=said):
            fit(model, train_set, None, config, teacher=bad)
    with pytest.raises(ValueError, match="Both teacher and compute_loss"):
        fit(model, train_set, None, config, Hooks(compute_loss=lambda raw, batch: None), teacher=teacher)
