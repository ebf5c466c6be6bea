"""Matching, precision and recall of a teacher's labels, and the thresholds that follow from them."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.training.labeled_folders import coco, images, teacher
from yolonas_lab.training import (
    LabelCurves,
    UselessTeacherError,
    choose_thresholds,
    compare_labels,
    hide_labels,
    precision_recall,
)
from yolonas_lab.training.label_quality import THRESHOLDS, match

# image 10: a right ant, a right bee, a wrong ant; image 20: an ant that is found twice; image 30: nothing, a wrong bee
TRUTH = [(10, 4, 4, 20, 20, 0), (10, 34, 34, 20, 20, 1), (20, 10, 10, 30, 30, 0), (30, 0, 0, 9, 9, 0)]
ANSWERS = {
    10: [(4, 4, 24, 24, 0, 0.9), (34, 34, 54, 54, 1, 0.6), (34, 4, 54, 24, 0, 0.305)],
    20: [(10, 10, 40, 40, 0, 0.8), (10, 10, 40, 28, 0, 0.7)],
    30: [(30, 30, 50, 50, 1, 0.5)],
}


@pytest.fixture
def val_set(tmp_path):
    return coco(tmp_path / "val.json", images(tmp_path / "images", [10, 20, 30]), [10, 20, 30], TRUTH)


def at(values, threshold):
    return values[..., int(np.abs(THRESHOLDS - threshold).argmin())]


def arrays(boxes, labels, crowd=None):
    crowd = [False] * len(boxes) if crowd is None else crowd
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), np.array(crowd, bool)


def test_matching_by_hand():
    truth = arrays([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 100, 40]], [0, 0, 1, 0], [0, 0, 0, 1])
    boxes, labels, _ = arrays(
        [
            [0, 0, 10, 9],  # IoU 0.9 with the first object
            [0, 0, 10, 10],  # better placed, but the object is taken by a better score
            [20, 0, 30, 5],  # IoU 0.5, just enough
            [40, 0, 50, 10],  # on the third object, but of another class
            [60, 0, 70, 10],  # inside the crowd
            [60, 0, 70, 10],  # of another class than the crowd
        ],
        [0, 0, 0, 0, 0, 1],
    )
    right, counts = match(boxes, labels, *truth)
    assert right.tolist() == [True, False, True, False, False, False]
    assert counts.tolist() == [True, True, True, True, False, True]


corner = st.integers(0, 20)
box_row = st.tuples(corner, corner, st.integers(1, 12), st.integers(1, 12), st.integers(0, 1), st.booleans())


@given(st.lists(box_row, max_size=6), st.lists(box_row, min_size=1, max_size=5))
def test_matching_agrees_with_pycocotools(found, true):
    def rows(items, scored):
        return [
            {"id": n, "image_id": 1, "category_id": label, "bbox": [x, y, w, h], "area": w * h}
            | ({"score": 1 - n / 100, "iscrowd": 0} if scored else {"iscrowd": int(crowd)})
            for n, (x, y, w, h, label, crowd) in enumerate(items, start=1)
        ]

    def made(annotations):
        api = COCO()
        images, categories = [{"id": 1}], [{"id": 0}, {"id": 1}]
        api.dataset = {"images": images, "categories": categories, "annotations": annotations}  # type: ignore[typeddict-item]
        api.createIndex()
        return api

    evaluation = COCOeval(made(rows(true, False)), made(rows(found, True)), "bbox")
    evaluation.params.iouThrs = np.array([0.5])
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluation.evaluate()
    expected_right, expected_counts = set(), set(range(1, len(found) + 1))
    for result in filter(None, evaluation.evalImgs):
        for identity, partner, ignored in zip(result["dtIds"], result["dtMatches"][0], result["dtIgnore"][0]):
            if ignored:
                expected_counts.discard(identity)
            elif partner:
                expected_right.add(identity)

    def xyxy(items):
        return [[x, y, x + w, y + h] for x, y, w, h, _, _ in items]

    boxes, labels, _ = arrays(xyxy(found), [row[4] for row in found])
    truth = arrays(xyxy(true), [row[4] for row in true], [row[5] for row in true])
    right, counts = match(boxes, labels, *truth)
    assert {n + 1 for n in np.flatnonzero(right)} == expected_right
    assert {n + 1 for n in np.flatnonzero(counts)} == expected_counts


def test_curves_by_hand(val_set):
    curves = precision_recall(teacher(ANSWERS), val_set)
    assert curves.class_names == ("ant", "bee") and curves.images == 3 and curves.objects.tolist() == [3, 1]
    assert at(curves.kept, 0.1).tolist() == [4, 2] and at(curves.right, 0.1).tolist() == [2, 1]
    assert at(curves.precision, 0.1).tolist() == [0.5, 0.5] and at(curves.recall, 0.1) == pytest.approx([2 / 3, 1])
    assert at(curves.kept, 0.31).tolist() == [3, 2]  # the ant with 0.305 is gone
    assert at(curves.kept, 0.55).tolist() == [3, 1] and at(curves.precision, 0.55) == pytest.approx([2 / 3, 1])
    assert at(curves.kept, 0.95).tolist() == [0, 0] and np.isnan(at(curves.precision, 0.95)).all()
    assert at(curves.boxes_per_image, 0.1) == 2 and at(curves.overall.boxes_per_image, 0.75) == pytest.approx(2 / 3)
    assert at(curves.overall.precision, 0.1).tolist() == [0.5] and at(curves.overall.recall, 0.1).tolist() == [0.75]
    exactly = precision_recall(teacher({10: [(4, 4, 24, 24, 0, 0.5)], 20: [], 30: []}), val_set)
    assert at(exactly.kept, 0.49)[0] == 1 and at(exactly.kept, 0.5)[0] == 0  # a score must be above the threshold


def test_crowds_are_neither_objects_nor_mistakes(tmp_path):
    truth = [(10, 0, 0, 40, 40, 0, True), (10, 44, 44, 16, 16, 0)]
    data = coco(tmp_path / "val.json", images(tmp_path / "images", [10]), [10], truth)
    curves = precision_recall(teacher({10: [(2, 2, 22, 22, 0, 0.9), (44, 44, 60, 60, 0, 0.8)]}), data)
    assert curves.objects.tolist() == [1, 0] and curves.kept[:, 0].tolist() == [1, 0]
    assert curves.precision[0, 0] == 1 and np.isnan(curves.recall[1]).all()


def test_bad_input(val_set, tmp_path):
    with pytest.raises(ValueError, match="teacher has the classes ant, cat and val_set has ant, bee"):
        precision_recall(teacher(ANSWERS, ["ant", "cat"]), val_set)
    other = coco(tmp_path / "o.json", val_set.images_dir, [20], names=["ant", "wasp"])
    with pytest.raises(ValueError, match=r"o.json has the classes ant, wasp .* must be the same"):
        compare_labels(other, val_set)
    with pytest.raises(ValueError, match=r"val.json has no image 040.png"):
        compare_labels(coco(tmp_path / "p.json", images(tmp_path / "images", [40]), [40]), val_set)


def curves_of(kept, right, objects, thresholds=(0.2, 0.4, 0.6)):
    kept, right = np.array(kept), np.array(right)
    return LabelCurves(("ant", "bee")[: len(kept)], np.array(thresholds), kept, right, np.array(objects), 5)


def test_thresholds_by_hand():
    curves = curves_of([[10, 6, 2], [8, 4, 4]], [[6, 5, 2], [4, 4, 4]], [8, 4])
    # ant: F = 2·right / (objects + kept) = 12/18, 10/14, 4/10; bee: 8/12, 8/8, 8/8, of which the higher threshold
    assert choose_thresholds(curves) == {"ant": 0.4, "bee": 0.6}
    nothing = curves_of([[10, 6, 2], [8, 4, 4]], [[6, 5, 2], [0, 0, 0]], [8, 4])
    assert choose_thresholds(nothing) == {"ant": 0.4, "bee": 0.4}  # no bee is right: that of all, 12/30, 10/22, 4/18
    with pytest.raises(UselessTeacherError, match="None of the teacher's boxes with a score"):
        choose_thresholds(curves_of([[3, 2, 1]], [[0, 0, 0]], [8]))


@given(st.data())
def test_no_threshold_has_a_larger_f_score(data):
    t = 6
    kept = np.sort(data.draw(st.lists(st.integers(1, 30), min_size=t, max_size=t)))[::-1][None]
    right = np.minimum(np.sort(data.draw(st.lists(st.integers(1, 30), min_size=t, max_size=t)))[::-1][None], kept)
    objects = np.array([int(right.max()) + data.draw(st.integers(0, 9))])
    curves = curves_of(kept, right, objects, np.linspace(0.1, 0.9, t))
    precision, recall = curves.precision[0], curves.recall[0]
    f_score = 2 * precision * recall / (precision + recall)
    chosen = int(np.flatnonzero(curves.thresholds == choose_thresholds(curves)["ant"])[0])
    assert f_score[chosen] >= f_score.max() - 1e-12
    assert (f_score[chosen + 1 :] < f_score[chosen] + 1e-12).all()


def test_the_plot(val_set):
    ax = plt.subplots()[1]
    assert precision_recall(teacher(ANSWERS), val_set).plot(ax) is ax
    assert ax.get_xlabel() == "score threshold" and "share" in ax.get_ylabel()
    plt.close("all")


def test_an_image_that_was_left_out_misses_its_objects(val_set, tmp_path):
    found = compare_labels(coco(tmp_path / "p.json", val_set.images_dir, [30], [(30, 0, 0, 9, 9, 0)]), val_set)
    assert found.precision == 1 and found.recall == 0.25 and found.boxes_per_image == pytest.approx(1 / 3)
    assert str(found) == "0.33 boxes per image where 1.33 are true; precision 1.00, recall 0.25"
    nothing = compare_labels(hide_labels(val_set, tmp_path / "none.json"), val_set)
    assert np.isnan(nothing.precision) and nothing.recall == 0
