import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.labeled_folders import coco, images, teacher
from yolonas_lab.training.pseudo_labels import (
    THRESHOLDS,
    LabelCurves,
    choose_threshold,
    choose_thresholds,
    precision_recall,
)

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


def test_curves_by_hand(val_set):
    curves = precision_recall(teacher(ANSWERS), val_set)
    assert curves.class_names == ("ant", "bee") and curves.images == 3 and curves.objects.tolist() == [3, 1]
    assert at(curves.kept, 0.1).tolist() == [4, 2] and at(curves.right, 0.1).tolist() == [2, 1]
    assert at(curves.precision, 0.1).tolist() == [0.5, 0.5] and at(curves.recall, 0.1) == pytest.approx([2 / 3, 1])
    assert at(curves.kept, 0.31).tolist() == [3, 2]  # the ant with 0.305 is gone
    assert at(curves.kept, 0.55).tolist() == [3, 1] and at(curves.precision, 0.55) == pytest.approx([2 / 3, 1])
    assert at(curves.kept, 0.95).tolist() == [0, 0] and np.isnan(at(curves.precision, 0.95)).all()
    assert at(curves.boxes_per_image, 0.1) == 2 and at(curves.boxes_per_image, 0.75) == pytest.approx(2 / 3)
    overall = curves.overall
    assert at(overall.precision, 0.1).tolist() == [0.5] and at(overall.recall, 0.1).tolist() == [0.75]
    assert at(overall.boxes_per_image, 0.1) == 2


def test_a_stricter_match_makes_boxes_wrong(val_set):
    answers = {10: [(4, 4, 24, 19, 0, 0.9)], 20: [], 30: []}  # IoU 0.75
    assert precision_recall(teacher(answers), val_set, match_iou=0.7).right[0, 0] == 1
    assert precision_recall(teacher(answers), val_set, match_iou=0.8).right[0, 0] == 0
    with pytest.raises(ValueError, match="match_iou is 0: give"):
        precision_recall(teacher(answers), val_set, match_iou=0)


def test_crowds_are_neither_objects_nor_mistakes(tmp_path):
    truth = [(10, 0, 0, 40, 40, 0, True), (10, 44, 44, 16, 16, 0)]
    data = coco(tmp_path / "val.json", images(tmp_path / "images", [10]), [10], truth)
    curves = precision_recall(teacher({10: [(2, 2, 22, 22, 0, 0.9), (44, 44, 60, 60, 0, 0.8)]}), data)
    assert curves.objects.tolist() == [1, 0] and curves.kept[:, 0].tolist() == [1, 0]
    assert curves.precision[0, 0] == 1 and np.isnan(curves.recall[1]).all()


def test_a_box_with_exactly_the_threshold_is_not_kept(val_set):
    curves = precision_recall(teacher({10: [(4, 4, 24, 24, 0, 0.5)], 20: [], 30: []}), val_set)
    assert at(curves.kept, 0.49)[0] == 1 and at(curves.kept, 0.5)[0] == 0


def test_bad_input(val_set, tmp_path):
    with pytest.raises(ValueError, match="knows the classes ant, cat, but val_set has ant, bee"):
        precision_recall(teacher(ANSWERS, ["ant", "cat"]), val_set)
    empty = coco(tmp_path / "empty.json", val_set.images_dir, [10])
    with pytest.raises(ValueError, match="no object to find"):
        precision_recall(teacher(ANSWERS), empty)


def curves_of(kept, right, objects, thresholds=(0.2, 0.4, 0.6)):
    kept, right = np.array(kept), np.array(right)
    return LabelCurves(("ant", "bee")[: len(kept)], np.array(thresholds), kept, right, np.array(objects), 5)


def test_thresholds_by_hand():
    curves = curves_of([[10, 6, 2], [8, 4, 4]], [[6, 5, 2], [4, 4, 4]], [8, 4])
    # ant: F = 2·right / (objects + kept) = 12/18, 10/14, 4/10; bee: 8/12, 8/8, 8/8, of which the higher threshold
    assert choose_thresholds(curves) == {"ant": 0.4, "bee": 0.6}
    # together: 20/30, 18/22, 12/18
    assert choose_threshold(curves) == 0.4
    assert choose_thresholds(curves, beta=0.25) == {"ant": 0.6, "bee": 0.6}  # precision counts most
    assert choose_thresholds(curves, beta=4) == {"ant": 0.2, "bee": 0.6}  # recall counts most


def test_a_class_that_is_never_right_takes_the_common_threshold():
    curves = curves_of([[10, 6, 2], [8, 4, 1]], [[6, 5, 2], [0, 0, 0]], [8, 4])
    assert choose_thresholds(curves) == {"ant": 0.4, "bee": choose_threshold(curves)}
    with pytest.raises(ValueError, match=r"None of the teacher's boxes with a score above 0.2 is right"):
        choose_threshold(curves_of([[3, 2, 1]], [[0, 0, 0]], [4]))
    for beta in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="beta is"):
            choose_threshold(curves, beta)


@given(st.data())
def test_no_threshold_has_a_larger_f_score(data):
    t, beta = 6, data.draw(st.sampled_from([0.5, 1.0, 2.0]))
    kept = np.sort(data.draw(st.lists(st.integers(1, 30), min_size=t, max_size=t)))[::-1][None]
    right = np.minimum(np.sort(data.draw(st.lists(st.integers(1, 30), min_size=t, max_size=t)))[::-1][None], kept)
    objects = np.array([int(right.max()) + data.draw(st.integers(0, 9))])
    curves = curves_of(kept, right, objects, np.linspace(0.1, 0.9, t))
    precision, recall = curves.precision[0], curves.recall[0]
    f_score = (1 + beta**2) * precision * recall / (beta**2 * precision + recall)
    chosen = int(np.flatnonzero(curves.thresholds == choose_threshold(curves, beta))[0])
    assert f_score[chosen] >= f_score.max() - 1e-12
    assert (f_score[chosen + 1 :] < f_score[chosen] + 1e-12).all()


def test_plot(val_set):
    curves = precision_recall(teacher(ANSWERS), val_set)
    ax = plt.subplots()[1]
    assert curves.plot(ax) is ax
    thick = [line for line in ax.lines if line.get_label() in ("precision", "recall")]
    assert len(ax.lines) == 2 * (2 + 1) and len(thick) == 2
    np.testing.assert_array_equal(np.asarray(thick[1].get_ydata()), curves.overall.recall[0])
    assert ax.get_xlabel() == "score threshold" and "share" in ax.get_ylabel()
    plt.close("all")
