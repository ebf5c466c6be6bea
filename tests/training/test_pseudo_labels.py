"""Pseudo-labels: the file by hand, going on after a stop, what is refused, and merging with true labels."""

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

import yolonas_lab as yl
from tests.training.labeled_folders import CLASSES, SIDE, coco, images, teacher
from yolonas_lab.common import weights_digest
from yolonas_lab.training import compare_labels, hide_labels, make_pseudo_labels, merge_labels, precision_recall
from yolonas_lab.training.label_quality import THRESHOLDS
from yolonas_lab.training.pseudo_labels import images_of, teacher_boxes

ANSWERS = {
    10: [(4, 4, 24, 24, 0, 0.9), (30, 30, 60, 50, 1, 0.6), (2, 40, 22, 60, 0, 0.4)],
    20: [(10, 10, 40, 40, 1, 0.8)],
    30: [(10, 10, 40, 40, 0, 0.2)],
}
TRUTH = [(10, 4, 4, 20, 20, 0), (10, 34, 34, 20, 20, 1), (20, 10, 10, 30, 30, 0), (30, 0, 0, 9, 9, 0)]


@pytest.fixture
def folder(tmp_path):
    return images(tmp_path / "images", [10, 20, 30])


def read(path):
    return json.loads(path.read_text())


@pytest.mark.filterwarnings("ignore:1 of 3 images have no box")
def test_the_file_by_hand(folder, tmp_path):
    known = teacher(ANSWERS)
    report = make_pseudo_labels(known, folder, tmp_path / "out.json", threshold=0.5)
    assert (report.images, report.boxes, report.images_without_boxes) == (2, 3, 1)
    content = read(tmp_path / "out.json")
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


def test_a_data_set_keeps_its_ids_and_order_and_each_class_has_its_threshold(folder, tmp_path):
    data = coco(tmp_path / "unlabeled.json", folder, [30, 10])
    make_pseudo_labels(teacher(ANSWERS), data, tmp_path / "out.json", {"ant": 0.1, "bee": 0.7}, weighted=False)
    content = read(tmp_path / "out.json")
    assert [row["file_name"] for row in content["images"]] == ["030.png", "010.png"]
    assert [row["category_id"] for row in content["annotations"]] == [3, 3, 3]  # the bee has 0.6
    assert not any("weight" in row for row in content["annotations"])


@pytest.mark.filterwarnings("ignore:.*have no box")
@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.85])
def test_the_file_is_what_the_curves_foretold(folder, tmp_path, threshold):
    truth = [(10, 4, 4, 20, 20, 0), (10, 2, 40, 20, 20, 0), (20, 10, 10, 30, 30, 0)]
    data = coco(tmp_path / "truth.json", folder, [10, 20, 30], truth)
    curves = precision_recall(teacher(ANSWERS), data)
    column = int(np.abs(THRESHOLDS - threshold).argmin())
    hidden = hide_labels(data, tmp_path / "hidden.json")
    make_pseudo_labels(teacher(ANSWERS), hidden, tmp_path / "out.json", threshold)
    found = compare_labels(yl.data.CocoDataset(folder, tmp_path / "out.json"), data)
    assert found.boxes_per_image == pytest.approx(curves.boxes_per_image[column])
    assert found.precision == pytest.approx(curves.overall.precision[0, column])
    assert found.recall == pytest.approx(curves.overall.recall[0, column])


def test_a_finished_file_is_only_read(folder, tmp_path):
    out = tmp_path / "out.json"
    first = make_pseudo_labels(teacher(ANSWERS), folder, out, 0.15)
    known = teacher(ANSWERS)
    assert make_pseudo_labels(known, folder, out, 0.15) == first and not known.inputs
    for name, value in (("threshold", 0.16), ("weighted", False), ("nms_iou", 0.5), ("image_size", 96)):
        settings: dict[str, Any] = {"threshold": 0.15, name: value}
        with pytest.raises(FileExistsError, match=rf"out.json was made with another {name} \(.* now\): delete it"):
            make_pseudo_labels(known, folder, out, **settings)
    known.get_buffer("frozen.running_mean").add_(1)
    with pytest.raises(FileExistsError, match="teacher_sha256"):
        make_pseudo_labels(known, folder, out, 0.15)
    images(folder, [40])
    with pytest.raises(FileExistsError, match="file_names_sha256"):
        make_pseudo_labels(teacher(ANSWERS), folder, out, 0.15)
    coco(tmp_path / "other.json", folder, [10])
    with pytest.raises(FileExistsError, match=r"other.json was made with another teacher"):
        make_pseudo_labels(known, folder, tmp_path / "other.json")


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


@pytest.mark.parametrize(("after", "torn"), [(0, b""), (1, b'{"file_name": "02'), (1, b"\xc3")])
def test_a_stopped_call_goes_on_where_it_was(folder, tmp_path, after, torn):
    make_pseudo_labels(teacher(ANSWERS), folder, tmp_path / "whole.json", 0.15)
    out = tmp_path / "out.json"
    with pytest.raises(Stopped):
        make_pseudo_labels(stopping_teacher(after), folder, out, 0.15, batch_size=1)
    assert not out.exists()
    log = tmp_path / "out.json.unfinished"
    log.write_bytes(log.read_bytes() + torn)  # as if it had stopped while writing
    with pytest.raises(Stopped):
        make_pseudo_labels(stopping_teacher(1), folder, out, 0.15, batch_size=1)
    known = teacher(ANSWERS)
    report = make_pseudo_labels(known, folder, out, 0.15, batch_size=1)
    assert len(known.inputs) == 2 - after and report.images == 3
    assert out.read_bytes() == (tmp_path / "whole.json").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "out.json", "whole.json"]


def test_a_stopped_call_does_not_go_on_with_other_settings(folder, tmp_path):
    with pytest.raises(Stopped):
        make_pseudo_labels(stopping_teacher(1), folder, tmp_path / "out.json", 0.15, batch_size=1)
    with pytest.raises(FileExistsError, match=r"unfinished was made with another threshold .*: delete it"):
        make_pseudo_labels(teacher(ANSWERS), folder, tmp_path / "out.json", 0.5)
    log = tmp_path / "out.json.unfinished"
    log.write_bytes(log.read_bytes()[:20])  # its first line was cut off: an empty log
    assert make_pseudo_labels(teacher(ANSWERS), folder, tmp_path / "out.json", 0.15).images == 3


def test_what_is_left_out_is_counted(folder, tmp_path):
    with pytest.warns(UserWarning, match="2 of 3 images have no box above the threshold and are left out"):
        make_pseudo_labels(teacher(ANSWERS), folder, tmp_path / "high.json", 0.85)
    with pytest.raises(ValueError, match="no box above the threshold in any of 3 images: lower it"):
        make_pseudo_labels(teacher(ANSWERS), folder, tmp_path / "none.json", 0.95)
    assert not (tmp_path / "none.json").exists()
    (folder / "005.png").write_bytes(b"no picture")
    whole = (folder / "020.png").read_bytes()
    (folder / "020.png").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match=r"2 of 4 images cannot be read, first: .*005.png is not an image"):
        report = make_pseudo_labels(teacher(ANSWERS), folder, tmp_path / "out.json", 0.15)
    assert report.unreadable_images == 2 and report.images == 2 and report.boxes == 4


def test_bad_input(folder, tmp_path):
    known, nameless, out = teacher(ANSWERS), teacher(ANSWERS), tmp_path / "out.json"
    nameless.class_names = None
    empty = tmp_path / "empty"
    empty.mkdir()
    labeled = coco(tmp_path / "labels.json", folder, [10, 20, 30], [(20, 1, 1, 9, 9, 0)])
    wasps = coco(tmp_path / "unlabeled.json", folder, [10], names=["ant", "wasp"])
    cases = [
        (known, wasps, 0.5, "teacher has the classes ant, bee and the data set has ant, wasp"),
        (nameless, folder, 0.5, "no class_names, so its boxes cannot be named"),
        (known, folder / "more", 0.5, "There is no folder"),
        (known, empty, 0.5, "holds no images"),
        (known, labeled, 0.5, r"1 of 3 images of .*labels.json have labels already, first 020.png"),
        (known, folder, 25, "threshold of ant is 25: give a score between 0 and 1"),
        (known, folder, {"ant": 0.5, "bee": float("nan")}, "threshold of bee is nan"),
        (known, folder, {"ant": 0.5, "bea": 0.5}, "threshold has ant, bea: give a value for each of ant, bee"),
    ]
    for asked, source, threshold, message in cases:
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            make_pseudo_labels(asked, source, out, threshold)


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
    report = make_pseudo_labels(teacher(answers), folder, tmp_path / "out.json", 2e-5)
    data = yl.data.CocoDataset(folder, report.path)
    assert report.boxes == data.report.boxes and data.file_names[0] == "010.png"


def test_an_object_gets_one_class(folder, tmp_path):
    data = coco(tmp_path / "labels.json", folder, [10])
    doubtful = [(8, 8, 30, 30, 0, 0.6), (8, 8, 30, 31, 1, 0.7), (8, 8, 30, 20, 0, 0.5), (40, 40, 60, 60, 0, 0.3)]
    (found,) = teacher_boxes(teacher({10: doubtful}), images_of(data), 0.1, CLASSES)
    assert found.labels.tolist() == [1, 0, 0]  # IoU 0.52 of the third with the second is below 0.6
    assert found.scores.tolist() == pytest.approx([0.7, 0.5, 0.3])
    (fewer,) = teacher_boxes(teacher({10: doubtful}), images_of(data), 0.4, CLASSES, nms_iou=0.5)
    assert fewer.scores.tolist() == pytest.approx([0.7])


def test_merging_by_hand(tmp_path):
    true = coco(tmp_path / "t.json", images(tmp_path / "all" / "a", [10, 20]), [10, 20], TRUTH[:3])
    other = images(tmp_path / "all" / "b", [10, 30])
    answers = {10: [(1, 1, 21, 21, 1, 0.6)], 30: [(0, 0, 9, 9, 0, 0.9), (20, 20, 60, 60, 1, 0.7)]}
    make_pseudo_labels(teacher(answers), other, tmp_path / "p.json")
    merged = merge_labels(true, yl.data.CocoDataset(other, tmp_path / "p.json"), tmp_path / "m.json")
    assert merged.images_dir == (tmp_path / "all").resolve()
    assert merged.file_names == ["a/010.png", "a/020.png", "b/010.png", "b/030.png"]
    assert merged.image_ids == [10, 11, 12, 13]  # the true ones keep theirs
    assert merged.category_ids == [3, 7] and merged.class_names == CLASSES
    rows = read(tmp_path / "m.json")["annotations"]
    assert [row["id"] for row in rows] == [100, 101, 102, 103, 104, 105]
    assert [row["image_id"] for row in rows] == [10, 10, 11, 12, 13, 13]
    assert [row["category_id"] for row in rows] == [3, 7, 3, 7, 3, 7]
    assert [row.get("score") for row in rows] == [None, None, None, 0.6, 0.9, 0.7]
    np.testing.assert_array_equal(merged[2].image, yl.data.load_image(other / "010.png"))
    weights = np.concatenate([merged.weights(index) for index in range(4)])
    np.testing.assert_allclose(weights, [1, 1, 1, 0.6, 0.9, 0.7], rtol=1e-6)


def test_true_weights_and_crowds_are_kept(folder, tmp_path):
    coco(tmp_path / "t.json", folder, [10], [(10, 4, 4, 20, 20, 0), (10, 30, 30, 20, 20, 1, True)])
    content = read(tmp_path / "t.json")
    content["annotations"][0]["weight"] = 0.25
    (tmp_path / "t.json").write_text(json.dumps(content))
    true = yl.data.CocoDataset(folder, tmp_path / "t.json")
    merged = merge_labels(true, coco(tmp_path / "p.json", folder, [20], [(20, 1, 1, 9, 9, 0)]), tmp_path / "m.json")
    assert [merged.weights(index).tolist() for index in (0, 1)] == [[0.25, 1], [1]]
    assert merged.annotations(0)[2].tolist() == [False, True]
    with pytest.raises(ValueError, match=r"1 images have true labels and pseudo-labels, first .*010.png"):
        merge_labels(true, coco(tmp_path / "p.json", folder, [10, 20]), tmp_path / "m.json")
    with pytest.raises(ValueError, match=r"o.json has ant, wasp: they must be the same"):
        merge_labels(true, coco(tmp_path / "o.json", folder, [20], names=["ant", "wasp"]), tmp_path / "m.json")
