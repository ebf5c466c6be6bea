"""Detections as a value: shown, saved, filtered, iterated, turned into COCO results; and the drawing itself."""

from io import BytesIO

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

from yolonas_lab.detections import Detection, Detections, class_color

NAMES = ["airplane", "phone", "$5 note", "Straße ✂"]
GREY = np.full((80, 120, 3), 100, dtype=np.uint8)


def three(image: np.ndarray | None = GREY) -> Detections:
    boxes = torch.tensor([[10.0, 20, 50, 60], [60, 5, 110, 70], [0, 0, 119, 79]])
    return Detections(boxes, torch.tensor([0.9, 0.5, 0.25]), torch.tensor([0, 1, 0]), NAMES, image)


# the value


def test_length_iteration_and_one_line():
    found = three()
    assert len(found) == 3
    first = next(iter(found))
    assert first == Detection((10.0, 20.0, 50.0, 60.0), pytest.approx(0.9), 0, "airplane")  # type: ignore[arg-type]
    assert [d.class_name for d in found] == ["airplane", "phone", "airplane"]
    assert repr(found) == "Detections(3: 2 airplane, 1 phone)"
    assert repr(found.filter(2.0)) == "Detections(0)" and list(found.filter(2.0)) == []


def test_filter_keeps_order_and_equal_scores():
    assert [d.score for d in three().filter(0.5)] == pytest.approx([0.9, 0.5])
    assert three().filter(0.0).boxes.tolist() == three().boxes.tolist()
    assert three().filter(0.3).image is GREY


def test_to_coco():
    rows = three().to_coco(image_id=17, category_ids=[1, 90, 5, 6])
    assert [row["category_id"] for row in rows] == [1, 90, 1]
    assert rows[0] == {"image_id": 17, "category_id": 1, "bbox": [10, 20, 40, 40], "score": pytest.approx(0.9)}


# pictures


def test_save_draws_in_full_resolution(tmp_path):
    path = three().filter(0.8).save(tmp_path / "out.png")
    with Image.open(path) as picture:
        pixels = np.array(picture)
    assert pixels.shape == GREY.shape
    assert tuple(pixels[59, 30]) == tuple(pixels[40, 10]) == class_color(0)  # the last row and the first column inside
    assert tuple(pixels[40, 30]) == (100, 100, 100)  # nothing inside
    assert (pixels[70:, 60:] == 100).all()
    assert (GREY == 100).all()  # the original stays


def test_save_writes_the_format_of_the_suffix_and_leaves_nothing_else(tmp_path):
    for name, expected in (("a.png", "PNG"), ("b.JPG", "JPEG"), ("c.webp", "WEBP"), ("d.bmp", "BMP")):
        with Image.open(three().save(str(tmp_path / name), scale=2)) as picture:
            assert picture.format == expected and picture.size == (240, 160)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.JPG", "c.webp", "d.bmp"]


def test_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = three().save(tmp_path / "a.png")
    before = path.read_bytes()

    def full(self, file, *arguments, **options):
        file.write(b"half a picture")
        raise OSError("no space left")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="no space left"):
        three().filter(0.9).save(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_notebook_shows_a_picture():
    def picture(height, width):
        found = Detections(
            torch.zeros(0, 4), torch.zeros(0), torch.zeros(0), NAMES, np.zeros((height, width, 3), np.uint8)
        )
        content = found._repr_jpeg_()
        assert content is not None
        with Image.open(BytesIO(content)) as image:
            assert image.format == "JPEG"
            return image.size

    assert picture(64, 64) == (512, 512)  # small ones enlarged by a whole number
    assert picture(300, 400) == (400, 300)
    assert picture(3000, 2000) == (640, 960)
    assert three(image=None)._repr_jpeg_() is None


def test_show_draws_boxes_and_names_on_the_axis_given():
    figure, (left, right) = plt.subplots(1, 2)
    assert three().show(ax=right, min_score=0.4) is right
    assert not left.patches and not left.texts
    boxes = [patch for patch in right.patches if isinstance(patch, Rectangle)]
    assert [list(box.get_bbox().extents) for box in boxes] == [[10, 20, 50, 60], [60, 5, 110, 70]]
    assert [text.get_text() for text in right.texts] == ["airplane 0.90", "phone 0.50"]
    assert right.get_xlim() == (0, 120) and right.get_ylim() == (80, 0)
    figure.canvas.draw()
    plt.close(figure)


def test_names_that_look_like_formulas_or_are_not_ascii_are_drawn(tmp_path):
    boxes = torch.tensor([[10.0, 30, 60, 60], [20, 40, 90, 70]])
    found = Detections(boxes, torch.tensor([0.5, 0.5]), torch.tensor([2, 3]), [*NAMES[:2], "$x_{$", "Straße ✂"], GREY)
    ax = found.show()
    assert ax.figure is not None
    ax.figure.canvas.draw()  # "$x_{$" would not parse as a formula
    plt.close("all")
    found.save(tmp_path / "a.png")


@pytest.mark.parametrize("box", [[-20.0, -20, 5, 5], [100, 70, 300, 300], [5, 5, 5, 5], [50, 50, 40, 40]])
def test_boxes_on_and_over_the_border_are_drawn(box, tmp_path):
    found = Detections(torch.tensor([box]), torch.ones(1), torch.zeros(1), NAMES, GREY)
    pixels = np.array(Image.open(found.save(tmp_path / "a.png")))
    plate = (pixels == np.array(class_color(0))).all(axis=2)
    assert plate.any(axis=0).sum() > 40  # all of the text is in the picture, wherever the box is


# bad input

one = torch.tensor([[0.0, 0, 1, 1]])
BAD = [
    (lambda tmp: Detections(torch.rand(2, 3), torch.rand(2), torch.zeros(2), NAMES), r"boxes .*\(2, 3\)"),
    (lambda tmp: Detections(one, torch.rand(2), torch.zeros(1), NAMES), r"scores .*\(1,\).*\(2,\)"),
    (lambda tmp: Detections(one, torch.rand(1), torch.tensor([4]), NAMES), r"labels .*0 … 3.*from 4 to 4"),
    (lambda tmp: Detections(one, torch.rand(1), torch.tensor([-1]), NAMES), r"labels .*from -1"),
    (lambda tmp: Detections(one * np.nan, torch.rand(1), torch.zeros(1), NAMES), "NaN or infinite"),
    (lambda tmp: three(None).show(), "no image"),
    (lambda tmp: three(None).save(tmp / "a.png"), "no image"),
    (lambda tmp: three().save(tmp / "a.docx"), r"a\.docx.* suffix"),
    (lambda tmp: three().save(tmp / "picture"), r"picture.* suffix"),
    (lambda tmp: three().save(tmp / "a.png", scale=0), "scale .* 0"),
    (lambda tmp: three().to_coco(1, [1, 2]), "2 category_ids for 4 classes"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_named(call, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        call(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"the folder .*nowhere does not exist; make it first"):
        three().save(tmp_path / "nowhere" / "a.png")
