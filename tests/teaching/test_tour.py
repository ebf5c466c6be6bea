"""The published table, the course map and the cover of notebook 00."""

import re
from pathlib import Path

import matplotlib
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from data_script import load_script

from yolonas_lab.teaching import published
from yolonas_lab.teaching.lessons import nb00 as course_map
from yolonas_lab.teaching.published import PublishedResult

ROOT = Path(__file__).parents[2]


def test_published_rows_and_the_loss_computed_from_them():
    rows = {result.name: (result.map, result.ms) for result in published.YOLO_NAS}
    assert rows["S FP16"] == (47.5, 3.21) and rows["L INT8"] == (52.1, 4.78)
    losses = [round(rows[f"{size} FP16"][0] - rows[f"{size} INT8"][0], 2) for size in "SML"]
    assert losses == [0.47, 0.55, 0.12]
    assert losses != list(published.MAP_LOSS_IN_TEXT.values())


def test_frontier_by_hand_and_by_definition():
    a, b, c, d = (
        PublishedResult(*row) for row in [("a", "x", 40, 1), ("b", "x", 39, 2), ("c", "x", 50, 3), ("d", "x", 50, 4)]
    )
    assert published.frontier([d, c, b, a]) == [a, c]
    results = published.YOLO_NAS
    undominated = [r for r in results if not any(o != r and o.ms <= r.ms and o.map >= r.map for o in results)]
    assert published.frontier(results) == sorted(undominated, key=lambda r: r.ms)


def test_frontier_figure_shows_every_result():
    _, ax = plt.subplots()
    assert published.draw_frontier(ax) is ax
    points = {(x, y) for line in ax.lines[1:] for x, y in np.asarray(line.get_xydata()).tolist()}
    assert points == {(r.ms, r.map) for r in published.YOLO_NAS}
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    assert all(left < x < right and bottom < y < top for x, y in points)
    plt.close("all")


def test_map_names_all_fifteen_notebooks_as_the_readme_does():
    all_chapters = course_map.chapters()
    assert [chapter.number for chapter in all_chapters] == [f"{i:02d}" for i in range(15)]
    rows = re.findall(r"^\| (\d\d) \|.*\| (here|planned) \|$", (ROOT / "README.md").read_text(), flags=re.M)
    assert dict(rows) == {c.number: "here" if c.here else "planned" for c in all_chapters}


def test_notebooks_said_to_be_here_are_here():
    there = {path.name[:2] for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")}
    assert {chapter.number for chapter in course_map.chapters() if chapter.here} == there


def test_map_texts_stay_inside_their_boxes():
    figure, ax = plt.subplots(figsize=(9.2, 5.4), dpi=84, layout="constrained")  # as in the notebook
    assert course_map.draw_course_map(ax) is ax
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()  # pyright: ignore[reportAttributeAccessIssue]
    boxes = [patch.get_window_extent() for patch in ax.patches if type(patch).__name__ == "FancyBboxPatch"]
    texts = {text.get_text(): text.get_window_extent(renderer) for text in ax.texts}
    assert len(boxes) == 15
    for chapter in course_map.chapters():
        for words in (chapter.title, chapter.idea):
            extent = texts[words]
            inside = [
                b for b in boxes if b.x0 <= extent.x0 and extent.x1 <= b.x1 and b.y0 <= extent.y0 and extent.y1 <= b.y1
            ]
            assert inside, f"{words!r} leaves its box"
    plt.close("all")


def test_cover_is_small_and_about_1200_px_wide(tmp_path):
    from PIL import Image

    load_script("make_cover").save_cover(tmp_path / "cover.png")
    assert [path.name for path in tmp_path.iterdir()] == ["cover.png"]
    assert (tmp_path / "cover.png").stat().st_size < 120_000
    assert Image.open(tmp_path / "cover.png").width == pytest.approx(1200, abs=20)
    plt.close("all")
