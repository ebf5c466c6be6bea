from base64 import b64decode
from io import BytesIO
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from sample_notebooks import write_sample

from yolonas_lab.teaching import figures
from yolonas_lab.teaching.figures import palette_png, use_palette_png
from yolonas_lab.teaching.notebooks import read_notebook, run_and_store

matplotlib.use("Agg")


@pytest.fixture
def figure():
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(4, 3), dpi=80)
    ax.imshow(np.random.default_rng(0).integers(0, 255, size=(40, 40, 3), dtype=np.uint8))
    ax.plot([0, 39], [0, 39], color=figures.HIGHLIGHT, linewidth=6)
    yield fig
    plt.close(fig)


def _drawn(figure) -> np.ndarray:
    plain = BytesIO()
    figure.savefig(plain, format="png", dpi=figure.dpi)
    return np.asarray(Image.open(plain).convert("RGB")).astype(int)


def test_the_picture_is_smaller_and_hardly_another(figure):
    plain = BytesIO()
    figure.savefig(plain, format="png", dpi=figure.dpi)
    stored = palette_png(figure)
    picture = Image.open(BytesIO(stored))
    assert picture.mode == "P" and picture.size == (320, 240)
    assert len(stored) < 0.6 * len(plain.getvalue())
    difference = abs(np.asarray(picture.convert("RGB")).astype(int) - _drawn(figure))
    assert difference.mean() < 6


def test_white_stays_white_and_thin_colors_keep_their_hue(figure):
    picture = np.asarray(Image.open(BytesIO(palette_png(figure))).convert("RGB")).astype(int)
    assert (picture[0, 0] == 255).all()
    wanted = np.array([int(figures.HIGHLIGHT[i : i + 2], 16) for i in (1, 3, 5)])
    on_line = (abs(_drawn(figure) - wanted).sum(axis=2) == 0).nonzero()
    assert len(on_line[0]) > 50
    assert abs(picture[on_line] - wanted).max() < 40


def test_the_same_figure_gives_the_same_bytes(figure):
    assert palette_png(figure) == palette_png(figure)


def test_it_becomes_the_format_of_figures_in_a_notebook(monkeypatch, figure):
    chosen = {}
    formatter = SimpleNamespace(for_type=lambda kind, function: chosen.update({kind: function}))
    shell = SimpleNamespace(display_formatter=SimpleNamespace(formatters={"image/png": formatter}))
    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: shell)
    use_palette_png()
    stored = chosen[Figure](figure)
    assert isinstance(stored, str)  # a live widget keeps its outputs as JSON
    assert b64decode(stored) == palette_png(figure)


def test_outside_a_notebook_nothing_happens(monkeypatch):
    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: None)
    use_palette_png()


def test_setup_notebook_switches_it_on(tmp_path):
    path = write_sample(tmp_path / "sample.ipynb")
    assert run_and_store(path).error == ""
    stored = [o["data"]["image/png"] for c in read_notebook(path).cells for o in c.get("outputs", []) if "data" in o]
    assert stored and all(Image.open(BytesIO(b64decode(picture))).mode == "P" for picture in stored)
