"""Augmentation: boxes against a polygon cut by hand and drawn pixels, pixels against torch, colors against colorsys."""

import colorsys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yolonas_lab.data import Augmentation, LabeledImage, Sample, augment
from yolonas_lab.data.augment import about_center, fit, mosaic, random_affine, shift_hsv, warp_boxes, warp_image

SIZE = 64
PIXEL = 1.0  # a mask of whole pixels tells an edge to half a pixel
ON_BLACK = Augmentation(pad_value=0)


def sample(image, boxes=(), labels=None, crowd=None, image_id=1):
    boxes = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    labels = np.arange(len(boxes)) if labels is None else np.array(labels)
    crowd = np.zeros(len(boxes), dtype=bool) if crowd is None else np.array(crowd, dtype=bool)
    return Sample(image, boxes, labels.astype(np.int64), crowd, image_id, f"{image_id}.png")


def black(height=SIZE, width=SIZE):
    return np.zeros((height, width, 3), dtype=np.uint8)


def drawn(height, width, box):
    """A white filled rectangle on black, as a sample whose box is that rectangle."""
    image = black(height, width)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = 255
    return sample(image, [box])


def tight_box(image, threshold=127):
    """xyxy px around the bright pixels, or None."""
    ys, xs = np.nonzero(image.max(axis=2) > threshold)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) if len(xs) else None


def cut_polygon(points, size):
    """Sutherland-Hodgman, one border of the square after the other: the corners that remain."""
    for axis in (0, 1):
        for sign, border in ((1, 0.0), (-1, -float(size))):
            kept = []
            for p, q in zip(points, points[1:] + points[:1]):
                inside_p, inside_q = sign * p[axis] >= border, sign * q[axis] >= border
                if inside_p:
                    kept.append(p)
                if inside_p != inside_q:
                    t = (sign * border - p[axis]) / (q[axis] - p[axis])
                    kept.append(p + t * (q - p))
            points = kept
    return points


@st.composite
def rectangles(draw):
    """(height, width, box) of an image with a rectangle of at least 6 px in it."""
    height, width = draw(st.integers(SIZE, 100)), draw(st.integers(SIZE, 100))  # never magnified by fitting
    x1, y1 = draw(st.integers(0, width - 6)), draw(st.integers(0, height - 6))
    return height, width, (x1, y1, draw(st.integers(x1 + 6, width)), draw(st.integers(y1 + 6, height)))


@st.composite
def maps(draw):
    shift, rotation = st.floats(-40, 40), draw(st.one_of(st.just(0.0), st.floats(-180, 180)))
    return about_center(SIZE, draw(st.floats(0.5, 2)), rotation, draw(shift), draw(shift))


# geometry


@given(rectangles(), maps())
@settings(max_examples=300)
def test_moved_boxes_equal_the_cut_polygon(rectangle, move):
    height, width, box = rectangle
    matrix = move @ fit(height, width, SIZE)
    (x1, y1, x2, y2), [moved], [share] = box, *warp_boxes(np.array([box]), matrix, SIZE)
    corners = [matrix[:2, :2] @ p + matrix[:2, 2] for p in map(np.array, [(x1, y1), (x2, y1), (x2, y2), (x1, y2)])]
    points = cut_polygon(corners, SIZE)
    if not points:
        assert share < 1e-6
        return
    expected = np.concatenate([np.min(points, axis=0), np.max(points, axis=0)])
    assert moved == pytest.approx(expected, abs=1e-3)
    whole = (np.max(corners, axis=0) - np.min(corners, axis=0)).prod()
    assert share == pytest.approx((expected[2:] - expected[:2]).prod() / whole, abs=1e-4)


def test_pixels_between_equal_bilinear_sampling_by_torch():
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (48, SIZE, 3), dtype=np.uint8)
    matrix = about_center(SIZE, 0.9, 25, 4, -6) @ fit(48, SIZE, SIZE)
    centers = np.stack([*np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5), np.ones((SIZE, SIZE))], axis=2)
    source = (centers @ np.linalg.inv(matrix).T)[..., :2]  # (s, s, 2) px of the image
    grid = torch.from_numpy(source * 2 / [SIZE, 48] - 1)[None]
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    expected = torch.nn.functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False)[0]
    moved = warp_image(image, matrix, SIZE, pad_value=114)
    inside = ((source > 0) & (source < [SIZE, 48])).all(axis=2)
    assert 0.4 < inside.mean() < 0.9
    assert np.abs(moved - expected.permute(1, 2, 0).numpy())[inside].max() <= 1
    assert (moved[~inside] == 114).all()


def test_boxes_that_are_hardly_left_are_dropped_with_their_labels():
    boxes = np.array([[0, 0, 20, 20], [50, 0, 64, 20], [30, 30, 31, 60]], dtype=np.float32)
    item = LabeledImage(black(), boxes, np.array([5, 6, 7]), np.ones(3, dtype=np.float32))

    class Rightwards:  # a generator that always shifts by 60 of 64 px to the right
        def uniform(self, low, high, count=None):
            return (low + high) / 2 if count is None else np.array([60 / SIZE, 0.0])

    def left(rng, **changes):
        return random_affine(item, rng, Augmentation(**changes), SIZE, np.eye(3)).labels.tolist()

    assert left(Rightwards(), translate=1.0, min_visible=0.25) == []
    assert left(Rightwards(), translate=1.0, min_visible=0.1) == [5]
    assert left(np.random.default_rng(0)) == [5, 6, 7]
    assert left(np.random.default_rng(0), scale=(1.0, 1.00001)) == [5, 6]  # moved, and one of 1 px is too narrow


# the whole pipeline, and its parts that put images together


def test_without_augmentation_the_image_is_fitted_like_in_prediction_and_no_box_but_crowds_is_lost():
    image = np.random.default_rng(2).integers(0, 256, (32, SIZE, 3), dtype=np.uint8)
    boxes = [[0, 0, 1, 1], [30, 4, 40, 30], [10, 4, 20, 30]]
    item = augment(sample(image, boxes, crowd=[0, 1, 0]), Augmentation.none(), SIZE, np.random.default_rng(0))
    assert (item.image[16:48] == image).all() and (item.image[:16] == 114).all() and (item.image[48:] == 114).all()
    assert item.boxes.tolist() == [[0, 16, 1, 17], [10, 20, 20, 46]]
    assert item.labels.tolist() == [0, 2] and item.boxes.dtype == np.float32


@given(rectangles(), st.integers(0, 2**32), st.booleans())
@settings(max_examples=200)
def test_the_augmented_box_is_the_box_of_the_augmented_pixels(rectangle, seed, mixed):
    a = replace(
        ON_BLACK, translate=0.25, scale=(0.5, 1.5), channel_swap=0.5, flip=0.5, mixup=float(mixed), min_visible=0.2
    )
    item = augment(drawn(*rectangle), a, SIZE, np.random.default_rng(seed), [sample(black())])
    seen = tight_box(item.image, 63 if mixed else 127)
    if len(item.boxes):
        assert seen == pytest.approx(item.boxes[0], abs=PIXEL)
    elif seen is not None:  # dropped: small, or hardly visible
        _, _, (x1, y1, x2, y2) = rectangle
        whole = (x2 - x1) * (y2 - y1) * (SIZE / max(rectangle[:2]) * 1.5) ** 2
        width, height = seen[2:] - seen[:2]
        assert min(width, height) <= a.min_side + PIXEL or (width - 1) * (height - 1) < a.min_visible * whole


def test_mosaic_shows_four_images_around_a_point_and_keeps_their_labels_apart():
    shapes = [(SIZE, SIZE), (2 * SIZE, SIZE), (SIZE // 2, SIZE // 4), (SIZE, 40)]
    tiles = []
    for k, (height, width) in enumerate(shapes):
        image, whole = np.full((height, width, 3), 50 * (k + 1), dtype=np.uint8), np.array([[0, 0, width, height]])
        tiles.append(LabeledImage(image, whole, np.array([k]), np.ones(1)))
    canvas = mosaic(tiles, np.random.default_rng(3), SIZE, replace(ON_BLACK, min_visible=0))
    assert set(np.unique(canvas.image)) == {0, 50, 100, 150, 200}
    assert canvas.labels.tolist() == [0, 1, 2, 3]
    for (x1, y1, x2, y2), label in zip(canvas.boxes.astype(int), canvas.labels):
        assert (canvas.image[y1:y2, x1:x2] == 50 * (label + 1)).all()
        assert (canvas.image == 50 * (label + 1)).all(axis=2).sum() == (x2 - x1) * (y2 - y1)
    point = canvas.boxes[0, 2:]  # where all four meet
    for meets in (canvas.boxes[1, [0, 3]], canvas.boxes[2, [2, 1]], canvas.boxes[3, :2]):
        assert (meets == point).all()
    assert (point >= SIZE // 2).all() and (point <= SIZE + SIZE // 2).all()


def test_mosaic_in_the_pipeline_shows_other_images_and_mixup_averages_two():
    others = [sample(np.full((SIZE, SIZE, 3), 200, dtype=np.uint8), [[0, 0, SIZE, SIZE]], [9])]
    white = drawn(SIZE, SIZE, (0, 0, 64, 64))
    item = augment(white, replace(ON_BLACK, mosaic=1.0), SIZE, np.random.default_rng(0), others)
    assert item.image.shape == (SIZE, SIZE, 3) and set(item.labels) == {0, 9}
    assert {200, 255} <= set(np.unique(item.image))
    both = augment(white, replace(ON_BLACK, mixup=1.0), SIZE, np.random.default_rng(0), others)
    assert both.image.dtype == np.uint8 and (both.image == 228).all()  # 227.5, rounded up: no overflow
    assert both.boxes.tolist() == [[0, 0, 64, 64]] * 2 and both.labels.tolist() == [0, 9]


@pytest.mark.parametrize("preset", [Augmentation.lab(), replace(Augmentation.coco(), mosaic=0.5)])
def test_weights_stay_with_their_objects_and_change_nothing_else(preset):
    rng = np.random.default_rng(2)
    plain = []
    for index in range(4):
        corners = rng.uniform(0, 40, (5, 2))
        boxes, labels = np.hstack([corners, corners + rng.uniform(3, 30, (5, 2))]), rng.permutation(20)[:5]
        plain.append(sample(rng.integers(0, 256, (60, 70, 3), dtype=np.uint8), boxes, labels, labels == 7, index))
    trusted = [replace(s, weights=((s.labels + 1) / 20).astype(np.float32)) for s in plain]
    before, seen = [s.image.copy() for s in plain], 0
    for seed in range(40):
        without, item = (augment(s[0], preset, 96, np.random.default_rng(seed), s) for s in (plain, trusted))
        assert (without.weights == 1).all() and without.weights.dtype == item.weights.dtype == np.float32
        assert all((a == b).all() for a, b in zip(without[:3], item[:3]))
        np.testing.assert_array_equal(item.weights, ((item.labels + 1) / 20).astype(np.float32))
        seen += len(item.labels)
    assert seen > 100 and all((s.image == image).all() for s, image in zip(plain, before))  # samples stay as they were


def test_each_probability_of_one_changes_every_image_and_of_zero_none():
    image = np.random.default_rng(4).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert (augment(sample(image), Augmentation(flip=1.0), SIZE, rng).image == image[:, ::-1]).all()
        assert (augment(sample(image), Augmentation(channel_swap=1.0), SIZE, rng).image == image[:, :, ::-1]).all()
        assert (augment(sample(image), Augmentation(hue=90, hsv=0.0), SIZE, rng).image == image).all()
    changed = [
        (augment(sample(image), Augmentation(value=30, hsv=1.0), SIZE, rng).image != image).any() for _ in range(200)
    ]
    assert 0.4 < np.mean(changed) < 0.6  # value takes part in half of the cases


# color


@given(st.tuples(*[st.integers(0, 255)] * 3), st.floats(-180, 180), st.floats(-60, 60), st.floats(-60, 60))
@settings(max_examples=200)
def test_colors_shift_as_colorsys_says(color, hue, saturation, value):
    h, s, v = colorsys.rgb_to_hsv(*(channel / 255 for channel in color))
    s, v = np.clip([s + saturation / 255, v + value / 255], 0, 1)
    expected = 255 * np.array(colorsys.hsv_to_rgb((h + hue / 360) % 1, s, v))
    shifted = shift_hsv(np.array(color, dtype=np.uint8).reshape(1, 1, 3), hue, saturation, value)
    # Pillow keeps the hue in 256 steps, twice rounded: up to 1.5 of 255 · 6 / 256 levels; and s, v as whole numbers
    assert np.abs(shifted[0, 0] - expected).max() <= 14


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"flip": 1.5}, "flip is 1.5: give a number from 0 to 1"),
        ({"mixup": float("nan")}, "mixup is nan"),
        ({"scale": (1.5, 0.5)}, r"scale is \(1.5, 0.5\): give the smallest and the largest factor"),
        ({"mixup": 0.5}, "mosaic and mixup need other images"),
    ],
)
def test_bad_settings_are_named(bad, message):
    with pytest.raises(ValueError, match=message):
        augment(sample(black()), Augmentation(**bad), SIZE, np.random.default_rng(0))
