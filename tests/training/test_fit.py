# The two data sets in *sets cannot be counted by a type checker.
# pyright: reportCallIssue=false
"""The training loop: it learns, goes on, and says what is wrong."""

import errno
import json
import math
import os
import sys
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from tiny_training import same, tiny_config, tiny_model, tiny_scenes
from torch import Tensor

import yolonas_lab as yl
from yolonas_lab.data.augment import Augmentation
from yolonas_lab.losses import DetectionLoss
from yolonas_lab.training import Hooks, fit
from yolonas_lab.training.checkpoint import load_checkpoint

BOX_BIAS = "heads.levels.0.box_pred.bias"


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("YOLONAS_LAB_STATIC", "1")  # no progress bars


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    return tiny_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture
def model(sets):
    return tiny_model(len(sets[0].class_names))


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


def test_history_has_every_step_and_evaluation(sets, model):
    config = tiny_config(steps=10, evaluate_every=1.0)  # 18 images in batches of 4: 4 steps an epoch
    calls = []
    history = fit(
        model, *sets, config, Hooks(on_evaluation=lambda state, metrics: calls.append((state.step, metrics.ap)))
    )
    assert history.column("step").tolist() == list(range(1, 11))
    assert history.column("epoch")[3] == 1.0
    parts = sum(history.column(name) for name in ("classification", "iou", "dfl"))
    np.testing.assert_allclose(history.column("total"), parts, rtol=1e-6)
    assert [row["step"] for row in history.evaluations] == [4, 8, 10]
    assert calls == [(row["step"], row["ap"]) for row in history.evaluations]
    assert math.isnan(fit(model, sets[0], None, tiny_config(steps=1)).best_ap)


def test_accumulating_two_batches_averages_their_gradients(sets, tmp_path):
    train_set = sets[0]
    k = len(train_set.class_names)
    loss = DetectionLoss(k, normalizer=lambda q: q.new_tensor(10.0))  # a sum, so that batches add up

    def moments(batch_size, accumulate):
        config = tiny_config(
            steps=1, batch_size=batch_size, accumulate=accumulate, grad_clip=None, out_dir=tmp_path / str(batch_size)
        )
        from tiny_training import FrozenBatchNorm

        fit(
            FrozenBatchNorm(k), train_set, None, config, Hooks(compute_loss=lambda raw, batch: loss(raw, batch.targets))
        )
        state = load_checkpoint(tmp_path / str(batch_size) / "checkpoint.pt")["optimizer"]["state"]
        return torch.cat([entry["exp_avg"].flatten() for entry in state.values()])

    torch.testing.assert_close(moments(4, 2), moments(8, 1) / 2, rtol=1e-3, atol=1e-6)


def test_going_on_is_as_if_it_had_never_stopped(sets, tmp_path):
    config = tiny_config(steps=9, checkpoint_every=5, evaluate_every=1.0)

    class Stop(Exception):
        pass

    def stop(state):
        if state.step == 7:
            raise Stop

    k = len(sets[0].class_names)
    with pytest.raises(Stop):
        fit(tiny_model(k), *sets, replace(config, out_dir=tmp_path / "a"), Hooks(on_step=stop))
    steps = []
    resumed, whole = tiny_model(k), tiny_model(k)
    # what decides no weight may change in between
    again = replace(config, out_dir=tmp_path / "a", workers=1, log_every=3)
    history = fit(resumed, *sets, again, Hooks(on_step=lambda state: steps.append(state.step)))
    assert steps == [6, 7, 8, 9]
    other = fit(whole, *sets, replace(config, out_dir=tmp_path / "b"))
    assert same(resumed.state_dict(), whole.state_dict())
    assert same(history.to_dict(), other.to_dict())
    a, b = (load_checkpoint(tmp_path / d / "checkpoint.pt") for d in "ab")
    assert same(a["net"], b["net"]) and same(a["optimizer"], b["optimizer"])
    assert not same(a["net"], a["ema_net"])
    # a finished training is only loaded
    loaded = tiny_model(k)
    assert same(
        fit(loaded, *sets, replace(config, out_dir=tmp_path / "b"), Hooks(on_step=stop)).to_dict(), other.to_dict()
    )
    assert same(loaded.state_dict(), whole.state_dict())


def test_files_can_be_used_by_themselves(sets, model, tmp_path):
    history = fit(model, *sets, tiny_config(steps=4, evaluate_every=1.0, out_dir=tmp_path))
    for name in ("checkpoint.pt", "best.safetensors"):
        loaded = yl.models.get("yolo_nas_pico", checkpoint_path=tmp_path / name)
        assert same(loaded.state_dict(), model.state_dict())
    rows = [json.loads(line) for line in open(tmp_path / "log.jsonl")]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 4]
    assert rows[-1]["ap"] == history.last_ap
    assert rows[-1]["ap_large"] is None  # no object that large in images of 64 px


def test_another_training_in_the_same_folder_is_refused(sets, model, tmp_path):
    config = tiny_config(steps=2, out_dir=tmp_path)
    fit(model, *sets, config)
    with pytest.raises(ValueError, match=r"lr \(0.005 there, 0.001 now\).*another out_dir"):
        fit(model, *sets, replace(config, lr=1e-3))
    with pytest.raises(ValueError, match=r"augmentation.flip \(0.5 there, 0.0 now\)"):
        fit(model, *sets, replace(config, augmentation=replace(config.augmentation, flip=0.0)))
    with pytest.raises(ValueError, match="yolo_nas_nano with"):
        fit(yl.models.get("yolo_nas_nano", num_classes=model.num_classes), *sets, config)
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match=r"checkpoint.pt is not a readable checkpoint: delete it"):
        fit(model, *sets, config)


class OnlyTotal(NamedTuple):
    total: Tensor


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e9])
def test_a_loss_that_explodes_stops_before_it_spoils_anything(sets, model, tmp_path, bad):
    seen = []

    def compute_loss(raw, batch):
        seen.append(batch.image_ids)
        return OnlyTotal(raw.class_logits.square().mean() * (bad if len(seen) == 6 else 1.0))

    config = tiny_config(steps=9, checkpoint_every=3, out_dir=tmp_path)
    with pytest.raises(FloatingPointError) as caught:
        fit(model, sets[0], None, config, Hooks(compute_loss=compute_loss))
    message = str(caught.value)
    assert "step 6" in message and str(seen[5]) in message and "learning rate below 0.005" in message
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 3
    assert fit(model, sets[0], None, config, Hooks(compute_loss=compute_loss)).column("step").tolist() == list(
        range(1, 10)
    )


def test_the_loss_of_real_predictions_explodes_when_weights_are_broken(sets, model):
    with torch.no_grad():
        model.state_dict()["heads.levels.0.class_pred.weight"][0, 0] = math.nan
    with pytest.raises(FloatingPointError, match=r"step 1 .*classification nan"):
        fit(model, *sets, tiny_config(box_bias_slope=None))


needs_full_device = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")


@needs_full_device
@pytest.mark.parametrize("name", ["checkpoint.pt", "best.safetensors"])
def test_a_full_disk_is_reported_and_costs_nothing(sets, tmp_path, name):
    config = tiny_config(steps=8, checkpoint_every=2, evaluate_every=1.0, out_dir=tmp_path)
    k = len(sets[0].class_names)

    def fill(state):
        if state.step == 4:
            (tmp_path / f"{name}.partial").symlink_to("/dev/full")  # writing there fails as on a full disk

    with pytest.raises(OSError, match=rf"{name} could not be written \(No space left on device\): make room") as caught:
        fit(tiny_model(k), *sets, config, Hooks(on_step=fill))
    assert caught.value.errno == errno.ENOSPC
    assert not (tmp_path / f"{name}.partial").is_symlink()
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 2
    resumed, whole = tiny_model(k), tiny_model(k)
    fit(resumed, *sets, config)
    fit(whole, *sets, replace(config, out_dir=None))
    assert same(resumed.state_dict(), whole.state_dict())


@needs_full_device
def test_a_full_disk_for_the_log_is_reported(sets, model, tmp_path, monkeypatch):
    from yolonas_lab.training import report

    monkeypatch.setattr(
        report, "open", lambda path, *rest, **options: open("/dev/full", *rest, **options), raising=False
    )
    with pytest.raises(OSError, match=r"could not be written \(No space left on device\): make room"):
        fit(model, *sets, tiny_config(out_dir=tmp_path))


def test_an_unreadable_image_is_named(sets, model, tmp_path):
    train_set, _ = tiny_scenes(tmp_path)
    train_set.image_path(3).write_bytes(b"no image")
    for workers in (0, 1):
        with pytest.raises(ValueError, match=r"000003\.png"):
            fit(model, train_set, None, tiny_config(steps=40, cache=False, workers=workers, out_dir=tmp_path / "out"))


class Few:
    """Some images of a data set, as a list of samples with class names."""

    def __init__(self, dataset, indices, objects=True):
        self.class_names = dataset.class_names
        self.samples = [dataset[i] for i in indices]
        if not objects:
            empty = {"boxes": np.zeros((0, 4), np.float32), "labels": np.zeros(0, np.int64), "crowd": np.zeros(0, bool)}
            self.samples = [replace(sample, **empty) for sample in self.samples]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


def test_data_that_does_not_fit_is_refused(sets, model):
    train_set, val_set = sets
    with pytest.raises(ValueError, match="train_set has no images"):
        fit(model, Few(train_set, []), val_set, tiny_config())
    with pytest.raises(ValueError, match="val_set has no images"):
        fit(model, train_set, Few(train_set, []), tiny_config())
    with pytest.raises(ValueError, match="None of the 5 images of train_set has an object"):
        fit(model, Few(train_set, range(5), objects=False), val_set, tiny_config())
    with pytest.raises(ValueError, match=r"predicts 80 classes, but train_set has \d+ .*num_classes="):
        fit(yl.models.get("yolo_nas_pico"), train_set, val_set, tiny_config())
    other = Few(val_set, [0])
    other.class_names = list(reversed(val_set.class_names))
    with pytest.raises(ValueError, match="the same categories"):
        fit(model, train_set, other, tiny_config())
    with pytest.raises(ValueError, match="too few for one batch"):
        fit(model, train_set, val_set, tiny_config(batch_size=64))
    history = fit(model, Few(train_set, range(5)), None, tiny_config(steps=1))  # any list of samples with class names
    assert len(history.steps) == 1


def test_out_dir_must_be_a_folder(sets, model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file: give a folder"):
        fit(model, *sets, tiny_config(out_dir=tmp_path / "file"))


def test_tensorboard_is_asked_for_by_name(sets, model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # as if it were not installed
    with pytest.raises(ModuleNotFoundError, match="pip install tensorboard"):
        fit(model, *sets, tiny_config(out_dir=tmp_path, tensorboard=True))


def test_boxes_start_small_only_where_nothing_was_learnt(sets, model, tmp_path):
    def first_bias(model, **changes):
        seen = []
        config = tiny_config(steps=1, warmup_start_lr=0.0, **changes)
        fit(
            model,
            *sets,
            config,
            Hooks(on_step=lambda s: seen.append(s.network.state_dict()[BOX_BIAS].clone())),
        )
        return seen[0]

    torch.testing.assert_close(first_bias(model), (-0.5 * torch.arange(9.0)).repeat(4))
    fit(model, *sets, tiny_config(steps=3, out_dir=tmp_path))
    learnt = yl.models.get("yolo_nas_pico", checkpoint_path=tmp_path / "checkpoint.pt")
    bias = learnt.state_dict()[BOX_BIAS].clone()
    torch.testing.assert_close(first_bias(learnt), bias)
    trained = model.state_dict()[BOX_BIAS].clone()  # by fit, just before, and handed to it again as it is
    assert not torch.allclose(trained, (-0.5 * torch.arange(9.0)).repeat(4))
    torch.testing.assert_close(first_bias(model), trained)
