import json
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

import yolonas_lab as yl
from tests.training.labeled_folders import CLASSES, SIDE, coco, images, teacher
from yolonas_lab.common import weights_digest
from yolonas_lab.training import pseudo_labels
from yolonas_lab.training.pseudo_labels import (
    THRESHOLDS,
    compare_labels,
    hide_labels,
    make_pseudo_labels,
    precision_recall,
)

ANSWERS = {
    10: [(4, 4, 24, 24, 0, 0.9), (30, 30, 60, 50, 1, 0.6), (2, 40, 22, 60, 0, 0.4)],
    20: [(10, 10, 40, 40, 1, 0.8)],
    30: [(10, 10, 40, 40, 0, 0.2)],
}


@pytest.fixture
def folder(tmp_path):
    return images(tmp_path / "images", [10, 20, 30])


def annotations_of(path):
    return json.loads(path.read_text())["annotations"]


@pytest.mark.filterwarnings("ignore:1 of 3 images have no box")
def test_the_file_by_hand(folder, tmp_path):
    known = teacher(ANSWERS)
    report = make_pseudo_labels(known, folder, tmp_path / "out.json", threshold=0.5)
    assert (report.images, report.boxes, report.images_without_boxes) == (2, {"ant": 1, "bee": 2}, 1)
    assert "3 boxes in 2 images (1 ant, 2 bee); 1.00 boxes per image" in str(report)
    assert "1 images left out: no box above the threshold" in str(report)
    content = json.loads((tmp_path / "out.json").read_text())
    assert [row["file_name"] for row in content["images"]] == ["010.png", "020.png"]
    assert content["categories"] == [{"id": 1, "name": "ant"}, {"id": 2, "name": "bee"}]
    first = content["annotations"][0]
    assert first["bbox"] == [4, 4, 20, 20] and first["area"] == 400 and first["iscrowd"] == 0
    assert first["score"] == first["weight"] == 0.9
    assert [row["id"] for row in content["annotations"]] == [1, 2, 3]
    made = content["info"]["pseudo_labels"]
    assert made["teacher"] == "KnownDetector" and made["teacher_sha256"] == weights_digest(known)
    assert made["threshold"] == {"ant": 0.5, "bee": 0.5} and made["images_dir"] == str(folder.resolve())
    data = yl.data.CocoDataset(folder, tmp_path / "out.json")
    assert data.report.boxes == 3 and data[0].labels.tolist() == [0, 1]
    assert len(COCO(str(tmp_path / "out.json")).getAnnIds()) == 3


def test_a_threshold_for_each_class(folder, tmp_path):
    report = make_pseudo_labels(teacher(ANSWERS), folder, tmp_path / "out.json", {"ant": 0.1, "bee": 0.7})
    assert report.boxes == {"ant": 3, "bee": 1} and report.images_without_boxes == 0
    make_pseudo_labels(teacher(ANSWERS), folder, tmp_path / "plain.json", 0.1, weighted=False)
    assert not any("weight" in row for row in annotations_of(tmp_path / "plain.json"))


def test_a_data_set_keeps_its_category_ids_and_its_order(folder, tmp_path):
    data = coco(tmp_path / "unlabeled.json", folder, [30, 10])
    make_pseudo_labels(teacher(ANSWERS), data, tmp_path / "out.json", 0.1)
    content = json.loads((tmp_path / "out.json").read_text())
    assert [row["file_name"] for row in content["images"]] == ["030.png", "010.png"]
    assert [row["category_id"] for row in content["annotations"]] == [3, 3, 7, 3]


@pytest.mark.filterwarnings("ignore:.*have no box")
@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7, 0.85])
def test_the_file_is_what_the_curves_foretold(folder, tmp_path, threshold):
    truth = [(10, 4, 4, 20, 20, 0), (10, 2, 40, 20, 20, 0), (20, 10, 10, 30, 30, 0)]
    data = coco(tmp_path / "truth.json", folder, [10, 20, 30], truth)
    known = teacher(ANSWERS)
    curves = precision_recall(known, data)
    column = int(np.abs(THRESHOLDS - threshold).argmin())
    make_pseudo_labels(known, hide_labels(data, tmp_path / "hidden.json"), tmp_path / "out.json", threshold)
    found = compare_labels(yl.data.CocoDataset(folder, tmp_path / "out.json"), data)
    assert found.boxes_per_image == pytest.approx(curves.boxes_per_image[column])
    assert found.precision == pytest.approx(curves.overall.precision[0, column])
    assert found.recall == pytest.approx(curves.overall.recall[0, column])


def test_a_finished_file_is_only_read(folder, tmp_path):
    out = tmp_path / "out.json"
    first = make_pseudo_labels(teacher(ANSWERS), folder, out, 0.15)
    known = teacher(ANSWERS)
    assert make_pseudo_labels(known, folder, out, 0.15) == first and not known.inputs
    for changes, what in (
        ({"threshold": 0.16}, "threshold"),
        ({"weighted": False}, "weighted"),
        ({"nms_iou": 0.5}, "nms_iou"),
        ({"image_size": 96}, "image_size"),
    ):
        settings: dict[str, Any] = {"threshold": 0.15} | changes
        with pytest.raises(FileExistsError, match=rf"out.json was made with another {what}: delete it"):
            make_pseudo_labels(known, folder, out, **settings)
    known.get_buffer("frozen.running_mean").add_(1)
    with pytest.raises(FileExistsError, match="another teacher_sha256"):
        make_pseudo_labels(known, folder, out, 0.15)
    images(folder, [40])
    with pytest.raises(FileExistsError, match="another file_names_sha256, images"):
        make_pseudo_labels(teacher(ANSWERS), folder, out, 0.15)


def test_somebody_elses_file_is_not_replaced(folder, tmp_path):
    coco(tmp_path / "out.json", folder, [10])
    before = (tmp_path / "out.json").read_bytes()
    with pytest.raises(FileExistsError, match="holds no pseudo-labels of ours"):
        make_pseudo_labels(teacher(ANSWERS), folder, tmp_path / "out.json")
    assert (tmp_path / "out.json").read_bytes() == before


class Stopped(Exception):
    pass


def stopping_teacher(after):
    """It stops before the image number `after`."""
    known = teacher(ANSWERS)
    answer = known.answer

    def limited(image):
        if len(known.inputs) > after:
            raise Stopped
        return answer(image)

    known.answer = limited
    return known


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_stopped_call_goes_on_where_it_was(folder, tmp_path, after):
    make_pseudo_labels(teacher(ANSWERS), folder, tmp_path / "whole.json", 0.15)
    out = tmp_path / "out.json"
    with pytest.raises(Stopped):
        make_pseudo_labels(stopping_teacher(after), folder, out, 0.15, batch_size=1)
    assert not out.exists()
    log = tmp_path / "out.json.unfinished"
    log.write_bytes(log.read_bytes() + b'{"file_name": "02')  # as if it had stopped while writing
    known = teacher(ANSWERS)
    report = make_pseudo_labels(known, folder, out, 0.15, batch_size=1)
    assert len(known.inputs) == 3 - after and report.images == 3
    assert out.read_bytes() == (tmp_path / "whole.json").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "out.json", "whole.json"]


def test_a_stopped_call_does_not_go_on_with_other_settings(folder, tmp_path):
    with pytest.raises(Stopped):
        make_pseudo_labels(stopping_teacher(1), folder, tmp_path / "out.json", 0.15, batch_size=1)
    with pytest.raises(ValueError, match="unfinished was begun with another threshold: delete it"):
        make_pseudo_labels(teacher(ANSWERS), folder, tmp_path / "out.json", 0.5)
    log = tmp_path / "out.json.unfinished"
    log.write_bytes(log.read_bytes().replace(b'{"file_name"', b'"file_name"'))
    with pytest.raises(ValueError, match=re.escape("Line 2 of") + ".* is damaged: delete"):
        make_pseudo_labels(teacher(ANSWERS), folder, tmp_path / "out.json", 0.15)


def test_a_file_that_cannot_be_written_leaves_the_work_done(folder, tmp_path, monkeypatch):
    def full(path, *content):
        raise OSError("no space left")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space left"):
        patch.setattr(pseudo_labels, "write_coco", full)
        make_pseudo_labels(teacher(ANSWERS), folder, tmp_path / "out.json", 0.15)
    known = teacher(ANSWERS)
    assert make_pseudo_labels(known, folder, tmp_path / "out.json", 0.15).images == 3 and not known.inputs


def test_unreadable_files_are_counted(folder, tmp_path):
    (folder / "005.png").write_bytes(b"no picture")
    whole = (folder / "020.png").read_bytes()
    (folder / "020.png").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match=r"2 of 4 images cannot be read, first: .*005.png is not an image"):
        report = make_pseudo_labels(teacher(ANSWERS), folder, tmp_path / "out.json", 0.15)
    assert report.unreadable_images == 2 and report.images == 2 and report.boxes == {"ant": 3, "bee": 1}
    assert "2 images left out: cannot be read" in str(report)


def test_images_without_a_box_are_counted(folder, tmp_path):
    with pytest.warns(UserWarning, match="2 of 3 images have no box above the threshold and are left out"):
        make_pseudo_labels(teacher(ANSWERS), folder, tmp_path / "out.json", 0.85)
    with pytest.raises(ValueError, match="no box above the threshold in any of 3 images: lower the threshold"):
        make_pseudo_labels(teacher(ANSWERS), folder, tmp_path / "none.json", 0.95)
    assert not (tmp_path / "none.json").exists()


@pytest.mark.parametrize("threshold", [0, 1, -0.5, 25, float("nan")])
def test_a_threshold_out_of_range(folder, tmp_path, threshold):
    with pytest.raises(ValueError, match=f"threshold is {threshold}: give a score between 0 and 1"):
        make_pseudo_labels(teacher(ANSWERS), folder, tmp_path / "out.json", threshold)
    with pytest.raises(ValueError, match="threshold of bee is"):
        make_pseudo_labels(teacher(ANSWERS), folder, tmp_path / "out.json", {"ant": 0.5, "bee": threshold})


def test_thresholds_of_other_classes(folder, tmp_path):
    with pytest.raises(ValueError, match="Unknown class in threshold 'bea'; did you mean 'bee'"):
        make_pseudo_labels(teacher(ANSWERS), folder, tmp_path / "out.json", {"ant": 0.5, "bea": 0.5})
    with pytest.raises(ValueError, match="no value for bee"):
        make_pseudo_labels(teacher(ANSWERS), folder, tmp_path / "out.json", {"ant": 0.5})


def test_labeled_images_are_refused(folder, tmp_path):
    data = coco(tmp_path / "labels.json", folder, [10, 20, 30], [(20, 1, 1, 9, 9, 0)])
    with pytest.raises(ValueError, match=r"1 of 3 images of .*labels.json have labels already, first 020.png"):
        make_pseudo_labels(teacher(ANSWERS), data, tmp_path / "out.json")
    coco(folder / "_annotations.coco.json", folder, [10, 20], [(20, 1, 1, 9, 9, 0)])
    (folder / "settings.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match=r"_annotations.coco.json holds labels of 1 images in .*, first 020.png"):
        make_pseudo_labels(teacher(ANSWERS), folder, tmp_path / "out.json")


@pytest.mark.filterwarnings("ignore:.*have no box")
def test_json_files_that_label_nothing_here_do_no_harm(folder, tmp_path):
    coco(folder / "images.json", folder, [10, 20])
    (folder / "settings.json").write_text('{"images": 3, "annotations": [1]}')
    assert make_pseudo_labels(teacher(ANSWERS), folder, tmp_path / "out.json").images == 2


def test_bad_input(folder, tmp_path):
    data = coco(tmp_path / "unlabeled.json", folder, [10], names=["ant", "wasp"])
    with pytest.raises(ValueError, match="knows the classes ant, bee, but the data set has ant, wasp"):
        make_pseudo_labels(teacher(ANSWERS), data, tmp_path / "out.json")
    nameless = teacher(ANSWERS)
    nameless.class_names = None
    with pytest.raises(ValueError, match="no class_names, so its boxes cannot be named"):
        make_pseudo_labels(nameless, folder, tmp_path / "out.json")
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        make_pseudo_labels(teacher(ANSWERS), folder / "more", tmp_path / "out.json")
    with pytest.raises(FileNotFoundError, match="does not exist; make it first"):
        make_pseudo_labels(teacher(ANSWERS), folder, tmp_path / "more" / "out.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no images"):
        make_pseudo_labels(teacher(ANSWERS), tmp_path / "empty", tmp_path / "out.json")
    (tmp_path / "empty" / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"None of the 1 images in .* can be read"):
        make_pseudo_labels(teacher(ANSWERS), tmp_path / "empty", tmp_path / "out.json")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(64, 64), (64, 32)])
def test_boxes_lie_where_training_will_see_them(tmp_path, orientation, size):
    """Whatever a photograph's EXIF tag says: the box of a bright corner covers it in the data set's own image."""
    (tmp_path / "images").mkdir()
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[:12, :20] = 255
    tag = Image.Exif()
    tag[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png", exif=tag)

    class FindsBright(type(teacher({}))):
        def forward(self, inputs):
            rows, columns = np.nonzero((inputs[0, 0] > 0.9).numpy())
            box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            known = teacher({0: [(*map(float, box), 0, 0.9)]})
            self.answer = lambda image: known.answer(image * 0)
            return super().forward(inputs)

    finds = FindsBright(lambda image: (image, image), CLASSES, SIDE)
    make_pseudo_labels(finds, tmp_path / "images", tmp_path / "out.json")
    sample = yl.data.CocoDataset(tmp_path / "images", tmp_path / "out.json")[0]
    x1, y1, x2, y2 = sample.boxes[0].round().astype(int)
    assert (x2 - x1) * (y2 - y1) == 240 and (sample.image[y1:y2, x1:x2] == 255).all()


@pytest.mark.filterwarnings("ignore:.*have no box")
def test_tiny_scores_and_tiny_boxes_make_a_file_that_loads(folder, tmp_path):
    answers = {10: [(4, 4, 24, 24, 0, 3e-5)], 20: [(10, 10, 10.004, 40, 1, 0.8)], 30: []}
    report = make_pseudo_labels(teacher(answers, names=CLASSES), folder, tmp_path / "out.json", 2e-5)
    data = yl.data.CocoDataset(folder, report.path)
    assert data.report.annotations == data.report.boxes and data.file_names[0] == "010.png"


def test_an_interrupted_write_of_the_log_is_not_a_finished_file(folder, tmp_path):
    """The folder of the labels holds nothing but the log until the file is whole."""
    with pytest.raises(Stopped):
        make_pseudo_labels(stopping_teacher(1), folder, tmp_path / "out.json", 0.15, batch_size=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "out.json.unfinished"]
