"""Weights per box, from the annotation file into the trained weights."""

import json

import pytest
from tiny_training import same, tiny_config, tiny_model, tiny_scenes

from yolonas_lab.data import CocoDataset
from yolonas_lab.training import fit


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    train_set, _ = tiny_scenes(tmp_path_factory.mktemp("weights"), train=8)
    return train_set


def trained(train_set, workers=0):
    model = tiny_model(len(train_set.class_names))
    history = fit(model, train_set, None, tiny_config(steps=3, workers=workers))
    return model.state_dict(), [{k: v for k, v in step.items() if k != "seconds"} for step in history.steps]


def with_weights(train_set, weight_of, tmp_path):
    """The same images, each annotation with weight_of(its id)."""
    content = train_set.coco_dict
    for row in content["annotations"]:
        row["weight"] = weight_of(row["id"])
    path = tmp_path / "weighted.json"
    path.write_text(json.dumps(content))
    return CocoDataset(train_set.images_dir, path)


def test_a_file_of_full_weights_trains_bit_by_bit_as_one_without(plain, tmp_path):
    assert same(trained(plain), trained(with_weights(plain, lambda _: 1.0, tmp_path)))


def test_weights_reach_the_training_and_come_back_from_a_subset(plain, tmp_path):
    weighted = with_weights(plain, lambda annotation: 0.2 if annotation % 2 else 1, tmp_path)
    found = trained(weighted, workers=1)
    assert not same(trained(plain)[0], found[0])
    assert same(found, trained(weighted.subset(range(8))))
