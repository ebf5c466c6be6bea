import json

import numpy as np
import pytest
from pycocotools.coco import COCO

import yolonas_lab as yl
from tests.training.labeled_folders import CLASSES, coco, images, teacher
from yolonas_lab.training.pseudo_labels import compare_labels, hide_labels, make_pseudo_labels, merge_labels

TRUTH = [(10, 4, 4, 20, 20, 0), (10, 34, 34, 20, 20, 1), (20, 10, 10, 30, 30, 0), (30, 0, 0, 9, 9, 0)]


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
    rows = json.loads((tmp_path / "m.json").read_text())["annotations"]
    assert [row["id"] for row in rows] == [100, 101, 102, 103, 104, 105]
    assert [row["image_id"] for row in rows] == [10, 10, 11, 12, 13, 13]
    assert [row["category_id"] for row in rows] == [3, 7, 3, 7, 3, 7]
    assert [row.get("score") for row in rows] == [None, None, None, 0.6, 0.9, 0.7]
    for index, part in enumerate([true, true]):
        for merged_values, values in zip(merged.annotations(index), part.annotations(index), strict=True):
            np.testing.assert_array_equal(merged_values, values)
    np.testing.assert_array_equal(merged[2].image, yl.data.load_image(other / "010.png"))
    assert len(COCO(str(tmp_path / "m.json")).getAnnIds()) == 6
    weights = [merged.weights(index) for index in range(4)]
    assert [w.tolist() for w in weights] == [
        [1, 1],
        [1],
        pytest.approx([0.6]),
        pytest.approx([0.9, 0.7]),
    ]


def test_true_weights_and_crowds_are_kept(tmp_path):
    folder = images(tmp_path / "images", [10, 20])
    coco(tmp_path / "t.json", folder, [10], [(10, 4, 4, 20, 20, 0), (10, 30, 30, 20, 20, 1, True)])
    content = json.loads((tmp_path / "t.json").read_text())
    content["annotations"][0]["weight"] = 0.25
    (tmp_path / "t.json").write_text(json.dumps(content))
    true = yl.data.CocoDataset(folder, tmp_path / "t.json")
    merged = merge_labels(true, coco(tmp_path / "p.json", folder, [20], [(20, 1, 1, 9, 9, 0)]), tmp_path / "m.json")
    found = [merged.weights(0), merged.weights(1)]
    assert [w.tolist() for w in found] == [[0.25, 1], [1]]
    assert merged.annotations(0)[2].tolist() == [False, True]


def test_part_of_a_data_set_with_the_rest_labeled_by_a_teacher(tmp_path):
    whole = coco(tmp_path / "t.json", images(tmp_path / "images", [10, 20, 30]), [10, 20, 30], TRUTH)
    hidden = hide_labels(whole.subset([2, 0]), tmp_path / "hidden.json")
    assert hidden.file_names == ["030.png", "010.png"] and hidden.report.boxes == 0
    assert hidden.category_ids == whole.category_ids
    answers = {10: [(4, 4, 24, 24, 0, 0.9)], 30: [(20, 20, 60, 60, 1, 0.7)]}
    make_pseudo_labels(teacher(answers), hidden, tmp_path / "p.json")
    pseudo = yl.data.CocoDataset(whole.images_dir, tmp_path / "p.json")
    merged = merge_labels(whole.subset([1]), pseudo, tmp_path / "m.json")
    assert merged.file_names == ["020.png", "030.png", "010.png"] and merged.report.boxes == 3
    found = compare_labels(pseudo, whole.subset([2, 0]))
    assert (found.boxes_per_image, found.objects_per_image) == (1, 1.5)
    assert found.precision == 0.5 and found.recall == pytest.approx(1 / 3)
    assert str(found) == "1.00 boxes per image where 1.50 are true; precision 0.50, recall 0.33"


def test_an_image_that_was_left_out_misses_its_objects(tmp_path):
    whole = coco(tmp_path / "t.json", images(tmp_path / "images", [10, 20, 30]), [10, 20, 30], TRUTH)
    pseudo = coco(tmp_path / "p.json", whole.images_dir, [30], [(30, 0, 0, 9, 9, 0)])
    found = compare_labels(pseudo, whole)
    assert found.precision == 1 and found.recall == 0.25 and found.boxes_per_image == pytest.approx(1 / 3)
    nothing = compare_labels(hide_labels(whole, tmp_path / "none.json"), whole)
    assert np.isnan(nothing.precision) and nothing.recall == 0


def test_a_stricter_match(tmp_path):
    whole = coco(tmp_path / "t.json", images(tmp_path / "images", [20]), [20], TRUTH[2:3])
    pseudo = coco(tmp_path / "p.json", whole.images_dir, [20], [(20, 10, 10, 30, 20, 0)])  # IoU 2/3
    assert compare_labels(pseudo, whole).precision == 1
    assert compare_labels(pseudo, whole, match_iou=0.7).precision == 0


def test_bad_input(tmp_path):
    folder = images(tmp_path / "images", [10, 20])
    true = coco(tmp_path / "t.json", folder, [10], TRUTH[:2])
    other = coco(tmp_path / "o.json", folder, [20], names=["ant", "wasp"])
    for function in (lambda: merge_labels(true, other, tmp_path / "m.json"), lambda: compare_labels(other, true)):
        with pytest.raises(ValueError, match=r"classes ant, .* must be the same"):
            function()
    with pytest.raises(ValueError, match=r"1 images have true labels and pseudo-labels, first .*010.png"):
        merge_labels(true, coco(tmp_path / "p.json", folder, [10, 20]), tmp_path / "m.json")
    with pytest.raises(ValueError, match=r"has no image 020.png: give the truth of the same images"):
        compare_labels(coco(tmp_path / "p.json", folder, [20]), true)
    assert not (tmp_path / "m.json").exists()


def test_two_drives(tmp_path, monkeypatch):
    folder = images(tmp_path / "images", [10, 20])
    true, other = coco(tmp_path / "t.json", folder, [10], TRUTH[:2]), coco(tmp_path / "o.json", folder, [20])

    def fail(paths):
        raise ValueError("Paths don't have the same drive")

    monkeypatch.setattr("os.path.commonpath", fail)
    with pytest.raises(ValueError, match="share no folder: put the images on one drive"):
        merge_labels(true, other, tmp_path / "m.json")
