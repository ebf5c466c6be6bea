"""The course map and the cover of notebook 00."""

import re
from pathlib import Path

import matplotlib
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from data_script import load_script

from yolonas_lab.teaching.lessons.nb00 import ROWS, draw_course_map

CHAPTERS = sorted(chapter for row in ROWS.values() for chapter in row)
ROOT = Path(__file__).parents[2]


def test_map_names_all_fifteen_notebooks_as_readme_and_folder_do():
    here = {chapter.number: chapter.here for chapter in CHAPTERS}
    assert list(here) == [f"{i:02d}" for i in range(15)]
    rows = re.findall(r"^\| (\d\d) \|.*\| (here|planned) \|$", (ROOT / "README.md").read_text(), flags=re.M)
    assert dict(rows) == {number: "here" if there else "planned" for number, there in here.items()}
    assert {p.name[:2] for p in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")} == {n for n in here if here[n]}


def test_map_texts_stay_inside_their_boxes():
    figure, ax = plt.subplots(figsize=(9.2, 5.4), dpi=84, layout="constrained")  # as in the notebook
    draw_course_map(ax)
    figure.canvas.draw()
    boxes = [patch.get_window_extent() for patch in ax.patches if type(patch).__name__ == "FancyBboxPatch"]
    extents = {text.get_text(): text.get_window_extent() for text in ax.texts}
    for words in (words for chapter in CHAPTERS for words in (chapter.title, chapter.idea)):
        e = extents[words]
        assert any(b.x0 <= e.x0 and e.x1 <= b.x1 and b.y0 <= e.y0 and e.y1 <= b.y1 for b in boxes), words
    plt.close(figure)


@pytest.mark.slow
def test_cover_is_small_and_about_1200_px_wide(tmp_path):
    from PIL import Image

    load_script("make_cover").save_cover(tmp_path / "cover.png")
    assert [path.name for path in tmp_path.iterdir()] == ["cover.png"]
    assert (tmp_path / "cover.png").stat().st_size < 120_000
    assert Image.open(tmp_path / "cover.png").width == pytest.approx(1200, abs=20)
    plt.close("all")
