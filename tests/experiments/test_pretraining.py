"""The pretraining claim: what its arms share, and that it measures all of them."""

import pytest
import torch

from yolonas_lab.experiments import pretraining
from yolonas_lab.experiments.measure import measure
from yolonas_lab.experiments.scenes import shuffled

SMALL = {
    "pretraining_images": 8,
    "pretraining_steps": 20,
    "train_images": 16,
    "labels": (8, 16),
    "steps": 10,
    "long_labels": (16,),
    "val_images": 4,
}


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setenv("YOLONAS_LAB_CACHE", str(tmp_path))
    monkeypatch.setattr(pretraining, "SETTINGS", pretraining.SETTINGS | SMALL)
    monkeypatch.setattr(
        pretraining, "COMPARISONS", (("pretrained 8", "scratch 8"), ("pretrained 16", "scratch long 16"))
    )


def test_every_arm_is_measured_and_the_pretraining_is_kept(small, tmp_path):
    measured = measure(pretraining, seed=1, budget=0.1)  # type: ignore[arg-type]
    assert set(measured["arms"]) == {"scratch 8", "pretrained 8", "scratch 16", "pretrained 16", "scratch long 16"}
    [checkpoint] = tmp_path.glob("pretraining-*/seed-1-steps-2/checkpoint.pt")
    written = checkpoint.stat().st_mtime_ns
    assert pretraining.pretrained(1, 0.1) == checkpoint and checkpoint.stat().st_mtime_ns == written
    assert len(pretraining.data_digest()) == 64


def test_the_transferred_model_is_the_pretrained_one_but_for_its_class_layers(small):
    checkpoint = pretraining.pretrained(2, 0.05)
    kept, scratch = pretraining.transferred(checkpoint, seed=2), pretraining.from_scratch(2)
    assert kept.load_report is not None and len(kept.load_report.fresh) == 6
    learned = torch.load(checkpoint)["ema_net"]
    assert all(torch.equal(kept.state_dict()[name], learned[name]) for name in kept.load_report.loaded)
    assert {k: v.shape for k, v in kept.state_dict().items()} == {k: v.shape for k, v in scratch.state_dict().items()}
    for name in kept.load_report.fresh:  # both start their class layers alike
        assert torch.equal(kept.state_dict()[name], scratch.state_dict()[name])


def test_fewer_labels_are_part_of_more_and_other_seeds_have_others():
    order, again, other = shuffled(range(100), 0), shuffled(range(100), 0), shuffled(range(100), 1)  # type: ignore[arg-type]
    assert order == again and sorted(order) == list(range(100)) and set(order[:20]) != set(other[:20])


def test_all_arms_follow_one_recipe():
    a, b = pretraining.recipe(3, 40.2), pretraining.recipe(3, 0.2)
    assert (a.steps, b.steps, a.seed) == (40, 1, 3)
    assert {k: v for k, v in a.decisive().items() if k not in ("steps", "seed")} == {
        k: v for k, v in pretraining.SETTINGS["recipe"].items() if k not in ("steps", "seed")
    }
