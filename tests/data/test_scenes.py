"""Generated scenes: the same bytes everywhere, boxes that are tight, a difficulty that is one."""

import hashlib
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolonas_lab.data import SCENES, SCENES_PRETRAIN, difficulty_settings, draw_scene
from yolonas_lab.data.glyphs import VISIBLE, Stamp, paint, require_characters
from yolonas_lab.data.scenes import compose

RECORDED = [
    ("scenes", 96, 0.25, "c73b6fdfc62decf7"),
    ("scenes_pretrain", 96, 0.25, "1a81a07364f2bf1d"),
    ("scenes", 131, 1.0, "43c649580100683d"),
    ("scenes_pretrain", 64, 0.5, "3133aea80f58f61c"),
]


@pytest.mark.parametrize(("domain", "side", "level", "expected"), RECORDED)
def test_scenes_have_the_recorded_bytes(domain, side, level, expected):
    """The shipped weights and every measured number hang on these bytes."""
    total = hashlib.sha256()
    for index in range(4):
        scene = draw_scene(index, side, 0, domain, difficulty=level)
        total.update(scene.image.tobytes() + scene.boxes.tobytes() + scene.labels.tobytes())
    assert total.hexdigest()[:16] == expected


@given(
    index=st.integers(0, 10**6),
    side=st.sampled_from([64, 96, 131]),
    level=st.sampled_from([0.0, 0.25, 0.6, 1.0]),
    domain=st.sampled_from([SCENES, SCENES_PRETRAIN]),
)
@settings(max_examples=25)
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
            # shadows of later objects would dim the object without hiding it: leave them out of the comparison
            changed = [s for k, s in enumerate(stamps) if k <= position or s.opacity == 256]
            changed[position] = replace(changed[position], top=ink, bottom=ink)
            picture = canvas.copy()
            paint(picture, changed)
            painted.append(picture[:, :, 0].astype(int))
        shown = painted[0] - painted[1]
        # whole-number rounding may move a pixel by 2 gray levels, so bracket the threshold
        sure, possible = np.argwhere(shown >= VISIBLE + 2)[:, ::-1], np.argwhere(shown >= VISIBLE - 2)[:, ::-1]
        assert (box[:2] <= sure.min(axis=0)).all() and (box[2:] >= sure.max(axis=0) + 1).all()
        assert (box[:2] >= possible.min(axis=0)).all() and (box[2:] <= possible.max(axis=0) + 1).all()
        assert stamps[position].label == label


def test_paint_by_hand():
    canvas = np.full((2, 2, 3), 100, np.uint8)
    mask = np.array([[255, 0], [128, 255]], np.uint8)
    paint(canvas, [Stamp(mask, 0, 0, (200, 0, 100), (200, 0, 100), 256, -1)])
    # 100 + 100 * 128 / 255 = 150.2, 100 - 100 * 128 / 255 = 49.8
    assert canvas.tolist() == [[[200, 0, 100], [100, 100, 100]], [[150, 50, 100], [200, 0, 100]]]


def test_difficulty_lowers_contrast_and_size_and_adds_objects():
    found = []
    for level in (0.0, 0.25, 0.5, 1.0):
        differences, areas, objects = [], [], 0
        for index in range(40):
            canvas, stamps = compose(Random(f"{index}"), 64, SCENES, difficulty_settings(level))
            ground = canvas.mean(axis=(0, 1)) @ [0.299, 0.587, 0.114]
            differences += [abs(np.dot(s.top, [0.299, 0.587, 0.114]) - ground) for s in stamps if s.label >= 0]
            boxes = draw_scene(index, 64, difficulty=level).boxes
            areas += (boxes[:, 2:] - boxes[:, :2]).prod(axis=1).tolist()
            objects += len(boxes)
        found.append((np.median(differences), np.median(areas), -objects))
    for name, values in zip(("contrast", "area", "objects"), zip(*found, strict=True), strict=True):
        assert list(values) == sorted(values, reverse=True) and values[0] != values[-1], name


def test_characters_that_the_font_lacks_are_named():
    require_characters("".join(g.character for d in (SCENES, SCENES_PRETRAIN) for g in d.classes))
    with pytest.raises(ValueError, match=r"U\+26BD"):
        require_characters("A⚽")
