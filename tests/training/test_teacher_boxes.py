import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.training.labeled_folders import CLASSES, coco, images, teacher
from yolonas_lab.training.pseudo_labels import check_teacher, images_of, match, teacher_boxes


def arrays(boxes, labels, crowd=None):
    crowd = [False] * len(boxes) if crowd is None else crowd
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), np.array(crowd, bool)


def test_matching_by_hand():
    truth = arrays([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], [0, 0, 1])
    boxes, labels, _ = arrays(
        [
            [0, 0, 10, 9],  # IoU 0.9 with the first object
            [0, 0, 10, 10],  # better placed, but the object is taken by a better score
            [20, 0, 30, 5],  # IoU 0.5, just enough
            [40, 0, 50, 10],  # on the third object, but of another class
            [60, 0, 70, 10],  # on nothing
        ],
        [0, 0, 0, 0, 1],
    )
    right, counts = match(boxes, labels, *truth, match_iou=0.5)
    assert right.tolist() == [True, False, True, False, False] and counts.all()


def test_of_two_free_objects_the_nearer_is_taken():
    truth = arrays([[0, 0, 10, 10], [2, 0, 12, 10]], [0, 0])
    boxes, labels, _ = arrays([[2, 0, 12, 10], [0, 0, 10, 10]], [0, 0])
    right, _ = match(boxes, labels, *truth, match_iou=0.5)
    assert right.tolist() == [True, True]


def test_boxes_on_a_crowd_do_not_count_and_do_not_use_it_up():
    truth = arrays([[0, 0, 40, 40], [50, 0, 60, 10]], [0, 0], [True, False])
    boxes, labels, _ = arrays([[0, 0, 10, 10], [5, 5, 15, 15], [0, 0, 10, 10], [50, 0, 60, 10]], [0, 0, 1, 0])
    right, counts = match(boxes, labels, *truth, match_iou=0.5)
    assert right.tolist() == [False, False, False, True]
    assert counts.tolist() == [False, False, True, True]  # a crowd of another class excuses nothing


def test_nothing_to_match():
    none, one = arrays([], []), arrays([[0, 0, 5, 5]], [0])
    for boxes, truth, number in ((none, one, 0), (one, none, 1), (none, none, 0)):
        right, counts = match(boxes[0], boxes[1], *truth, match_iou=0.5)
        assert right.shape == counts.shape == (number,) and not right.any() and counts.all()


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
    right, counts = match(boxes, labels, *truth, match_iou=0.5)
    assert {n + 1 for n in np.flatnonzero(right)} == expected_right
    assert {n + 1 for n in np.flatnonzero(counts)} == expected_counts


def test_an_object_gets_one_class(tmp_path):
    folder = images(tmp_path / "images", [10])
    data = coco(tmp_path / "labels.json", folder, [10])
    doubtful = [(8, 8, 30, 30, 0, 0.6), (8, 8, 30, 31, 1, 0.7), (8, 8, 30, 20, 0, 0.5), (40, 40, 60, 60, 0, 0.3)]
    (found,) = teacher_boxes(teacher({10: doubtful}), images_of(data), 0.1, CLASSES)
    assert found.labels.tolist() == [1, 0, 0]  # IoU 0.52 of the third with the second is below 0.6
    assert found.scores.tolist() == pytest.approx([0.7, 0.5, 0.3])
    (fewer,) = teacher_boxes(teacher({10: doubtful}), images_of(data), 0.4, CLASSES, nms_iou=0.5)
    assert fewer.scores.tolist() == pytest.approx([0.7])


def test_a_teacher_with_other_classes_is_named():
    assert check_teacher(teacher({}), CLASSES, "it") == CLASSES
    assert check_teacher(teacher({}, ["ant", "bee"]), tuple(CLASSES), "it") == CLASSES
    with pytest.raises(ValueError, match=r"knows the classes ant, cat, but val.json has ant, bee"):
        check_teacher(teacher({}, ["ant", "cat"]), CLASSES, "val.json")
    nameless = teacher({})
    nameless.class_names = None
    assert check_teacher(nameless, CLASSES, "it") == CLASSES
    with pytest.raises(ValueError, match=r"predicts 2 classes, but it has 3"):
        check_teacher(nameless, ["ant", "bee", "cat"], "it")
