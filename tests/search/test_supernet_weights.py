"""The script that trains the supernet; the shipped one is as good as its card says, made with these settings."""

import json

import pytest
import torch
from data_script import load_script
from safetensors.torch import load_file

from yolonas_lab.experiments.harness import settings_digest
from yolonas_lab.models import CONFIGS
from yolonas_lab.search import largest, smallest
from yolonas_lab.search.supernet import SUPERNET_SPACE, SUPERNET_WEIGHTS, calibration_batches, load_supernet, score

make_weights = load_script("make_weights")


def card():
    return json.loads(SUPERNET_WEIGHTS.with_suffix(".json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_the_script_trains_a_supernet_with_a_card_and_goes_on(tmp_path, monkeypatch):
    small = {**make_weights.SETTINGS, "train_images": 16, "val_images": 16}
    monkeypatch.setattr(make_weights, "SETTINGS", small)
    monkeypatch.setattr(make_weights, "SUPERNET_STEPS", 200)
    cards = [make_weights.make("supernet", tmp_path / out, tmp_path / "work", 0.01) for out in ("one", "two")]
    files = [(tmp_path / out / "supernet_scenes.safetensors").read_bytes() for out in ("one", "two")]
    assert files[0] == files[1] and len(files[0]) < 6_000_000  # loaded from the checkpoint the second time
    found = cards[0]
    assert found["steps"] == 2 and found["settings"]["space"]["stem_channels"] == [8, 16]
    assert found["inherited_ap"].keys() == {"largest", "smallest", "yolo_nas_pico", "yolo_nas_nano"}
    assert found["command"] == "python data_scripts/make_weights.py --only supernet --budget 0.01"
    supernet = load_supernet(tmp_path / "one" / "supernet_scenes.safetensors")
    assert supernet.image_size == small["image_size"] and supernet.class_names == found["class_names"]


def test_the_card_tells_the_committed_settings_and_the_file():
    found = card()
    assert found["settings"] == make_weights.settings_of("supernet")
    assert found["settings_digest"] == settings_digest(make_weights.settings_of("supernet"))
    assert (
        found["steps"] == make_weights.SUPERNET_STEPS and found["bytes"] == SUPERNET_WEIGHTS.stat().st_size < 6_000_000
    )
    assert found["command"] == "python data_scripts/make_weights.py --only supernet"
    assert {t.dtype for t in load_file(SUPERNET_WEIGHTS).values() if t.is_floating_point()} == {torch.float16}


@pytest.mark.proof
def test_its_networks_have_the_ap_of_the_card(tmp_path):
    train_set, val_set = (make_weights.draw_split(split, tmp_path / split) for split in ("train", "val"))
    supernet, found = load_supernet(), card()["inherited_ap"]
    batches = calibration_batches(train_set, supernet.image_size)
    configs = {"largest": largest(SUPERNET_SPACE), "smallest": smallest(SUPERNET_SPACE)}
    for name, config in (configs | {n: CONFIGS[n] for n in ("yolo_nas_pico", "yolo_nas_nano")}).items():
        assert score(supernet, config, batches, val_set) == pytest.approx(found[name], abs=0.002)
    assert found["smallest"] > 0.2 and found["largest"] > found["smallest"]
