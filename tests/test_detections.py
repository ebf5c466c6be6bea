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

NAMES = ["airplane", "phone", "$x_{$", "Straße ✂"]  # the third would not parse as a formula
GREY = np.full((80, 120, 3), 100, dtype=np.uint8)


def three(image: np.ndarray | None = GREY, labels=(0, 1, 0)) -> Detections:
    boxes = torch.tensor([[10.0, 20, 50, 60], [60, 5, 110, 70], [0, 0, 119, 79]])
    return Detections(boxes, torch.tensor([0.9, 0.5, 0.25]), torch.tensor(labels), NAMES, image)


def test_a_value_that_is_iterated_filtered_and_written_as_coco():
    found = three()
    first = next(iter(found))
    assert first == Detection((10.0, 20.0, 50.0, 60.0), pytest.approx(0.9), 0, "airplane")  # type: ignore[arg-type]
    assert repr(found) == "Detections(3: 2 airplane, 1 phone)" and repr(found.filter(2.0)) == "Detections(0)"
    assert [d.score for d in found.filter(0.5)] == pytest.approx([0.9, 0.5])  # equal scores stay
    assert found.filter(0.3).image is GREY
    rows = found.to_coco(image_id=17, category_ids=[1, 90, 5, 6])
    assert [row["category_id"] for row in rows] == [1, 90, 1]
    assert rows[0] == {"image_id": 17, "category_id": 1, "bbox": [10, 20, 40, 40], "score": pytest.approx(0.9)}


def test_save_draws_in_full_resolution(tmp_path):
    with Image.open(three().filter(0.8).save(tmp_path / "out.png")) as picture:
        pixels = np.array(picture)
    assert pixels.shape == GREY.shape
    assert tuple(pixels[59, 30]) == tuple(pixels[40, 10]) == class_color(0)  # the last row and the first column inside
    assert tuple(pixels[40, 30]) == (100, 100, 100) and (pixels[70:, 60:] == 100).all()  # nothing inside and outside
    assert (GREY == 100).all()  # the original stays


def test_save_writes_the_format_of_the_suffix_and_a_failure_keeps_the_old_file(tmp_path, monkeypatch):
    for name, expected in (("a.png", "PNG"), ("b.JPG", "JPEG"), ("c.webp", "WEBP")):
        with Image.open(three().save(str(tmp_path / name), scale=2)) as picture:
            assert picture.format == expected and picture.size == (240, 160)
    before = (tmp_path / "a.png").read_bytes()

    def full(self, file, *arguments, **options):
        file.write(b"half a picture")
        raise OSError("no space left")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="no space left"):
        three().filter(0.9).save(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.JPG", "c.webp"]


@pytest.mark.parametrize(
    ("height", "width", "shown"),
    [(64, 64, (512, 512)), (300, 400, (400, 300)), (3000, 2000, (640, 960))],  # small ones by a whole number
)
def test_a_notebook_shows_a_picture(height, width, shown):
    content = three(np.zeros((height, width, 3), np.uint8))._repr_jpeg_()
    assert content is not None and three(image=None)._repr_jpeg_() is None
    with Image.open(BytesIO(content)) as image:
        assert image.format == "JPEG" and image.size == shown


def test_show_draws_boxes_and_names_on_the_axis_given():
    figure, (left, right) = plt.subplots(1, 2)
    assert three(labels=(0, 2, 3)).show(ax=right, min_score=0.4) is right
    assert not left.patches and not left.texts
    boxes = [patch for patch in right.patches if isinstance(patch, Rectangle)]
    assert [list(box.get_bbox().extents) for box in boxes] == [[10, 20, 50, 60], [60, 5, 110, 70]]
    assert [text.get_text() for text in right.texts] == ["airplane 0.90", "$x_{$ 0.50"]
    assert right.get_xlim() == (0, 120) and right.get_ylim() == (80, 0)
    figure.canvas.draw()
    assert three().show() is not right  # a figure of its own
    plt.close("all")


@pytest.mark.parametrize("box", [[-20.0, -20, 5, 5], [100, 70, 300, 300], [5, 5, 5, 5], [50, 50, 40, 40]])
def test_boxes_on_and_over_the_border_are_drawn(box, tmp_path):
    found = Detections(torch.tensor([box]), torch.ones(1), torch.tensor([3]), NAMES, GREY)
    pixels = np.array(Image.open(found.save(tmp_path / "a.png")))
    plate = (pixels == np.array(class_color(3))).all(axis=2)
    assert plate.any(axis=0).sum() > 40  # all of the text is in the picture, wherever the box is


one = torch.tensor([[0.0, 0, 1, 1]])
BAD = [
    (lambda tmp: Detections(torch.rand(2, 3), torch.rand(2), torch.zeros(2), NAMES), r"boxes .*\(2, 3\)"),
    (lambda tmp: Detections(one, torch.rand(2), torch.zeros(1), NAMES), r"scores .*\(1,\).*\(2,\)"),
    (lambda tmp: Detections(one, torch.rand(1), torch.tensor([4]), NAMES), r"labels .*0 … 3.*from 4 to 4"),
    (lambda tmp: Detections(one * np.nan, torch.rand(1), torch.zeros(1), NAMES), "NaN or infinite"),
    (lambda tmp: three(None).show(), "no image"),
    (lambda tmp: three().save(tmp / "a.docx"), r"a\.docx.* suffix"),
    (lambda tmp: three().save(tmp / "a.png", scale=0), "scale .* 0"),
    (lambda tmp: three().save(tmp / "nowhere" / "a.png"), r"the folder .*nowhere does not exist; make it first"),
    (lambda tmp: three().to_coco(1, [1, 2]), "2 category_ids for 4 classes"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_named(call, message, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        call(tmp_path)
