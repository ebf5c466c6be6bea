"""The claims about labels: what their arms share, who sees which labels, and that all arms are measured."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from claims import arms_of, shrink

from yolonas_lab.experiments import find_claim, labels
from yolonas_lab.experiments.scenes import recipe, shuffled


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    monkeypatch.setenv("YOLONAS_LAB_CACHE", str(tmp_path / "cache"))
    few = {"pretraining_images": 8, "pretraining_steps": 20, "train_images": 16, "val_images": 4, "steps": 10}
    shrink(monkeypatch, labels.PRETRAINING, **few, labels=(8, 16), long_labels=(16,))
    few = {"train_images": 24, "labeled_images": 8, "choice_images": 6, "val_images": 4, "steps": 1}
    shrink(monkeypatch, labels.PSEUDO_LABELS, **few)


@pytest.mark.slow
def test_every_arm_of_pretraining_is_measured_and_the_pretraining_is_kept(tmp_path):
    arms = labels.run_pretraining(1, 0.1)
    assert set(arms) == {"scratch 8", "pretrained 8", "scratch 16", "pretrained 16", "scratch long 16"}
    assert all(0 <= row["ap"] <= row["ap50"] <= 1 for row in arms.values())
    [checkpoint] = tmp_path.glob("cache/pretraining-*/seed-1-steps-2/checkpoint.pt")
    written = checkpoint.stat().st_mtime_ns
    assert labels.pretrained(1, 0.1) == checkpoint and checkpoint.stat().st_mtime_ns == written
    assert len(labels.pretraining_digest()) == 64


@pytest.mark.slow
def test_the_transferred_model_is_the_pretrained_one_but_for_its_class_layers():
    checkpoint = labels.pretrained(2, 0.05)
    kept, scratch = labels.transferred(checkpoint, seed=2), labels.from_scratch(2)
    assert kept.load_report is not None and len(kept.load_report.fresh) == 6
    learned = torch.load(checkpoint)["ema_net"]
    assert all(torch.equal(kept.state_dict()[name], learned[name]) for name in kept.load_report.loaded)
    assert {k: v.shape for k, v in kept.state_dict().items()} == {k: v.shape for k, v in scratch.state_dict().items()}
    for name in kept.load_report.fresh:  # both start their class layers alike
        assert torch.equal(kept.state_dict()[name], scratch.state_dict()[name])


def test_fewer_labels_are_part_of_more_and_all_arms_follow_one_recipe():
    order, again, other = shuffled(range(100), 0), shuffled(range(100), 0), shuffled(range(100), 1)  # type: ignore[arg-type]
    assert order == again and sorted(order) == list(range(100)) and set(order[:20]) != set(other[:20])
    config = recipe(3, 40.2)
    assert (config.steps, recipe(3, 0.2).steps, config.seed) == (40, 1, 3)
    stored = find_claim("pretraining").settings["recipe"]
    assert replace(config, steps=1, seed=stored["seed"], image_size=stored["image_size"]).decisive() == stored


def test_who_sees_which_labels():
    data, other = labels.prepare(0), labels.prepare(1)
    labeled, choice, hidden = (set(part.file_names) for part in (data.labeled, data.choice, data.hidden))
    assert [len(labeled), len(choice), len(hidden)] == [8, 6, 10]
    assert not labeled & choice and not labeled & hidden and not choice & hidden
    assert set(data.everything.file_names) == labeled | hidden
    assert labeled != set(other.labeled.file_names) and data.val.file_names == other.val.file_names


def test_a_strong_teacher_labels_the_hidden_images(tmp_path):
    data = labels.prepare(0)
    for rule in ("0.3", "chosen", "chosen weighted"):
        merged, found = labels.label(labels.strong_teacher(), data, rule, tmp_path / rule)
        assert set(merged.file_names) <= set(data.everything.file_names)
        assert merged.file_names[:8] == data.labeled.file_names
        assert found["precision"] > 0.6 and found["recall"] > 0.4
        weights = np.concatenate([merged.weights(index) for index in range(len(merged))])
        assert (weights.min() < 1) == ("weighted" in rule)


def test_every_arm_is_measured_also_when_the_weak_teacher_is_no_help(monkeypatch, tmp_path):
    seen, untrained = [], labels.from_scratch(0).eval()  # none of its boxes is right

    def train(images, start, seed, budget=1.0):
        seen.append(images)
        return untrained

    monkeypatch.setattr(labels, "pretrained", lambda seed, budget: None)
    monkeypatch.setattr(labels, "train", train)
    monkeypatch.setattr(labels, "scenes", SimpleNamespace(**vars(labels.scenes)))
    monkeypatch.setattr(labels.scenes, "measured", lambda model, val_set: {"ap": 0.5, "ap50": 0.6})
    arms = arms_of("pseudo_labels", tmp_path, seed=1)
    assert set(arms) == {"labels only", *labels.ARMS, "weak second round", "all labels"}
    assert [len(images) for images in seen[:8]] == [8] * 8 and len(seen[-1]) == 18
    assert arms["weak chosen"] == arms["labels only"]
    assert (arms["all labels"]["precision"], arms["all labels"]["recall"]) == (1, 1)
