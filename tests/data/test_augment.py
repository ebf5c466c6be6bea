"""Augmentation: boxes against the pixels of drawn rectangles and a polygon cut by hand; colors against colorsys."""

import colorsys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yolonas_lab.data import Augmentation, LabeledImage, Sample, augment
from yolonas_lab.data.augment import (
    about_center,
    fit,
    mixup,
    mosaic,
    objects_of,
    random_affine,
    shift_hsv,
    warp_boxes,
    warp_image,
)

SIZE = 64
PIXEL = 1.0  # a mask of whole pixels tells an edge to half a pixel, the tip of a turned rectangle to about one
ROUNDED = 90  # interpolation rounds a corner off: at this level of 255 the tip of a turned rectangle is still seen
ON_BLACK = Augmentation(pad_value=0)


def labeled(image, boxes, labels):
    return LabeledImage(image, boxes, labels, np.ones(len(labels), dtype=np.float32))


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


@given(rectangles(), maps())
@settings(max_examples=200)
def test_moved_pixels_lie_within_the_moved_box_and_fill_it(rectangle, move):
    height, width, box = rectangle
    matrix = move @ fit(height, width, SIZE)
    [moved], [share] = warp_boxes(np.array([box]), matrix, SIZE)
    seen = tight_box(warp_image(drawn(height, width, box).image, matrix, SIZE, pad_value=0), ROUNDED)
    if seen is None:
        assert (moved[2:] - moved[:2]).min() <= 2 * PIXEL  # a sliver between pixels
        return
    assert (seen[:2] >= moved[:2] - PIXEL).all() and (seen[2:] <= moved[2:] + PIXEL).all()
    if share > 1 - 1e-6 or move[0, 1] == 0:  # a turned rectangle that is cut may end in a tip thinner than a pixel
        assert seen == pytest.approx(moved, abs=PIXEL)


def test_boxes_moved_by_hand():
    boxes = np.array([[10.0, 20, 30, 40], [40, 20, 60, 40], [0, 0, 64, 64]])
    right = about_center(SIZE, 1, 0, 14, 0)
    moved, share = warp_boxes(boxes, right, SIZE)
    assert moved.tolist() == [[24, 20, 44, 40], [54, 20, 64, 40], [14, 0, 64, 64]]
    assert share == pytest.approx([1, 0.5, 50 / 64])
    quarter_turn = about_center(SIZE, 1, 90, 0, 0)
    assert warp_boxes(boxes[:1], quarter_turn, SIZE)[0] == pytest.approx(np.array([[24, 10, 44, 30]]))
    turned, share = warp_boxes(boxes[2:], about_center(SIZE, 1, 45, 0, 0), SIZE)
    assert turned == pytest.approx(np.array([[0, 0, 64, 64]])) and share == pytest.approx([0.5])
    gone, share = warp_boxes(boxes, about_center(SIZE, 1, 10, 200, 0), SIZE)
    assert not gone.any() and not share.any()
    assert [part.shape for part in warp_boxes(np.zeros((0, 4)), quarter_turn, SIZE)] == [(0, 4), (0,)]


def test_pixels_moved_by_whole_steps_are_copied_exactly():
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    moved = warp_image(image, about_center(SIZE, 1, 0, 5, -3), SIZE, pad_value=7)
    assert (moved[:61, 5:] == image[3:, :59]).all()
    assert (moved[61:] == 7).all() and (moved[:, :5] == 7).all()
    turned = warp_image(image, about_center(SIZE, 1, 90, 0, 0), SIZE, pad_value=7)
    assert np.abs(turned.astype(int) - np.rot90(image, k=-1)).max() <= 1  # Pillow rounds down, also 99.999…


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
    shifted = Augmentation(translate=1.0, min_visible=0.25, min_side=2)

    class Rightwards:  # a generator that always shifts by 60 of 64 px to the right
        def uniform(self, low, high, count=None):
            return (low + high) / 2 if count is None else np.array([60 / SIZE, 0.0])

    for min_visible, expected in ((0.25, []), (0.1, [5])):
        a = replace(shifted, min_visible=min_visible)
        labels = np.array([5, 6, 7])
        item = random_affine(labeled(black(), boxes, labels), Rightwards(), a, SIZE, np.eye(3))  # type: ignore[arg-type]
        assert item.labels.tolist() == expected and len(item.boxes) == len(expected)
    item = labeled(black(), boxes, np.arange(3))
    still = random_affine(item, np.random.default_rng(0), Augmentation(), SIZE, np.eye(3))
    assert still.labels.tolist() == [0, 1, 2]
    still = Augmentation(scale=(1.0, 1.00001))  # now boxes count as moved, and the one of 1 px is too narrow
    assert random_affine(item, np.random.default_rng(0), still, SIZE, np.eye(3)).labels.tolist() == [0, 1]


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


@given(rectangles(), st.integers(0, 3), st.integers(0, 2**32))
@settings(max_examples=200)
def test_mosaic_puts_a_box_where_its_pixels_are(rectangle, place, seed):
    tiles = [objects_of(sample(black(40, 50))) for _ in range(4)]
    tiles[place] = objects_of(drawn(*rectangle))
    canvas = mosaic(tiles, np.random.default_rng(seed), SIZE, ON_BLACK)
    assert canvas.image.shape == (2 * SIZE, 2 * SIZE, 3)
    if len(canvas.boxes):
        assert tight_box(canvas.image) == pytest.approx(canvas.boxes[0], abs=PIXEL)


def test_mosaic_shows_four_images_around_a_point_and_keeps_their_labels_apart():
    tiles = [
        objects_of(sample(np.full((SIZE, SIZE, 3), 50 * (k + 1), dtype=np.uint8), [[0, 0, SIZE, SIZE]], [k]))
        for k in range(4)
    ]
    canvas = mosaic(tiles, np.random.default_rng(3), SIZE, replace(ON_BLACK, min_visible=0))
    assert set(np.unique(canvas.image)) == {0, 50, 100, 150, 200}
    assert canvas.labels.tolist() == [0, 1, 2, 3]
    for (x1, y1, x2, y2), label in zip(canvas.boxes.astype(int), canvas.labels):
        assert (canvas.image[y1:y2, x1:x2] == 50 * (label + 1)).all()
        assert (canvas.image == 50 * (label + 1)).all(axis=2).sum() == (x2 - x1) * (y2 - y1)
    point = canvas.boxes[0, 2:]  # where all four meet
    assert [b.tolist() for b in (canvas.boxes[1, [0, 3]], canvas.boxes[2, [2, 1]], canvas.boxes[3, :2])] == [
        point.tolist()
    ] * 3
    assert (point >= SIZE // 2).all() and (point <= SIZE + SIZE // 2).all()


def test_mosaic_in_the_pipeline_shows_other_images():
    others = [sample(np.full((SIZE, SIZE, 3), 200, dtype=np.uint8), [[0, 0, SIZE, SIZE]], [9])]
    item = augment(
        drawn(SIZE, SIZE, (0, 0, 64, 64)), replace(ON_BLACK, mosaic=1.0), SIZE, np.random.default_rng(0), others
    )
    assert item.image.shape == (SIZE, SIZE, 3) and set(item.labels) == {0, 9}
    assert {200, 255} <= set(np.unique(item.image))


def test_mixup_averages_and_keeps_both_sets_of_boxes():
    first = labeled(np.full((2, 2, 3), 255, dtype=np.uint8), np.array([[0, 0, 1, 1.0]]), np.array([3]))
    second = labeled(np.full((2, 2, 3), 254, dtype=np.uint8), np.array([[1, 1, 2, 2.0]]), np.array([4]))
    both = mixup(first, second)
    assert both.image.dtype == np.uint8 and (both.image == 255).all()  # 254.5, rounded up: no overflow
    assert both.boxes.tolist() == [[0, 0, 1, 1], [1, 1, 2, 2]] and both.labels.tolist() == [3, 4]


@pytest.mark.parametrize("preset", [Augmentation.lab(), replace(Augmentation.coco(), mosaic=0.5)])
def test_weights_stay_with_their_objects_and_change_nothing_else(preset):
    rng = np.random.default_rng(2)
    plain = []
    for index in range(4):
        corners = rng.uniform(0, 40, (5, 2))
        boxes, labels = np.hstack([corners, corners + rng.uniform(3, 30, (5, 2))]), rng.permutation(20)[:5]
        plain.append(sample(rng.integers(0, 256, (60, 70, 3), dtype=np.uint8), boxes, labels, labels == 7, index))
    trusted = [replace(s, weights=((s.labels + 1) / 20).astype(np.float32)) for s in plain]
    seen = 0
    for seed in range(40):
        without, item = (augment(s[0], preset, 96, np.random.default_rng(seed), s) for s in (plain, trusted))
        assert (without.weights == 1).all() and without.weights.dtype == item.weights.dtype == np.float32
        assert all((a == b).all() for a, b in zip(without[:3], item[:3]))
        np.testing.assert_array_equal(item.weights, ((item.labels + 1) / 20).astype(np.float32))
        seen += len(item.labels)
    assert seen > 100


def test_objects_without_weights_count_fully_beside_others():
    first, second = drawn(SIZE, SIZE, (0, 0, 20, 20)), drawn(SIZE, SIZE, (9, 9, 40, 50))
    doubted = replace(second, weights=np.array([0.25], dtype=np.float32))
    assert mixup(objects_of(first), objects_of(doubted)).weights.tolist() == [1, 0.25]
    assert mixup(objects_of(first), objects_of(second)).weights.tolist() == [1, 1]
    tiles = [objects_of(s) for s in (doubted, first, first, doubted)]
    canvas = mosaic(tiles, np.random.default_rng(0), SIZE, replace(ON_BLACK, min_visible=0, min_side=0))
    assert canvas.weights.tolist() == [0.25, 1, 1, 0.25]


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


@pytest.mark.parametrize("preset", [Augmentation.none(), Augmentation.lab(), replace(Augmentation.coco(), mosaic=0.5)])
def test_the_same_generator_gives_the_same_example_and_the_sample_stays_as_it_was(preset):
    rng = np.random.default_rng(5)
    image = rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)
    original = sample(image, [[5, 6, 30, 40], [40, 10, 69, 49]])
    copies = image.copy(), original.boxes.copy()
    first, second = (augment(original, preset, 96, np.random.default_rng(6), [original] * 3) for _ in range(2))
    assert all((a == b).all() for a, b in zip(first[:3], second[:3]))
    assert first.image.shape == (96, 96, 3) and first.image.dtype == np.uint8
    assert len(first.boxes) == len(first.labels) and first.boxes.dtype == np.float32
    for seed in range(20):
        augment(original, preset, 96, np.random.default_rng(seed), [original] * 3)
    assert (original.image == copies[0]).all() and (original.boxes == copies[1]).all()


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


def test_colors_by_hand():
    gray = np.full((2, 2, 3), 100, dtype=np.uint8)
    assert (shift_hsv(gray, 50, 0, 20) == 120).all()
    assert (shift_hsv(gray, 0, 0, -120) == 0).all() and (shift_hsv(gray, 0, 0, 200) == 255).all()
    red = np.zeros((1, 1, 3), dtype=np.uint8)
    red[..., 0] = 200
    for degrees, expected in ((120, [0, 200, 0]), (-120, [0, 0, 200]), (60, [200, 200, 0]), (360, [200, 0, 0])):
        assert shift_hsv(red, degrees, 0, 0)[0, 0].tolist() == pytest.approx(expected, abs=6)  # 256 steps of hue


# settings


BAD = [
    ({"flip": 1.5}, "flip is 1.5: give a number from 0 to 1"),
    ({"mixup": float("nan")}, "mixup is nan"),
    ({"scale": (1.5, 0.5)}, r"scale is \(1.5, 0.5\): give the smallest and the largest factor"),
    ({"scale": (0.0, 1.0)}, r"scale is \(0.0, 1.0\)"),
]


@pytest.mark.parametrize(("bad", "message"), BAD)
def test_bad_settings_are_named(bad, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**bad)


def test_mixup_without_other_images_is_refused():
    with pytest.raises(ValueError, match="mosaic and mixup need other images"):
        augment(sample(black()), Augmentation(mixup=0.5), SIZE, np.random.default_rng(0))
