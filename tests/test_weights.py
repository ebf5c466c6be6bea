"""The shipped weights are as good as their cards say, and were made with the committed settings."""

import json
from pathlib import Path

import pytest
import torch
from data_script import load_script
from safetensors.torch import load_file

import yolonas_lab as yl
from yolonas_lab.experiments.harness import plain, settings_digest
from yolonas_lab.models.get import WEIGHTS_DIR

NAMES = ("yolo_nas_pico", "yolo_nas_pico_repvgg", "yolo_nas_nano", "yolo_nas_nano_repvgg")

make_weights = load_script("make_weights")


def card_of(name):
    return json.loads((WEIGHTS_DIR / f"{name}_scenes.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def val_set(tmp_path_factory):
    return make_weights.draw_split("val", tmp_path_factory.mktemp("weights") / "val")


def test_exactly_the_models_of_the_script_are_shipped_and_they_are_small():
    assert set(make_weights.STEPS) == set(NAMES)
    files = sorted(path.name for path in WEIGHTS_DIR.iterdir() if not path.name.startswith("."))
    shipped = (*NAMES, make_weights.SUPERNET)
    assert files == sorted(f"{name}_scenes.{suffix}" for name in shipped for suffix in ("json", "safetensors"))
    assert sum(path.stat().st_size for path in WEIGHTS_DIR.iterdir()) < 8_000_000
    pico, nano = card_of("yolo_nas_pico")["ap"], card_of("yolo_nas_nano")["ap"]
    assert 0.5 <= pico <= 0.7 and nano > pico + 0.05  # the teacher is clearly better than the student


@pytest.mark.parametrize("name", NAMES)
def test_the_card_tells_the_committed_settings_and_the_file(name):
    card, path = card_of(name), WEIGHTS_DIR / f"{name}_scenes.safetensors"
    assert card["settings"] == plain(make_weights.SETTINGS)
    assert card["settings_digest"] == settings_digest(plain(make_weights.SETTINGS))
    assert card["steps"] == make_weights.STEPS[name] and card["seed"] == make_weights.SETTINGS["seed"]
    assert card["command"] == f"python data_scripts/make_weights.py --only {name}"
    assert card["weights"] == path.name and card["bytes"] == path.stat().st_size
    assert {t.dtype for t in load_file(path).values() if t.is_floating_point()} == {torch.float16}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_weights_have_the_ap_of_their_card(name, val_set):
    card = card_of(name)
    assert card["val_digest"] == yl.data.digest(Path(val_set.images_dir).parent.parent)
    model = yl.models.get(name, pretrained_weights="scenes")
    assert model.class_names == list(val_set.class_names) == card["class_names"]
    assert model.image_size == card["image_size"] and model.config.name == name
    found = yl.evaluate.evaluate(model, val_set, progress=False)
    assert len(val_set) == card["val_images"] == 500
    for metric in ("ap", "ap50", "ap75"):
        assert getattr(found, metric) == pytest.approx(card[metric], abs=0.002)


@pytest.mark.slow
def test_the_script_trains_goes_on_and_refuses(tmp_path, monkeypatch, capsys):
    small = {**make_weights.SETTINGS, "train_images": 24, "val_images": 8}
    monkeypatch.setattr(make_weights, "SETTINGS", small)
    cards = [
        make_weights.make("yolo_nas_pico", tmp_path / f"out{i}", tmp_path / f"w{i // 2}", 0.001) for i in (0, 1, 2)
    ]
    files = [(tmp_path / f"out{i}" / "yolo_nas_pico_scenes.safetensors").read_bytes() for i in (0, 1, 2)]
    assert files[0] == files[1] == files[2]  # loaded from the checkpoint, and trained again from scratch
    assert cards[0]["steps"] == 4 and cards[0]["val_images"] == 8 and cards[0]["ap"] == cards[2]["ap"]
    for wrong, said in ((["--only", "yolo_nas_pica"], "did you mean 'yolo_nas_pico'"), (["--budget", "0.1"], "--out")):
        assert make_weights.main(wrong) == 2 and said in capsys.readouterr().err
