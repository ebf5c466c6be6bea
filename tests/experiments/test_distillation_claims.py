"""The distillation claims on a few images and a few steps: they give every number that they promise, and repeat."""

from typing import Any

import pytest
import torch

from yolonas_lab.common import weights_digest
from yolonas_lab.experiments import distillation, equal_compute, teachers
from yolonas_lab.experiments.measure import measure
from yolonas_lab.models import reparameterize


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path_factory):
    """Few scenes, in a folder that all these tests share."""
    monkeypatch.setenv("YOLONAS_LAB_CACHE", str(tmp_path_factory.getbasetemp() / "distillation"))
    monkeypatch.setenv("YOLONAS_LAB_STATIC", "1")
    monkeypatch.setattr(teachers, "SETTINGS", {**teachers.SETTINGS, "train_images": 16, "val_images": 6})
    torch.set_num_threads(1)


@pytest.mark.parametrize("claim", [distillation, equal_compute])
def test_every_comparison_has_its_numbers(claim: Any):
    found = measure(claim, seed=0, budget=0.005)["arms"]
    for arm, numbers in found.items():
        assert set(numbers) == {"ap", "ap50", "cpu_seconds"}
        assert 0 <= numbers["ap"] <= numbers["ap50"] <= 1
        assert (numbers["cpu_seconds"] == 0) == arm.startswith("teacher ")
    assert claim.data_digest() == teachers.scenes_digest()


def test_a_lesson_repeats():
    train_set, _ = teachers.scenes()
    nano, config = teachers.teacher("nano", 0), teachers.recipe(0, 3)
    first, second = (teachers.learn(train_set, config, nano, 3.0, 3.0) for _ in range(2))
    assert first["ap"] == second["ap"] and first["ap50"] == second["ap50"]


def test_the_lessons_of_the_claim_reach_fit(monkeypatch):
    asked = []

    def learn(images, config, teacher=None, class_weight=0.0, dfl_weight=0.0):
        name = None if teacher is None else (teacher.config.name, weights_digest(teacher)[:8])
        asked.append((len(images), config.steps, name, class_weight, dfl_weight))
        return {"ap": 0.5, "ap50": 0.5, "cpu_seconds": 1.0}

    monkeypatch.setattr(teachers, "learn", learn)
    monkeypatch.setattr(teachers, "measured", lambda model: {"ap": 0.5, "ap50": 0.5, "cpu_seconds": 0.0})
    early, pico, nano = (teachers.teacher(name, 1, 0.005) for name in ("early", "pico", "nano"))
    names = {m: (m.config.name, weights_digest(m)[:8]) for m in (early, pico, nano)}
    numbers = distillation.run(1, 0.005)
    steps = teachers.recipe(1, 0.005 * teachers.SETTINGS["steps"]).steps
    assert asked == [
        (16, steps, None, 0.0, 0.0),
        (16, steps, names[early], 3, 3),
        (16, steps, names[pico], 3, 3),
        (16, steps, names[nano], 1, 1),
        (16, steps, names[nano], 3, 3),
        (16, steps, names[nano], 10, 10),
        (16, steps, names[nano], 3, 0.0),
        (16, steps, names[nano], 0.0, 3),
    ]
    assert list(numbers)[3:] == ["alone", *(lesson.arm for lesson in distillation.LESSONS)]


def test_at_equal_compute_the_student_alone_gets_the_teachers_share_of_steps(monkeypatch):
    asked = []

    def learn(images, config, teacher=None, class_weight=0.0, dfl_weight=0.0):
        asked.append((config.steps, None if teacher is None else teacher.config.name))
        return {"ap": 0.5, "ap50": 0.5, "cpu_seconds": 1.0}

    monkeypatch.setattr(teachers, "learn", learn)
    monkeypatch.setattr(
        teachers, "teacher", lambda name, seed, budget=1.0: teachers.get("yolo_nas_nano", num_classes=6)
    )
    equal_compute.run(0)
    s = equal_compute.SETTINGS
    steps, ratio = teachers.SETTINGS["steps"], s["step_ratio"]
    alone, long = round(steps * ratio), round(steps * ratio + s["early_steps_alone"])
    nano = "yolo_nas_nano"
    assert asked == [
        *[(alone, None), (steps, nano)] * 2,
        (steps, nano),
        (long, None),
        (round(long / ratio), nano),
    ]


def test_the_early_teacher_is_trained_once_and_depends_on_the_seed():
    first, again, other = (teachers.teacher("early", seed, 0.01) for seed in (0, 0, 1))
    assert weights_digest(first) == weights_digest(again) != weights_digest(other)
    assert not first.training and reparameterize(first) is not first


def test_few_labels_are_a_subset_that_depends_on_the_seed():
    a, b, c = teachers.labeled(4, 0), teachers.labeled(8, 0), teachers.labeled(8, 1)
    assert len(a) == 4 and a.image_ids == b.image_ids[:4] and b.image_ids != c.image_ids
