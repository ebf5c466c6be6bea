"""Sets of generated scenes on the disk: equal files from every process, whole or not at all, read by other tools."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_script import load_script
from PIL import Image

from yolonas_lab import data
from yolonas_lab.data import scene_files


def small_set(folder: Path, **changes):
    return data.make_scenes(folder, **{"train": 6, "val": 3, "unlabeled": 2, "image_size": 64, "seed": 5, **changes})


def test_digest_sees_pixels_and_annotations_but_not_compression(tmp_path, capsys):
    """The digest is recorded: every process draws the same set, whatever hashes it has."""
    folder, sizes = tmp_path / "set", ["--train", "6", "--val", "3", "--unlabeled", "2", "--image-size", "64"]
    assert load_script("make_scenes").main([str(folder), *sizes, "--seed", "5", "--digest"]) == 0
    assert f"\ndigest {data.digest(folder)}" in capsys.readouterr().out
    summary, before = small_set(folder), data.digest(folder)
    assert before.startswith("60eb21b154c4bb9d")
    picture = summary.images_dir("train") / "000001.png"
    Image.open(picture).save(picture, compress_level=9)
    assert data.digest(folder) == before
    content = json.loads(summary.annotations("val").read_text())
    content["annotations"][0]["bbox"][0] += 1
    summary.annotations("val").write_text(json.dumps(content))
    changed = data.digest(folder)
    pixels = np.array(Image.open(picture))
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(picture)
    assert len({before, changed, data.digest(folder)}) == 3
    with pytest.raises(FileNotFoundError, match="nowhere"):
        data.digest(tmp_path / "nowhere")


def test_set_loads_in_pycocotools_and_in_our_reader(tmp_path, capsys):
    from pycocotools.coco import COCO

    summary = small_set(tmp_path / "set")
    for split in ("train", "val", "unlabeled"):
        coco = COCO(str(summary.annotations(split)))
        ours = data.CocoDataset(summary.images_dir(split), summary.annotations(split))
        assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == ours.class_names == data.SCENES.class_names
        assert len(coco.imgs) == len(ours) == summary.images[split]
        assert len(coco.anns) == ours.report.boxes == summary.boxes[split]
        assert (summary.boxes[split] > 0) == (split != "unlabeled")
        for index, sample in enumerate(ours):
            scene = data.draw_scene(index, 64, 5, split=split)
            np.testing.assert_array_equal(sample.image, scene.image)
            if split != "unlabeled":
                np.testing.assert_array_equal(sample.boxes, scene.boxes)
                np.testing.assert_array_equal(sample.labels, scene.labels)
        assert all(a["area"] == a["bbox"][2] * a["bbox"][3] and a["iscrowd"] == 0 for a in coco.anns.values())
    assert "umbrella" in str(summary) and "train 6 images" in str(summary)


def test_same_settings_return_at_once_and_others_only_replace_scenes_that_may_be(tmp_path, monkeypatch):
    first = small_set(tmp_path / "set")
    with monkeypatch.context() as patch:
        patch.setattr(scene_files, "_write_split", lambda *_: pytest.fail("drawn again"))
        assert small_set(tmp_path / "set") == first
    (first.images_dir("train") / "000002.png").unlink()
    for seed in (6, 5):
        with pytest.raises(FileExistsError, match=r"set holds other things .*overwrite=True"):
            small_set(tmp_path / "set", seed=seed)
    assert small_set(tmp_path / "set", overwrite=True) == first
    assert (first.images_dir("train") / "000002.png").is_file()
    assert small_set(tmp_path / "set", seed=6, overwrite=True) != first
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_crash_leaves_nothing_behind(tmp_path, monkeypatch, error):
    kept = small_set(tmp_path / "kept")
    before = data.digest(kept.folder)

    def crash(index, *rest):
        if index == 2:
            raise error("stopped")
        return data.draw_scene(index, *rest)

    monkeypatch.setattr(scene_files, "draw_scene", crash)
    for folder, seed in ((tmp_path / "new" / "set", 5), (tmp_path / "kept", 9)):
        with pytest.raises(error):
            small_set(folder, seed=seed, overwrite=True)
    assert list((tmp_path / "new").iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept", "new"]
    assert data.digest(kept.folder) == before


def test_foreign_folders_are_never_replaced_and_empty_ones_are_filled(tmp_path, monkeypatch):
    (tmp_path / "thesis.txt").write_text("years of work")
    for place in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(FileExistsError, match=f"{place} holds other things"):
            small_set(place, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    small_set(Path("."))
    monkeypatch.chdir(tmp_path / "here")
    assert (tmp_path / "here" / "images" / "val" / "000002.png").is_file()


BAD_SETTINGS = [
    ({"train": -1}, "train, val and unlabeled are -1, 3 and 2"),
    ({"train": 0, "val": 0, "unlabeled": 0}, "at least one image"),
    ({"image_size": 8}, "image_size is 8"),
    ({"domain": "scene"}, "'scene'; did you mean 'scenes'"),
    ({"difficulty": float("nan")}, "difficulty is nan"),
]


@pytest.mark.parametrize(("change", "message"), BAD_SETTINGS)
def test_bad_settings_are_refused_by_name(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        small_set(tmp_path / "set", **change)
    assert list(tmp_path.iterdir()) == []


def test_own_domain_and_own_difficulty(tmp_path):
    letters = data.Domain("letters", (data.GlyphClass("a", "A", 0), data.GlyphClass("b", "B", 120)), (200,))
    always_two = replace(data.difficulty_settings(0.0), objects=(2, 2), object_size=(0.3, 0.35))
    summary = data.make_scenes(tmp_path / "set", train=3, val=0, image_size=64, domain=letters, difficulty=always_two)
    assert summary.class_names == ("a", "b") and summary.images == {"train": 3} and summary.boxes == {"train": 6}


def test_sheets_take_and_return_axes_and_name_the_classes():
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2)
    assert data.contact_sheet(left, rows=2, columns=3) is left and data.class_sheet(right, "scenes_pretrain") is right
    expected = [data.SCENES.class_names[label] for i in range(6) for label in data.draw_scene(i).labels]
    assert [text.get_text() for text in left.texts] == expected
    assert [text.get_text() for text in right.texts] == data.SCENES_PRETRAIN.class_names
    figure.canvas.draw()
    plt.close(figure)
