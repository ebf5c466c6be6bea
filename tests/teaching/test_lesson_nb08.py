"""The step that notebook 08 times is that of `fit`, with and without a teacher."""

import copy

import pytest
import torch

import yolonas_lab as yl
from yolonas_lab.teaching.lessons import nb08
from yolonas_lab.teaching.lessons.nb08 import training_step


@pytest.fixture
def dataset(tmp_path):
    made = yl.data.make_scenes(tmp_path / "scenes", train=8, val=0, image_size=64)
    return yl.data.CocoDataset(made.images_dir("train"), made.annotations("train"))


@pytest.mark.slow
@pytest.mark.parametrize("teacher", [None, "yolo_nas_nano"])
def test_a_step_trains_a_copy_with_or_without_a_teacher(dataset, monkeypatch, teacher):
    model = yl.models.get("yolo_nas_pico", pretrained_weights="scenes")
    before, taken = copy.deepcopy(model.state_dict()), []

    def recorded(function):
        def call(*arguments):
            taken.append(function(*arguments))
            return taken[-1]

        return call

    original = nb08.with_teacher
    monkeypatch.setattr(nb08, "with_teacher", lambda *arguments: recorded(original(*arguments)))
    monkeypatch.setattr(nb08.DetectionLoss, "forward", recorded(nb08.DetectionLoss.forward))
    step = training_step(model, dataset, yl.models.get(teacher, pretrained_weights="scenes") if teacher else None)
    for _ in range(2 if teacher else 12):
        step()
    if teacher:
        assert len(taken) == 4 and all(parts.kd_dfl > 0 and parts.kd_class > 0 for parts in taken[1::2])
    else:
        assert len(taken) == 12 and taken[-1].total < taken[0].total  # one batch, learned by heart
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
