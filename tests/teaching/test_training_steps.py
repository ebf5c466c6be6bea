"""The step that notebook 08 times is that of `fit`, with and without a teacher."""

import copy

import pytest
import torch

import yolonas_lab as yl
from yolonas_lab.losses import DistillConfig
from yolonas_lab.teaching.lessons import nb08 as training_steps
from yolonas_lab.teaching.lessons.nb08 import training_step


@pytest.fixture
def dataset(tmp_path):
    made = yl.data.make_scenes(tmp_path / "scenes", train=8, val=0, image_size=64)
    return yl.data.CocoDataset(made.images_dir("train"), made.annotations("train"))


@pytest.fixture
def model():
    return yl.models.get("yolo_nas_pico", pretrained_weights="scenes")


def test_a_step_trains_a_copy(dataset, model, monkeypatch):
    torch.set_num_threads(1)
    before = copy.deepcopy(model.state_dict())
    totals = []

    class Recorded(training_steps.DetectionLoss):
        def forward(self, raw, targets):
            parts = super().forward(raw, targets)
            totals.append(parts.total.item())
            return parts

    monkeypatch.setattr(training_steps, "DetectionLoss", Recorded)
    step = training_step(model, dataset)
    for _ in range(12):
        step()
    assert len(totals) == 12 and totals[-1] < totals[0]  # one batch, learned by heart
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_teacher_is_asked_in_each_step(dataset, model, monkeypatch):
    seen = []
    original = training_steps.with_teacher

    def with_teacher(compute_loss, teacher, config, fabric):
        compute = original(compute_loss, teacher, config, fabric)

        def recorded(raw, batch):
            seen.append(compute(raw, batch))
            return seen[-1]

        return recorded

    monkeypatch.setattr(training_steps, "with_teacher", with_teacher)
    nano = yl.models.get("yolo_nas_nano", pretrained_weights="scenes")
    step = training_step(model, dataset, nano, DistillConfig(class_weight=0, dfl_weight=1))
    step()
    step()
    assert len(seen) == 2 and all(parts.kd_dfl > 0 and parts.kd_class == 0 for parts in seen)
