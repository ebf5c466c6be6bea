"""Generated scenes: the same bytes everywhere, tight boxes, a difficulty that is one, files that other tools read."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from yolonas_lab.data import (
    SCENES,
    SCENES_PRETRAIN,
    CocoDataset,
    Domain,
    GlyphClass,
    class_sheet,
    contact_sheet,
    difficulty_settings,
    digest,
    draw_scene,
    make_scenes,
    scene_files,
)
from yolonas_lab.data.glyphs import VISIBLE, Stamp, paint, require_characters, shape_mask, visible_box
from yolonas_lab.data.scenes import color, compose

ROOT = Path(__file__).resolve().parents[2]


def pixels_digest(domain: str) -> str:
    total = hashlib.sha256()
    for index in range(4):
        scene = draw_scene(index, 96, 0, domain)
        total.update(scene.image.tobytes() + scene.boxes.tobytes() + scene.labels.tobytes())
    return total.hexdigest()[:16]


def small_set(folder: Path, **changes):
    return make_scenes(folder, **{"train": 6, "val": 3, "unlabeled": 2, "image_size": 64, "seed": 5, **changes})


# --- the same bytes everywhere


@pytest.mark.parametrize(
    ("domain", "expected"), [("scenes", "c73b6fdfc62decf7"), ("scenes_pretrain", "1a81a07364f2bf1d")]
)
def test_scenes_have_the_recorded_bytes(domain, expected):
    assert pixels_digest(domain) == expected


def test_two_processes_write_the_same_files(tmp_path):
    script = ROOT / "data_scripts" / "make_scenes.py"
    options = ["--train", "4", "--val", "2", "--unlabeled", "1", "--image-size", "64", "--seed", "3", "--digest"]
    outputs = []
    for name, hash_seed in (("a", "1"), ("b", "2")):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, str(script), str(tmp_path / name), *options]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        outputs.append(done.stdout.splitlines()[-1])
    assert outputs[0] == outputs[1] and outputs[0].startswith("digest ")
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 4 + 2 + 1 + 3 + 1
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_an_image_does_not_depend_on_how_many_are_made(tmp_path):
    few, many = small_set(tmp_path / "few"), small_set(tmp_path / "many", train=9, val=1)
    for index in range(6):
        name = f"{index:06d}.png"
        assert (few.images_dir("train") / name).read_bytes() == (many.images_dir("train") / name).read_bytes()
    np.testing.assert_array_equal(
        np.asarray(Image.open(few.images_dir("val") / "000000.png")), draw_scene(0, 64, 5, split="val").image
    )


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"split": "val"}, {"index": 1}, {"difficulty": 0.3}, {"image_size": 97}]
)
def test_every_setting_changes_the_scene(change):
    base = {"index": 0, "image_size": 96, "seed": 0, "split": "train", "difficulty": 0.25}
    assert draw_scene(**base).image.tobytes() != draw_scene(**{**base, **change}).image.tobytes()


def test_digest_sees_pixels_and_annotations_but_not_compression(tmp_path):
    summary = small_set(tmp_path / "set")
    before = digest(tmp_path / "set")
    picture = summary.images_dir("train") / "000001.png"
    Image.open(picture).save(picture, compress_level=9)
    assert digest(tmp_path / "set") == before
    content = json.loads(summary.annotations("val").read_text())
    content["annotations"][0]["bbox"][0] += 1
    summary.annotations("val").write_text(json.dumps(content))
    changed = digest(tmp_path / "set")
    assert changed != before
    pixels = np.array(Image.open(picture))
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(picture)
    assert digest(tmp_path / "set") != changed


# --- tight boxes


@given(
    index=st.integers(0, 10**6),
    side=st.sampled_from([64, 96, 131]),
    level=st.sampled_from([0.0, 0.25, 0.6, 1.0]),
    domain=st.sampled_from([SCENES, SCENES_PRETRAIN]),
)
@settings(max_examples=40, deadline=None)
def test_boxes_are_tight_around_what_changes_when_only_the_object_changes(index, side, level, domain):
    """Brute force: paint the whole scene with the object white and with it black; what differs is the object."""
    rng = Random(f"0/{domain.name}/train/{index}")
    canvas, stamps = compose(rng, side, domain, difficulty_settings(level))
    scene = draw_scene(index, side, 0, domain, "train", level)
    objects = [position for position, stamp in enumerate(stamps) if stamp.label >= 0]
    assert len(objects) == len(scene.boxes) >= 1
    for position, box, label in zip(objects, scene.boxes, scene.labels, strict=True):
        painted = []
        for gray in (255, 0):
            ink = (gray, gray, gray)
            changed = list(stamps)
            # shadows of later objects would dim the object without hiding it: leave them out of the comparison
            changed = [s for k, s in enumerate(changed) if k <= position or s.opacity == 256]
            changed[position] = replace(changed[position], top=ink, bottom=ink)
            picture = canvas.copy()
            paint(picture, changed)
            painted.append(picture[:, :, 0].astype(int))
        shown = painted[0] - painted[1]
        # whole-number rounding may move a pixel by 2 gray levels, so bracket the threshold
        sure, possible = np.argwhere(shown >= VISIBLE + 2), np.argwhere(shown >= VISIBLE - 2)
        x1, y1, x2, y2 = box
        assert y1 <= sure[:, 0].min() and x1 <= sure[:, 1].min()
        assert y2 >= sure[:, 0].max() + 1 and x2 >= sure[:, 1].max() + 1
        assert y1 >= possible[:, 0].min() and x1 >= possible[:, 1].min()
        assert y2 <= possible[:, 0].max() + 1 and x2 <= possible[:, 1].max() + 1
        assert 0 <= x1 < x2 <= side and 0 <= y1 < y2 <= side
        assert stamps[position].label == label


def test_visible_box_by_hand():
    def square(x, y, side, opacity=256):
        return Stamp(np.full((side, side), 255, np.uint8), x, y, (255, 0, 0), (255, 0, 0), opacity, 0)

    alone = [square(2, 3, 4)]
    assert visible_box(alone, 0, 20) == ((2, 3, 6, 7), 16)
    half_hidden = [square(2, 3, 4), square(4, 0, 10)]  # covers columns 4 and 5
    assert visible_box(half_hidden, 0, 20) == ((2, 3, 4, 7), 8)
    assert visible_box([square(2, 3, 4), square(4, 0, 10, opacity=100)], 0, 20) == ((2, 3, 6, 7), 16)
    assert visible_box([square(2, 3, 4), square(0, 0, 10)], 0, 20) == ((0, 0, 0, 0), 0)
    assert visible_box([square(-1, 18, 4)], 0, 20) == ((0, 18, 3, 20), 6)  # cut off at two sides


def test_paint_by_hand():
    canvas = np.full((2, 2, 3), 100, np.uint8)
    mask = np.array([[255, 0], [128, 255]], np.uint8)
    paint(canvas, [Stamp(mask, 0, 0, (200, 0, 100), (200, 0, 100), 256, -1)])
    # 100 + 100 * 128 / 255 = 150.2, 100 - 100 * 128 / 255 = 49.8
    assert canvas.tolist() == [[[200, 0, 100], [100, 100, 100]], [[150, 50, 100], [200, 0, 100]]]


@given(st.integers(-30, 40), st.integers(-30, 40), st.integers(1, 25))
@settings(max_examples=40, deadline=None)
def test_stamps_anywhere_change_only_what_they_cover(x, y, side):
    canvas = np.zeros((12, 12, 3), np.uint8)
    paint(canvas, [Stamp(np.full((side, side), 255, np.uint8), x, y, (9, 9, 9), (9, 9, 9), 256, 0)])
    rows, columns = np.mgrid[0:12, 0:12]
    covered = (rows >= y) & (rows < y + side) & (columns >= x) & (columns < x + side)
    np.testing.assert_array_equal(canvas[:, :, 0], covered * 9)


# --- masks and colors


@pytest.mark.parametrize("angle", [0, 17, -45, 90])
def test_mask_has_the_asked_size_and_turns_counter_clockwise(angle):
    mask = shape_mask("bar", 60, angle)
    rows, columns = np.nonzero(mask >= VISIBLE)
    slope = np.polyfit(columns, -rows, 1)[0] if angle != 90 else np.inf  # rows count downwards
    assert np.degrees(np.arctan(slope)) == pytest.approx(angle, abs=3)
    length = np.hypot(np.ptp(rows), np.ptp(columns))
    assert length == pytest.approx(60, abs=3)


@pytest.mark.parametrize("size", [9, 20, 47, 130, 400])
def test_mask_size_follows_the_request(size):
    for character in "✈♞⚓":
        rows, columns = np.nonzero(shape_mask(character, size) >= VISIBLE)
        assert max(np.ptp(rows), np.ptp(columns)) + 1 == pytest.approx(size, abs=max(2, 0.03 * size))


@given(st.floats(0, 360), st.floats(0, 1), st.floats(0.02, 0.98))
@settings(deadline=None)
def test_color_has_the_asked_brightness(hue, saturation, luma):
    red, green, blue = color(hue, saturation, luma)
    assert (0.299 * red + 0.587 * green + 0.114 * blue) / 255 == pytest.approx(luma, abs=0.003)


def test_every_class_of_both_domains_can_be_drawn():
    require_characters("".join(g.character for d in (SCENES, SCENES_PRETRAIN) for g in d.classes))
    assert not set(SCENES.class_names) & set(SCENES_PRETRAIN.class_names)


# --- what is in a scene


def test_classes_are_balanced():
    labels = np.concatenate([draw_scene(i, 32, 0).labels for i in range(600)])
    counts = np.bincount(labels, minlength=6)
    expected = counts.sum() / 6
    assert ((counts - expected) ** 2 / expected).sum() < 20.5  # chi-squared, 5 degrees of freedom, p = 0.001
    per_image = np.bincount([len(draw_scene(i, 32, 0).labels) for i in range(200)])
    assert per_image[0] == 0 and len(per_image) == 4 and per_image[1:].min() > 30


def _contrast(level: float) -> float:
    """Median brightness difference between the middle of a scene's objects and the rest of the picture."""
    differences = []
    for index in range(60):
        canvas, stamps = compose(Random(f"contrast {index}"), 64, SCENES, difficulty_settings(level))
        ground = canvas.mean(axis=(0, 1)) @ [0.299, 0.587, 0.114]
        differences += [abs(np.dot(s.top, [0.299, 0.587, 0.114]) - ground) for s in stamps if s.label >= 0]
    return float(np.median(differences))


def test_difficulty_lowers_contrast_and_size_and_adds_objects():
    levels = (0.0, 0.25, 0.5, 1.0)
    contrast = [_contrast(level) for level in levels]
    assert contrast == sorted(contrast, reverse=True) and contrast[0] > 1.5 * contrast[-1]
    scenes = [[draw_scene(i, 64, 0, difficulty=level) for i in range(60)] for level in levels]
    area = [
        np.median(np.concatenate([np.prod(s.boxes[:, 2:] - s.boxes[:, :2], axis=1) for s in row])) for row in scenes
    ]
    assert area == sorted(area, reverse=True) and area[0] > 2 * area[-1]
    objects = [sum(len(s.boxes) for s in row) for row in scenes]
    assert objects == sorted(objects) and objects[-1] > objects[0]


@pytest.mark.parametrize("image_size", [32, 64, 101, 320, 640])
def test_objects_scale_with_the_image(image_size):
    boxes = np.concatenate([draw_scene(i, image_size, 2).boxes for i in range(8)])
    longest = (boxes[:, 2:] - boxes[:, :2]).max(axis=1) / image_size
    assert 0.2 < longest.min() and longest.max() < 0.85 and 0.25 < np.median(longest) < 0.6


def test_hard_scenes_keep_every_object_partly_visible():
    hard = difficulty_settings(1.0)
    for index in range(40):
        _, stamps = compose(Random(f"visible {index}"), 96, SCENES, hard)
        for position, stamp in enumerate(stamps):
            if stamp.label >= 0:
                shown = visible_box(stamps, position, 96)[1]
                assert shown >= hard.min_visible * np.count_nonzero(stamp.mask >= VISIBLE)


# --- files


def test_set_loads_in_pycocotools_and_in_our_reader(tmp_path, capsys):
    from pycocotools.coco import COCO

    summary = small_set(tmp_path / "set")
    for split in ("train", "val", "unlabeled"):
        coco = COCO(str(summary.annotations(split)))
        ours = CocoDataset(summary.images_dir(split), summary.annotations(split))
        assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == ours.class_names == SCENES.class_names
        assert len(coco.imgs) == len(ours) == summary.images[split]
        assert len(coco.anns) == ours.report.boxes == summary.boxes[split]
        assert (summary.boxes[split] > 0) == (split != "unlabeled")
        for index, sample in enumerate(ours):
            scene = draw_scene(index, 64, 5, split=split)
            np.testing.assert_array_equal(sample.image, scene.image)
            if split != "unlabeled":
                np.testing.assert_array_equal(sample.boxes, scene.boxes)
                np.testing.assert_array_equal(sample.labels, scene.labels)
        assert all(a["area"] == a["bbox"][2] * a["bbox"][3] and a["iscrowd"] == 0 for a in coco.anns.values())
    assert "umbrella" in str(summary) and "train 6 images" in str(summary)
    capsys.readouterr()


def test_same_settings_return_at_once_and_others_are_refused(tmp_path, monkeypatch):
    first = small_set(tmp_path / "set")
    with monkeypatch.context() as patch:
        patch.setattr(scene_files, "_write_splits", lambda *_: pytest.fail("drawn again"))
        assert small_set(tmp_path / "set") == first
    with pytest.raises(FileExistsError, match="overwrite=True"):
        small_set(tmp_path / "set", seed=6)
    (first.images_dir("train") / "000002.png").unlink()
    with pytest.raises(FileExistsError, match="incomplete"):
        small_set(tmp_path / "set")
    assert small_set(tmp_path / "set", overwrite=True) == first
    assert (first.images_dir("train") / "000002.png").is_file()
    assert small_set(tmp_path / "set", seed=6, overwrite=True) != first
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_crash_leaves_nothing_behind(tmp_path, monkeypatch, error):
    kept = small_set(tmp_path / "kept")
    before = digest(kept.folder)

    def crash(index, *rest):
        if index == 2:
            raise error("stopped")
        return draw_scene(index, *rest)

    monkeypatch.setattr(scene_files, "draw_scene", crash)
    with pytest.raises(error):
        small_set(tmp_path / "new" / "set")
    with pytest.raises(error):
        small_set(tmp_path / "kept", seed=9, overwrite=True)
    assert list((tmp_path / "new").iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept", "new"]
    assert digest(kept.folder) == before


def test_a_failed_exchange_brings_the_old_set_back(tmp_path, monkeypatch):
    before = digest(small_set(tmp_path / "set").folder)
    replace_file = os.replace

    def refuse_new(source, target):
        if Path(source).name == "set" and Path(target) == tmp_path / "set":
            raise PermissionError("no")
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", refuse_new)
    with pytest.raises(PermissionError):
        small_set(tmp_path / "set", seed=9, overwrite=True)
    assert digest(tmp_path / "set") == before
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_the_current_folder_can_be_the_destination(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    small_set(Path("."))
    monkeypatch.chdir(tmp_path / "here")
    assert (tmp_path / "here" / "images" / "val" / "000002.png").is_file()
    assert [p.name for p in tmp_path.iterdir()] == ["here"]


def test_foreign_folders_are_never_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="holds no generated scenes"):
        small_set(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    with pytest.raises(FileExistsError, match=r"thesis\.txt is a file"):
        small_set(tmp_path / "thesis.txt", overwrite=True)
    (tmp_path / "empty").mkdir()
    assert small_set(tmp_path / "empty").boxes["train"] > 0


BAD_SETTINGS = [
    ({"train": -1}, "train is -1"),
    ({"val": 2.5}, "val is 2.5"),
    ({"train": 0, "val": 0, "unlabeled": 0}, "all 0"),
    ({"image_size": 8}, "image_size is 8"),
    ({"image_size": 5000}, "image_size is 5000"),
    ({"image_size": 96.5}, "image_size is 96.5"),
    ({"seed": "zero"}, "seed is 'zero'"),
    ({"domain": "coco"}, "domain is 'coco'"),
    ({"difficulty": 1.5}, "difficulty is 1.5"),
    ({"difficulty": float("nan")}, "difficulty is nan"),
    ({"domain": Domain("own", (GlyphClass("ball", "⚽", 0),), (0,))}, "U\\+26BD"),
    ({"domain": Domain("own", (GlyphClass("a", "A", 0), GlyphClass("a", "B", 0)), (0,))}, "Domain 'own'"),
    ({"domain": Domain("own", (), (0,))}, "at least one class"),
    ({"domain": Domain("own", (GlyphClass("blank", " ", 0),), (0,))}, "'blank' needs one character"),
    ({"domain": Domain("own", (GlyphClass("ab", "AB", 0),), (0,))}, "one character.*'AB'"),
    ({"domain": Domain("own", (GlyphClass("a", "A", 0),), ())}, "ground_hues"),
]


@pytest.mark.parametrize(("change", "message"), BAD_SETTINGS)
def test_bad_settings_are_refused_by_name(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        small_set(tmp_path / "set", **change)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objects": (3, 1)}, "objects is"),
        ({"object_size": (0.01, 0.5)}, "object_size"),
        ({"min_visible": 0.1}, "min_visible is 0.1"),
        ({"darker": 2.0}, "darker is 2.0"),
        ({"noise": 400.0}, "noise is 400.0"),
    ],
)
def test_bad_difficulties_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        replace(difficulty_settings(0.5), **change)


def test_own_domain_and_own_difficulty(tmp_path):
    letters = Domain("letters", (GlyphClass("a", "A", 0), GlyphClass("b", "B", 120)), (200,))
    always_two = replace(difficulty_settings(0.0), objects=(2, 2), object_size=(0.3, 0.35))
    summary = make_scenes(tmp_path / "set", train=3, val=0, image_size=64, domain=letters, difficulty=always_two)
    assert summary.class_names == ("a", "b") and summary.images == {"train": 3} and summary.boxes == {"train": 6}


def test_command_reports_errors_in_one_line(tmp_path):
    command = [sys.executable, str(ROOT / "data_scripts" / "make_scenes.py"), str(tmp_path / "x"), "--image-size", "7"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 1 and done.stderr.startswith("make_scenes: image_size is 7")
    assert done.stderr.count("\n") == 1


def test_digest_refuses_folders_without_images(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        digest(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no \.png"):
        digest(tmp_path)


# --- figures


def test_sheets_take_and_return_axes_and_name_the_classes():
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2)
    try:
        assert contact_sheet(axes[0], rows=2, columns=3, image_size=64) is axes[0]
        assert class_sheet(axes[1], "scenes_pretrain") is axes[1]
        expected = [SCENES.class_names[label] for i in range(6) for label in draw_scene(i, 64).labels]
        assert [text.get_text() for text in axes[0].texts] == expected
        assert len(axes[0].patches) == len(expected)
        assert [text.get_text() for text in axes[1].texts] == SCENES_PRETRAIN.class_names
        figure.canvas.draw()
        with pytest.raises(ValueError, match="rows and columns"):
            contact_sheet(rows=0)
    finally:
        plt.close("all")
