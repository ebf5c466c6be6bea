"""The pseudo-label claim: who sees which labels, and that all arms are measured, also with a teacher of no help."""

import numpy as np
import pytest

from yolonas_lab.experiments import pretraining, pseudo_labels
from yolonas_lab.experiments.measure import measure

SMALL = {"train_images": 24, "labeled_images": 8, "choice_images": 6, "val_images": 4, "steps": 1}


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setenv("YOLONAS_LAB_CACHE", str(tmp_path))
    monkeypatch.setattr(pseudo_labels, "SETTINGS", pseudo_labels.SETTINGS | SMALL)
    scenes = {"pretraining_images": 8, "pretraining_steps": 1, "train_images": 1, "val_images": 1}
    monkeypatch.setattr(pretraining, "SETTINGS", pretraining.SETTINGS | scenes)


def test_who_sees_which_labels(small):
    data, other = pseudo_labels.prepare(0), pseudo_labels.prepare(1)
    labeled, choice, hidden = (set(part.file_names) for part in (data.labeled, data.choice, data.hidden))
    assert [len(labeled), len(choice), len(hidden)] == [8, 6, 10]
    assert not labeled & choice and not labeled & hidden and not choice & hidden
    assert set(data.everything.file_names) == labeled | hidden
    assert labeled != set(other.labeled.file_names) and data.val.file_names == other.val.file_names


def test_a_strong_teacher_labels_the_hidden_images(small, tmp_path):
    data = pseudo_labels.prepare(0)
    for rule in ("0.3", "chosen", "chosen weighted"):
        merged, found = pseudo_labels.label(pseudo_labels.strong_teacher(), data, rule, tmp_path / rule)
        assert set(merged.file_names) <= set(data.everything.file_names)
        assert merged.file_names[:8] == data.labeled.file_names
        assert found["precision"] > 0.6 and found["recall"] > 0.4
        weights = np.concatenate([merged.weights(index) for index in range(len(merged))])
        assert (weights.min() < 1) == ("weighted" in rule)


def test_every_arm_is_measured_also_when_the_weak_teacher_is_no_help(small, monkeypatch):
    seen, untrained = [], pretraining.from_scratch(0).eval()  # none of its boxes is right

    def train(labels, start, seed, budget=1.0):
        seen.append(labels)
        return untrained

    monkeypatch.setattr(pretraining, "pretrained", lambda seed, budget: None)
    monkeypatch.setattr(pseudo_labels, "train", train)
    monkeypatch.setattr(pseudo_labels, "measured", lambda model, data: {"ap": 0.5, "ap50": 0.6})
    arms = measure(pseudo_labels, seed=1, budget=1)["arms"]  # type: ignore[arg-type]
    assert set(arms) == {"labels only", *pseudo_labels.ARMS, "weak second round", "all labels"}
    assert [len(labels) for labels in seen[:8]] == [8] * 8 and len(seen[-1]) == 18
    assert arms["weak chosen"] == arms["labels only"]
    assert (arms["all labels"]["precision"], arms["all labels"]["recall"]) == (1, 1)
