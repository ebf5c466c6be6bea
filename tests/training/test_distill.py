"""A teacher beside the training loop: it is asked once per batch, stays as it is, and is remembered."""

# The two data sets in *sets cannot be counted by a type checker.
# pyright: reportCallIssue=false
import copy
import dataclasses
from typing import ClassVar

import numpy as np
import pytest
import torch
from tiny_training import same, tiny_config, tiny_model, tiny_scenes
from torch import nn

import yolonas_lab as yl
from yolonas_lab.losses import DetectionLoss, DistillConfig, distillation_losses
from yolonas_lab.models import CONFIGS, YoloNAS
from yolonas_lab.training import Hooks, fit
from yolonas_lab.training.checkpoint import load_checkpoint


@pytest.fixture(autouse=True)
def one_thread_without_bars(monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setenv("YOLONAS_LAB_STATIC", "1")


@pytest.fixture(scope="module")
def train_set(tmp_path_factory):
    return tiny_scenes(tmp_path_factory.mktemp("scenes"))[0]


@pytest.fixture
def teacher():
    return yl.models.get("yolo_nas_pico", pretrained_weights="scenes")


class Watched(nn.Module):
    """A model that remembers what it is asked, also where a copy of it is asked."""

    asked: ClassVar[list] = []

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        norms = sum(isinstance(module, nn.BatchNorm2d) for module in self.modules())
        self.asked.append((images.clone(), torch.is_grad_enabled(), self.training, norms))
        return self.model(images)


def test_the_teacher_is_asked_once_per_batch_fused_and_without_gradient(train_set, teacher):
    student, Watched.asked = tiny_model(6), []
    seen = []
    handle = nn.modules.module.register_module_forward_pre_hook(
        lambda module, inputs: (
            seen.append(inputs[0].clone()) if isinstance(module, YoloNAS) and module.training else None
        )
    )
    fit(student, train_set, None, tiny_config(steps=2, accumulate=2), teacher=Watched(teacher).train())
    handle.remove()
    assert len(seen) == len(Watched.asked) == 4
    for images, (given, gradient, training, norms) in zip(seen, Watched.asked, strict=True):
        assert torch.equal(images, given) and not gradient and not training and norms == 0


def test_the_teacher_stays_as_it_is(train_set, teacher):
    teacher.train()
    before, modes = copy.deepcopy(teacher.state_dict()), [module.training for module in teacher.modules()]
    fit(tiny_model(6), train_set, None, tiny_config(steps=3), teacher=teacher)
    assert same(teacher.state_dict(), before) and [module.training for module in teacher.modules()] == modes
    assert all(p.grad is None and p.requires_grad for p in teacher.parameters())


def test_the_history_has_both_parts_and_they_add_up(train_set, teacher):
    history = fit(tiny_model(6), train_set, None, tiny_config(steps=4), teacher=teacher)
    names = ("classification", "iou", "dfl", "kd_class", "kd_dfl")
    np.testing.assert_allclose(history.column("total"), sum(history.column(name) for name in names), rtol=1e-5)
    assert (history.column("kd_class") > 0).all() and (history.column("kd_dfl") > 0).all()
    only = fit(
        tiny_model(6), train_set, None, tiny_config(steps=4), teacher=teacher, distillation=DistillConfig(dfl_weight=0)
    )
    assert (only.column("kd_dfl") == 0).all() and (only.column("kd_class") > 0).all()
    assert "kd_class" not in fit(tiny_model(6), train_set, None, tiny_config(steps=1)).steps[0]


def test_a_step_is_that_of_the_losses_written_out(train_set, teacher):
    settings = DistillConfig(class_weight=1.5, dfl_weight=4.0, temperature=3.0)
    config = tiny_config(steps=2, grad_clip=None)
    loss, fused = DetectionLoss(6), yl.models.reparameterize(teacher)

    def by_hand(raw, batch):
        parts = loss(raw, batch.targets)
        with torch.no_grad():
            wanted = fused(batch.images)
        return parts._replace(total=parts.total + sum(distillation_losses(raw, wanted, settings)))

    taught, expected = tiny_model(6), tiny_model(6)
    fit(taught, train_set, None, config, teacher=teacher, distillation=settings)
    fit(expected, train_set, None, config, Hooks(compute_loss=by_hand))
    assert same(taught.state_dict(), expected.state_dict())
    alone = tiny_model(6)
    fit(alone, train_set, None, config)
    assert not same(alone.state_dict(), taught.state_dict())


def test_a_student_comes_nearer_to_its_teacher(train_set, teacher):
    history = fit(tiny_model(6), train_set, None, tiny_config(steps=60, warmup_steps=10), teacher=teacher)
    for part in ("kd_class", "kd_dfl"):
        values = history.column(part)
        assert values[-5:].mean() < 0.7 * values[:5].mean()


def test_a_model_can_start_as_its_own_teacher(train_set, teacher):
    before = copy.deepcopy(teacher.state_dict())
    history = fit(teacher, train_set, None, tiny_config(steps=2, box_bias_slope=None), teacher=teacher)
    assert len(history.steps) == 2 and not same(teacher.state_dict(), before)


def test_going_on_with_the_same_teacher_is_as_if_it_had_never_stopped(train_set, teacher, tmp_path):
    config = tiny_config(steps=5, checkpoint_every=2)

    class Stop(Exception):
        pass

    def stop(state):
        if state.step == 3:
            raise Stop

    with pytest.raises(Stop):
        fit(
            tiny_model(6),
            train_set,
            None,
            dataclasses.replace(config, out_dir=tmp_path),
            Hooks(on_step=stop),
            teacher=teacher,
        )
    resumed, whole = tiny_model(6), tiny_model(6)
    again = copy.deepcopy(teacher)  # another object with the same weights
    fit(resumed, train_set, None, dataclasses.replace(config, out_dir=tmp_path), teacher=again)
    fit(whole, train_set, None, config, teacher=teacher)
    assert same(resumed.state_dict(), whole.state_dict())


def test_going_on_with_another_teacher_is_refused(train_set, teacher, tmp_path):
    config = tiny_config(steps=1, out_dir=tmp_path)
    fit(tiny_model(6), train_set, None, config, teacher=teacher)
    saved = load_checkpoint(tmp_path / "checkpoint.pt")["identity"]
    assert saved["teacher"].startswith("yolo_nas_pico ") and saved["distillation"]["temperature"] == 2.0
    other = copy.deepcopy(teacher)
    with torch.no_grad():
        next(other.parameters()).flatten()[0].add_(1e-3)
    with pytest.raises(ValueError, match=r"another training, which differs in teacher \('yolo_nas_pico "):
        fit(tiny_model(6), train_set, None, config, teacher=other)
    with pytest.raises(ValueError, match="differs in distillation"):
        fit(tiny_model(6), train_set, None, config, teacher=teacher, distillation=DistillConfig(temperature=1.0))
    with pytest.raises(ValueError, match="None now"):
        fit(tiny_model(6), train_set, None, config)
    fit(tiny_model(6), train_set, None, config, teacher=teacher)


def test_a_training_without_a_teacher_is_remembered_as_before(train_set, tmp_path):
    fit(tiny_model(6), train_set, None, tiny_config(steps=1, out_dir=tmp_path))
    assert not {"teacher", "distillation"} & load_checkpoint(tmp_path / "checkpoint.pt")["identity"].keys()


def renamed(model, class_names):
    model.class_names = class_names
    return model


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (lambda: YoloNAS(CONFIGS["yolo_nas_pico"], 3), "The teacher predicts 3 classes, but train_set has 6"),
        (
            lambda: renamed(tiny_model(6), ["umbrella", "airplane", "phone", "knight", "anchor", "scissors"]),
            "The teacher knows the classes umbrella, airplane, .* but train_set has airplane, umbrella",
        ),
        (
            lambda: YoloNAS(dataclasses.replace(CONFIGS["yolo_nas_pico"], reg_max=16), 6),
            r"The teacher has bins 0 … 16 and the model 0 … 8",
        ),
        (
            lambda: Watched(YoloNAS(dataclasses.replace(CONFIGS["yolo_nas_pico"], reg_max=16), 6)),
            "The teacher predicts 17 bins and the student 9",  # seen only when it speaks
        ),
    ],
)
def test_a_teacher_of_something_else_is_refused(train_set, bad, said):
    with pytest.raises(ValueError, match=said):
        fit(tiny_model(6), train_set, None, tiny_config(steps=1), teacher=bad())


def test_settings_that_contradict_each_other_are_refused(train_set, teacher):
    with pytest.raises(ValueError, match="distillation was given without a teacher"):
        fit(tiny_model(6), train_set, None, tiny_config(steps=1), distillation=DistillConfig())
    with pytest.raises(ValueError, match="Both teacher and compute_loss"):
        fit(
            tiny_model(6),
            train_set,
            None,
            tiny_config(steps=1),
            Hooks(compute_loss=lambda raw, batch: None),
            teacher=teacher,
        )
