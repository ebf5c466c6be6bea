"""Settings: what cannot work is refused by name, and what decides the weights is told apart from what does not."""

import json
import math
from dataclasses import fields, replace

import pytest

from yolonas_lab.training import COCO_S, FINE_TUNE, LAB, TrainConfig
from yolonas_lab.training.config import FREE_FIELDS

BAD = [
    ({"steps": None}, "epochs is None and steps is None: give one of them"),
    ({"epochs": 1.0}, "epochs is 1.0 and steps is 10: give one of them"),
    ({"steps": 0}, "steps is 0: give a number above 0"),
    ({"image_size": 100}, "image_size is 100: give a multiple of 32 px"),
    ({"image_size": 0}, "image_size is 0"),
    ({"batch_size": 0}, "batch_size is 0"),
    ({"accumulate": -1}, "accumulate is -1"),
    ({"grad_clip": 0.0}, "grad_clip is 0.0"),
    ({"lr": math.nan}, "lr is nan"),
    ({"lr": 5.0}, "lr is 5: AdamW moves every weight by about the learning rate"),
    ({"evaluate_every": math.inf}, "evaluate_every is inf"),
    ({"warmup_steps": -1}, "warmup_steps is -1: give 0 or more"),
    ({"box_bias_slope": -0.5}, "box_bias_slope is -0.5"),
    ({"ema_decay": 1.0}, "ema_decay is 1.0: give a number from 0"),
    ({"precision": "bf61"}, "Unknown precision 'bf61'; did you mean 'bf16'"),
    ({"accelerator": "cud"}, "Unknown accelerator 'cud'; did you mean 'cuda'"),
    ({"tensorboard": True}, "tensorboard=True needs out_dir"),
]


@pytest.mark.parametrize(("bad", "message"), BAD)
def test_a_setting_that_cannot_work_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**{"steps": 10, **bad})


def test_decisive_and_free_fields_are_all_fields_and_plain_values():
    names = {field.name for field in fields(TrainConfig)}
    decisive = LAB.decisive()
    assert set(FREE_FIELDS) < names and names - set(FREE_FIELDS) - {"augmentation"} < set(decisive)
    assert not set(FREE_FIELDS) & set(decisive)
    assert decisive["lr"] == 5e-3 and decisive["augmentation.flip"] == 0.5
    json.dumps(decisive)
    assert replace(LAB, workers=3, out_dir="there", log_every=7).decisive() == decisive
    assert replace(LAB, seed=1).decisive() != decisive


def test_recipes_are_as_published_and_need_no_special_hardware():
    assert (COCO_S.epochs, COCO_S.lr, COCO_S.weight_decay, COCO_S.ema_decay) == (300, 2e-4, 1e-5, 0.9997)
    assert (COCO_S.warmup_steps, COCO_S.batch_size, COCO_S.grad_clip) == (1000, 32, None)
    assert (FINE_TUNE.epochs, FINE_TUNE.lr, FINE_TUNE.weight_decay, FINE_TUNE.ema_decay) == (100, 5e-4, 1e-4, 0.9)
    assert {(r.precision, r.accelerator) for r in (COCO_S, FINE_TUNE)} == {("auto", "auto")}
    assert (LAB.precision, LAB.accelerator) == ("32", "cpu")  # the same bits on every machine of a kind
