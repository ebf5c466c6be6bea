"""The distillation claims on a few images and steps: every comparison has its numbers, every lesson reaches fit."""

import pytest
import torch
from claims import arms_of, shrink

from yolonas_lab.common import weights_digest
from yolonas_lab.experiments import distillation
from yolonas_lab.experiments.distillation import TEACHERS, labeled, learn, teacher
from yolonas_lab.experiments.scenes import dataset, recipe
from yolonas_lab.models import get


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path_factory):
    """Few scenes, in a folder that all these tests share."""
    monkeypatch.setenv("YOLONAS_LAB_CACHE", str(tmp_path_factory.getbasetemp() / "distillation"))
    shrink(monkeypatch, TEACHERS, train_images=16, val_images=6)
    torch.set_num_threads(1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["distillation", "equal_compute"])
def test_every_comparison_has_its_numbers(name, tmp_path):
    for arm, numbers in arms_of(name, tmp_path, budget=0.005).items():
        assert set(numbers) == {"ap", "ap50", "cpu_seconds"} and 0 <= numbers["ap"] <= numbers["ap50"] <= 1
        assert (numbers["cpu_seconds"] == 0) == arm.startswith("teacher ")


@pytest.mark.slow
def test_a_lesson_repeats():
    first, second = (
        learn(dataset(TEACHERS, "train"), recipe(0, 2), teacher("nano", 0), 3.0, 3.0) for _ in range(2)
    )  # fmt: skip
    assert first["ap"] == second["ap"] and first["ap50"] == second["ap50"]


@pytest.fixture
def asked(monkeypatch):
    """What `learn` is asked: images, steps, teacher, weight of classes, weight of boxes; nothing is trained."""
    found = []

    def learn(images, config, teacher=None, class_weight=0.0, dfl_weight=0.0):
        name = None if teacher is None else next(name for name, model in models.items() if model is teacher)
        found.append((len(images), config.steps, name, class_weight, dfl_weight))
        return {"ap": 0.5, "ap50": 0.5, "cpu_seconds": 1.0}

    models = {name: get("yolo_nas_pico", num_classes=6) for name in ("early", "pico", "nano")}
    monkeypatch.setattr(distillation, "learn", learn)
    monkeypatch.setattr(distillation, "teacher", lambda name, seed, budget=1.0: models[name])
    monkeypatch.setattr(distillation, "_measured", lambda model: {"ap": 0.5, "ap50": 0.5, "cpu_seconds": 0.0})
    return found


def test_the_lessons_of_the_claim_reach_fit(asked):
    numbers = distillation.run_distillation(1)
    weights = [(None, 0.0, 0.0), ("early", 3, 3), ("pico", 3, 3), ("nano", 1, 1), ("nano", 3, 3), ("nano", 10, 10)]
    assert asked == [(16, 400, *row) for row in (*weights, ("nano", 3, 0.0), ("nano", 0.0, 3))]
    assert list(numbers)[3:] == ["alone", *(lesson.arm for lesson in distillation.LESSONS)]


def test_at_equal_compute_the_student_alone_gets_the_teachers_share_of_steps(asked):
    distillation.run_equal_compute(0)
    long = 1.25 * 400 + 550
    expected = [(500, None), (400, "nano")] * 2 + [(400, "early"), (long, None), (long / 1.25, "nano")]
    assert [(steps, name) for _, steps, name, _, _ in asked] == expected


@pytest.mark.slow
def test_the_early_teacher_is_trained_once_and_depends_on_the_seed():
    first, again, other = (teacher("early", seed, 0.01) for seed in (0, 0, 1))
    assert weights_digest(first) == weights_digest(again) != weights_digest(other) and not first.training


def test_few_labels_are_a_subset_that_depends_on_the_seed():
    a, b, c = labeled(4, 0), labeled(8, 0), labeled(8, 1)
    assert len(a) == 4 and a.image_ids == b.image_ids[:4] and b.image_ids != c.image_ids
