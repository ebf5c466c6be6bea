import matplotlib
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from yolonas_lab.models import CONFIGS
from yolonas_lab.teaching.lessons.nb04 import draw_csp_layer, draw_network


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def texts(ax):
    return [t.get_text() for t in ax.texts if t.get_text()]


@pytest.mark.parametrize("name", list(CONFIGS))
def test_every_size_is_drawn_inside_its_boxes(name):
    ax = draw_network(CONFIGS[name])
    ax.figure.canvas.draw()
    boxes = [patch.get_window_extent() for patch in ax.patches if type(patch).__name__ == "FancyBboxPatch"]
    assert len(boxes) == 18
    inside = [t for t in ax.texts if t.get_fontsize() < 9.3 and t.get_text()]
    for text in inside:
        extent = text.get_window_extent()
        assert any(
            b.x0 <= extent.x0 and extent.x1 <= b.x1 and b.y0 <= extent.y0 and extent.y1 <= b.y1 for b in boxes
        ), text.get_text()


def test_the_numbers_of_s_are_those_of_its_config():
    ax = draw_network(CONFIGS["yolo_nas_s"])
    words = texts(ax)
    for expected in ("48 ch, 320×320", "5 × 96", "2 × 64 (plain)", "6,400 points", "400 points", "max over 5, 9, 13"):
        assert expected in words
    assert "80 class logits and" in words and "68 box logits each" in words


def test_image_size_and_classes_are_followed():
    ax = draw_network(CONFIGS["yolo_nas_m"], image_size=96, num_classes=3)
    words = texts(ax)
    assert "144 points" in words and "9 points" in words and "3 class logits and" in words
    assert "3 × 128 concat" in words


def test_given_axes_are_drawn_on_and_returned():
    _, ax = plt.subplots()
    assert draw_network(CONFIGS["yolo_nas_pico"], ax=ax) is ax
    assert draw_csp_layer(CONFIGS["yolo_nas_s"].backbone[0], 96, ax=ax) is ax


@pytest.mark.parametrize("size", [0, 100, -32])
def test_sizes_off_the_grid_are_refused(size):
    with pytest.raises(ValueError, match="multiple of 32"):
        draw_network(CONFIGS["yolo_nas_s"], image_size=size)


@pytest.mark.parametrize(("name", "pieces"), [("yolo_nas_s", "2 × 32"), ("yolo_nas_m", "4 × 64")])
def test_csp_layer_counts_what_is_concatenated(name, pieces):
    ax = draw_csp_layer(CONFIGS[name].backbone[0], 96)
    assert pieces in texts(ax)
