"""Settings are refused by name, fingerprints outlive new fields, and the timetable is kept."""

import json
import math
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest
from tiny_training import tiny_config

import yolonas_lab
from yolonas_lab.common import fingerprint
from yolonas_lab.data.augment import Augmentation
from yolonas_lab.losses.distillation import DistillConfig
from yolonas_lab.quantization.qat import qat_recipe
from yolonas_lab.training import COCO_S, FINE_TUNE, LAB, TrainConfig, warmup_cosine
from yolonas_lab.training.config import FREE_FIELDS, Plan

BAD = [
    ({"steps": None}, "epochs is None and steps is None: give one of them"),
    ({"epochs": 1.0}, "epochs is 1.0 and steps is 10: give one of them"),
    ({"steps": 0}, "steps is 0: give a number above 0"),
    ({"lr": math.nan}, "lr is nan"),
    ({"lr": 5.0}, "lr is 5: AdamW moves every weight by about that"),
    ({"warmup_steps": -1}, "warmup_steps is -1: give 0 or more"),
    ({"ema_decay": 1.0}, "ema_decay is 1.0: give a number from 0"),
    ({"precision": "bf61"}, "Unknown precision 'bf61'; did you mean 'bf16'"),
    ({"accelerator": "cud"}, "Unknown accelerator 'cud'; did you mean 'cuda'"),
]
RECIPES = ["d2eaa2e8b9606fc5", "c562e64ade30b613", "22c4bcdb6cb12925"]  # of LAB, COCO_S, FINE_TUNE
DISTILLATION = "f4114bc370481350"


@pytest.mark.parametrize(("bad", "message"), BAD)
def test_a_setting_that_cannot_work_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**{"steps": 10, **bad})


def test_decisive_and_free_fields_are_all_fields_and_plain_values():
    names, decisive = {field.name for field in fields(TrainConfig)}, LAB.decisive()
    assert {name.split(".")[0] for name in decisive} == names - set(FREE_FIELDS)
    assert decisive["lr"] == 5e-3 and decisive["augmentation.flip"] == 0.5
    assert replace(LAB, workers=3, out_dir="there", log_every=7, channels_last=True).decisive() == decisive
    assert replace(LAB, seed=1).decisive() != decisive


def test_the_fingerprints_of_the_recipes_are_those_of_stored_checkpoints():
    """They change neither with a new field nor with a moved one: what was trained before stays valid."""
    found = [fingerprint(recipe.decisive(), 16) for recipe in (LAB, COCO_S, FINE_TUNE)]
    assert found == RECIPES
    assert fingerprint(DistillConfig().decisive(), 16) == DISTILLATION


def test_stored_results_and_weight_cards_have_the_recipes_of_today():
    folder = Path(yolonas_lab.__file__).parent
    files = [*(folder / "experiments/results").glob("*.json"), *(folder / "weights").glob("*.json")]
    settings = [json.loads(file.read_text())["settings"] for file in files]
    known = [json.loads(json.dumps(replace(r, steps=1).decisive())) for r in (LAB, qat_recipe(LAB))]
    stored = [s["recipe"] for s in settings if "recipe" in s]
    assert len(stored) > 10 and all(recipe in known for recipe in stored)


@dataclass(frozen=True, kw_only=True)
class LaterConfig(TrainConfig):
    nms_iou: float = 0.7
    colors: list = None  # type: ignore[assignment]


@dataclass(frozen=True)
class LaterAugmentation(Augmentation):
    vertical_flip: float = 0.0


@dataclass(frozen=True, kw_only=True)
class LaterDistillation(DistillConfig):
    feature_weight: float = 0.0


def test_a_field_added_later_enters_a_fingerprint_only_where_it_is_not_at_its_default():
    def later(**changes):
        return LaterConfig(**{field.name: getattr(LAB, field.name) for field in fields(LAB)} | changes).decisive()

    def augmented(**changes):
        lab = {field.name: getattr(LAB.augmentation, field.name) for field in fields(LAB.augmentation)}
        return later(augmentation=LaterAugmentation(**lab, **changes))

    assert later() == augmented() == LAB.decisive()
    assert later(nms_iou=0.5) == LAB.decisive() | {"nms_iou": 0.5}
    assert augmented(vertical_flip=0.5) == LAB.decisive() | {"augmentation.vertical_flip": 0.5}
    assert LaterDistillation().decisive() == DistillConfig().decisive()
    assert LaterDistillation(feature_weight=1.0).decisive() == DistillConfig().decisive() | {"feature_weight": 1.0}


def plan(batches=10, **changes):
    return Plan(tiny_config(**{"steps": None, "epochs": 3.0, "evaluate_every": 1.0, **changes}), batches)


def happens(asked, steps):
    return [step for step in range(1, steps + 1) if asked(step)]


def test_it_evaluates_after_whole_epochs_and_saves_whenever_it_evaluates():
    assert [plan(accumulate=n).steps for n in (1, 4)] == [30, 8]  # 30 batches in groups of 4: 7.5
    assert plan(epochs=0.001).steps == 1 and plan(epochs=None, steps=17).steps == 17
    assert happens(plan(epochs=2.5).evaluates_after, 25) == [10, 20, 25]
    assert happens(plan(evaluate_every=0.5).evaluates_after, 30) == [5, 10, 15, 20, 25, 30]
    assert happens(plan(batches=3, accumulate=2, epochs=4.0).evaluates_after, 6) == [2, 3, 5, 6]  # 1.5 steps an epoch
    assert happens(plan(evaluate_every=None).evaluates_after, 30) == [30]
    assert happens(plan(checkpoint_every=7).saves_after, 30) == [7, 10, 14, 20, 21, 28, 30]


def test_warm_up_in_epochs_is_warm_up_in_steps():
    by_steps = plan(warmup_steps=20, lr=0.01, final_lr_ratio=0.2)
    by_epochs = plan(warmup_steps=3, warmup_epochs=2.0, lr=0.01, final_lr_ratio=0.2)
    expected = [warmup_cosine(step, 30, 0.01, 20, 1e-6, 0.2) for step in range(30)]
    assert [by_steps.learning_rate(step) for step in range(30)] == expected
    assert [by_epochs.learning_rate(step) for step in range(30)] == expected
