import json

import pytest
import torch

import yolonas_lab as yl
from tests.training.tiny_training import same, tiny_config, tiny_scenes
from yolonas_lab.training import fit
from yolonas_lab.training.label_files import hide_labels, merge_labels
from yolonas_lab.training.pseudo_labels import make_pseudo_labels
from yolonas_lab.training.self_training import self_train

CONFIG = tiny_config(steps=2, batch_size=2, warmup_steps=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("self_training")
    train_set, _ = tiny_scenes(folder, train=12, val=1)
    return train_set.subset(range(4)), hide_labels(train_set.subset(range(4, 12)), folder / "unlabeled.json")


def shipped():
    return yl.models.get("yolo_nas_pico", pretrained_weights="scenes")


def student():
    """Close to the shipped pico, so that its boxes are worth labeling with, but another in each round."""
    model = shipped()
    model.get_parameter("heads.levels.0.class_pred.bias").data += 0.01
    return model


def run(data, folder, rounds=2, choose=lambda teacher: 0.4, weighted=True):
    labeled, unlabeled = data
    return self_train(shipped(), student, labeled, unlabeled, folder, CONFIG, rounds, choose, weighted)


@pytest.mark.filterwarnings("ignore:.*have no box")
def test_two_rounds_are_label_merge_train_twice(data, tmp_path):
    asked = []
    students = run(data, tmp_path / "rounds", choose=lambda teacher: asked.append(teacher) or 0.4)
    assert len(students) == 2 and asked[1] is students[0]
    labeled, unlabeled = data
    teacher, by_hand = shipped(), []
    for number in (1, 2):
        made = make_pseudo_labels(teacher, unlabeled, tmp_path / f"{number}.json", 0.4)
        pseudo = yl.data.CocoDataset(unlabeled.images_dir, made.path)
        teacher = student()
        fit(teacher, merge_labels(labeled, pseudo, tmp_path / f"both_{number}.json"), None, CONFIG)
        by_hand.append(teacher)
        stored = json.loads((tmp_path / "rounds" / f"round_{number}" / "pseudo_labels.json").read_text())
        assert stored == json.loads(made.path.read_text())
    assert all(same(a.state_dict(), b.state_dict()) for a, b in zip(students, by_hand))
    assert not same(students[0].state_dict(), students[1].state_dict())


@pytest.mark.filterwarnings("ignore:.*have no box")
def test_one_round_more_goes_on_and_a_second_call_only_loads(data, tmp_path, monkeypatch):
    (first,) = run(data, tmp_path, rounds=1)
    two = run(data, tmp_path)
    assert same(first.state_dict(), two[0].state_dict())
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *_: pytest.fail("trained again"))
    again = run(data, tmp_path)
    assert all(same(a.state_dict(), b.state_dict()) for a, b in zip(two, again))


@pytest.mark.filterwarnings("ignore:.*have no box")
def test_weights_reach_the_merged_file(data, tmp_path):
    for weighted in (True, False):
        run(data, tmp_path / str(weighted), rounds=1, weighted=weighted)
        content = json.loads((tmp_path / str(weighted) / "round_1" / "labels.json").read_text())
        assert any("weight" in row for row in content["annotations"]) is weighted


@pytest.mark.parametrize("rounds", [0, -1, 1.5, True])
def test_rounds_must_be_a_number_of_rounds(data, tmp_path, rounds):
    with pytest.raises(ValueError, match="rounds is"):
        run(data, tmp_path, rounds=rounds)
    assert not list(tmp_path.iterdir())
