from base64 import b64decode
from io import BytesIO
from types import SimpleNamespace

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from PIL import Image

from yolonas_lab import detections as drawing
from yolonas_lab.teaching import figures

# Colors as seen with each form of color blindness, in linear RGB: Machado, Oliveira and Fernandes (2009), severity 1.
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
PAIRS = "FP32 INT8, GROUND_TRUTH PREDICTION, TEACHER STUDENT, TRAIN VALIDATION, CORRECT WRONG, QAREPVGG REPVGG, "
PAIRS += "HIGHLIGHT MUTED, PICO NANO, NANO S, S M, M L"
SIDE_BY_SIDE = [pair.split() for pair in PAIRS.split(", ")]


def lab(color: str, vision: str) -> np.ndarray:
    """Return CIELAB coordinates of a color as seen with a kind of vision (D65 white)."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(VISION[vision]) @ linear, 0, 1)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    xyz = (np.array(to_xyz) @ seen) / [0.95047, 1.0, 1.08883]
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISION)
def test_colors_that_appear_side_by_side_stay_apart(vision):
    for one, other in SIDE_BY_SIDE:
        distance = np.linalg.norm(lab(getattr(figures, one), vision) - lab(getattr(figures, other), vision))
        assert distance > 20, (one, other)  # a difference of 2.3 is just noticeable


def test_the_color_distance_itself_is_right():
    assert lab("white", "normal") == pytest.approx([100, 0, 0], abs=0.01)
    assert lab("red", "normal") == pytest.approx([53.24, 80.09, 67.20], abs=0.02)  # published values of sRGB red
    red, green = lab("#c00000", "protanopia"), lab("#5a5a00", "protanopia")
    assert np.linalg.norm(red - green) < np.linalg.norm(lab("#c00000", "normal") - lab("#5a5a00", "normal")) / 2


def test_each_class_has_its_own_color_the_same_as_in_detections():
    colors = [figures.class_color(label) for label in range(80)]
    assert len(set(colors)) == 80 and tuple(colors[: len(figures.CLASS_COLORS)]) == figures.CLASS_COLORS
    assert colors[3] == "#{:02X}{:02X}{:02X}".format(*drawing.class_color(3))


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def test_box_coordinates_are_edges_of_pixels(ax):
    figures.show_image(ax, np.zeros((4, 6, 3), np.uint8))
    assert ax.images[0].get_extent() == [0, 6, 4, 0]


def test_images_of_models_and_of_files_look_the_same(ax):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    tensor = torch.tensor(image).permute(2, 0, 1) / 255
    for shown in (image, tensor, image / 255):
        assert figures.show_image(ax, shown) is ax
    first, second, third = (np.asarray(i.to_rgba(i.get_array(), bytes=True)) for i in ax.images)
    assert first.shape == (5, 7, 4) and np.array_equal(first, second) and np.array_equal(first, third)


def test_boxes_are_drawn_at_their_corners_with_name_and_score(ax):
    boxes = torch.tensor([[1.0, 2, 4, 6], [0, 0, 2, 2]])
    names = ["anchor", "knight"]
    figures.draw_boxes(ax, np.zeros((10, 10, 3), np.uint8), boxes, torch.tensor([1, 0]), [0.912, 0.5], names)
    assert [patch.get_bbox().extents.tolist() for patch in ax.patches] == boxes.tolist()
    assert [text.get_text() for text in ax.texts] == ["knight 0.91", "anchor 0.50"]
    edge = to_hex(ax.patches[0].get_edgecolor())
    assert edge == figures.class_color(1).lower()


def test_no_boxes_are_no_error_and_bare_boxes_have_the_color_of_predictions(ax):
    figures.draw_boxes(ax, None, [])
    assert not ax.patches
    figures.draw_boxes(ax, None, [[0, 0, 1, 1]])
    assert to_hex(ax.patches[0].get_edgecolor()) == figures.PREDICTION.lower() and not ax.texts


def test_a_matrix_shows_its_numbers_and_zero_is_white(ax):
    figures.show_matrix(ax, torch.tensor([[-2.0, 0.0], [1.0, 0.5]]), "kernel", "{:.1f}")
    assert [text.get_text() for text in ax.texts] == ["-2.0", "0.0", "1.0", "0.5"]
    (image,) = ax.images
    assert image.get_clim() == (-2, 2) and min(image.to_rgba(0.0)[:3]) > 0.95
    inks = [text.get_color() for text in ax.texts]
    assert inks[0] == "white" and inks[1] == "black"
    figures.show_matrix(ax, [[1.0]], signed=True)
    figures.show_matrix(ax, [[1.0]], limit=4)
    assert [image.get_clim() for image in ax.images[1:]] == [(-1, 1), (0, 4)]


def test_numbers_are_written_for_people():
    assert [figures.format_count(n) for n in (0, 999_999)] == ["0", "999,999"]
    assert figures.format_change(1.849) == "1.85×"


def test_arrays_of_all_kinds_become_numpy_arrays():
    for values in ([1.0, 2.0], np.array([1.0, 2.0]), torch.tensor([1.0, 2.0], requires_grad=True)):
        assert figures.as_array(values).tolist() == [1, 2]


def test_means_and_differences_stand_where_they_should(ax):
    figures.draw_means(ax, [0, 1], [[1.0, 3.0], [4.0, 8.0]], "red", "mean")
    dots, line = ax.lines
    assert dots.get_xydata().tolist() == [[0, 1], [0, 3], [1, 4], [1, 8]] and list(line.get_ydata()) == [2, 6]
    ax.clear()
    found = SimpleNamespace(values=[0.1, 0.2], mean=0.15, low=0.05, high=0.25)
    figures.draw_differences(ax, {"first": found, "second": found}, "red", "AP")
    seeds, interval, mean = ax.lines[:3]
    assert list(seeds.get_xdata()) == [0.1, 0.2] and list(interval.get_xdata()) == [0.05, 0.25]
    assert list(mean.get_xdata()) == [0.15] and [t.get_text() for t in ax.get_yticklabels()] == ["first", "second"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first on top


@pytest.fixture
def colorful(ax):
    """A figure with a noisy picture and a line in one color on white."""
    ax.figure.set(size_inches=(4, 3), dpi=80)
    ax.imshow(np.random.default_rng(0).integers(0, 255, size=(40, 40, 3), dtype=np.uint8))
    ax.plot([0, 39], [0, 39], color=figures.HIGHLIGHT, linewidth=6)
    return ax.figure


def pixels_of(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(png)).convert("RGB")).astype(int)


def test_a_palette_makes_the_picture_smaller_and_hardly_another(colorful):
    plain = BytesIO()
    colorful.savefig(plain, format="png", dpi=80)
    stored, drawn = figures.palette_png(colorful), pixels_of(plain.getvalue())
    picture = pixels_of(stored)
    assert stored == figures.palette_png(colorful) and Image.open(BytesIO(stored)).mode == "P"
    assert picture.shape == (240, 320, 3) and len(stored) < 0.6 * len(plain.getvalue())
    assert abs(picture - drawn).mean() < 6 and (picture[0, 0] == 255).all()  # white stays white
    wanted = (255 * np.array(to_rgb(figures.HIGHLIGHT))).round()
    on_line = (drawn == wanted).all(axis=2)
    assert on_line.sum() > 50 and abs(picture[on_line] - wanted).max() < 40  # thin colors keep their hue


def test_the_palette_becomes_the_format_of_figures_in_a_notebook(colorful):
    chosen = {}
    formatter = SimpleNamespace(for_type=lambda kind, function: chosen.update({kind: function}))
    figures.use_palette_png(SimpleNamespace(display_formatter=SimpleNamespace(formatters={"image/png": formatter})))
    stored = chosen[Figure](colorful)
    assert isinstance(stored, str)  # a live widget keeps its outputs as JSON
    assert b64decode(stored) == figures.palette_png(colorful)
