"""COCO metrics: the traps of data sets, and agreement with plain pycocotools."""

import contextlib
import io
import json
import math

import numpy as np
import pytest
import torch
from known_detector import KnownDetector, by_center_pixel
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolonas_lab.boxes import letterbox, xywh_to_xyxy
from yolonas_lab.data import CocoDataset
from yolonas_lab.evaluate import coco_metrics, evaluate

SOME = [(0, 1, (2, 3, 20, 30)), (0, 2, (30, 10, 25, 30)), (1, 1, (5, 5, 40, 35)), (1, 1, (46, 2, 10, 9))]


def truth(annotations, categories=((1, "cat"), (2, "dog")), images=3):
    """A COCO file's content from (image_id, category_id, bbox) or (…, iscrowd); images are 64 x 48 px, ids from 0."""
    rows = [
        {"id": n, "image_id": i, "category_id": c, "bbox": list(box), "area": box[2] * box[3], "iscrowd": sum(crowd)}
        for n, (i, c, box, *crowd) in enumerate(annotations, start=100)
    ]
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 48} for i in range(images)],
        "categories": [{"id": i, "name": name} for i, name in categories],
        "annotations": rows,
    }


def result(image_id, category_id, bbox, score=0.5):
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": score}


def perfect(content):
    return [result(a["image_id"], a["category_id"], a["bbox"]) for a in content["annotations"] if not a["iscrowd"]]


def folder(tmp_path, content):
    """The content as a folder on disk; image i is gray value 10 + i all over."""
    for image in content["images"]:
        pixels = np.full((image["height"], image["width"], 3), 10 + image["id"], dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / image["file_name"])
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    return CocoDataset(tmp_path, tmp_path / "annotations.json")


def perfect_detector(dataset, content, size=64):
    """Finds each box that is no crowd, with score 0.9 for its class."""
    frame, answers = letterbox(48, 64, size, round(size * 636 / 640)), {}
    for image in content["images"]:
        rows = [row for row in perfect(content) if row["image_id"] == image["id"]]
        boxes = xywh_to_xyxy(torch.tensor([row["bbox"] for row in rows], dtype=torch.float64).reshape(-1, 4))
        scores = torch.zeros(len(rows), len(dataset.class_names))
        scores[range(len(rows)), [dataset.category_ids.index(row["category_id"]) for row in rows]] = 0.9
        answers[10 + image["id"]] = (frame.apply(boxes), scores)
    return KnownDetector(by_center_pixel(answers), list(dataset.class_names), image_size=size)


def test_an_unused_category_annotation_id_zero_and_a_missing_area_cost_nothing():
    content = truth(SOME, categories=[(0, "animals"), (1, "cat"), (2, "dog")])
    for number, annotation in enumerate(content["annotations"]):
        annotation["id"] = number
        del annotation["area"]
    metrics = coco_metrics(perfect(content), content)
    assert metrics.ap == pytest.approx(1) and metrics.ar1 == pytest.approx((2 / 3 + 1) / 2)  # one of two cats missed
    assert metrics.per_class == pytest.approx({"animals": math.nan, "cat": 1, "dog": 1}, nan_ok=True)
    assert (metrics.num_images, metrics.num_detections) == (3, 4)
    text = str(metrics)
    assert text.startswith("COCO metrics: 4 detections in 3 images\n") and "AP             1.000" in text
    assert "animals     –" in text and "nan" not in text
    twice = truth(SOME, categories=[(2, "cat"), (1, "cat")])
    assert coco_metrics(perfect(twice), twice).per_class == pytest.approx({"cat (1)": 1, "cat (2)": 1})


def test_without_detections_all_is_0_and_without_objects_nothing_is_known():
    metrics = coco_metrics([], truth(SOME))
    assert metrics.ap == metrics.ap50 == metrics.ar100 == 0 and metrics.num_detections == 0
    metrics = coco_metrics([result(0, 1, [0, 0, 5, 5])], truth([]))
    assert math.isnan(metrics.ap) and math.isnan(metrics.ar100)


def random_case(seed):
    rng = np.random.default_rng(seed)
    boxes = [(int(i), int(c), [int(v) for v in rng.integers(5, 40, 4)]) for i, c in rng.integers(0, 3, (25, 2))]
    content = truth([(*b, int(rng.random() < 0.15)) for b in boxes], [(0, "a"), (1, "b"), (2, "c"), (7, "d")], images=4)
    content["images"] = [image | {"width": 640, "height": 480} for image in content["images"]]
    results = []
    for row in [row for row in content["annotations"] for _ in range(rng.integers(0, 4))]:
        near = (np.array(row["bbox"]) + rng.normal(0, 3, 4)).tolist()
        results.append(result(row["image_id"], int(rng.choice([row["category_id"], 1])), near, rng.random()))
    return content, results


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_plain_pycocotools(seed, tmp_path, capsys):
    content, results = random_case(seed)
    (tmp_path / "truth.json").write_text(json.dumps(content))
    (tmp_path / "results.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "truth.json"))
        plain = COCOeval(coco, coco.loadRes(str(tmp_path / "results.json")), "bbox")
        plain.evaluate()
        plain.accumulate()
        plain.summarize()
    before = json.dumps([content, results])
    metrics = coco_metrics(results, content)
    assert json.dumps([content, results]) == before and capsys.readouterr().out == ""
    names = "ap ap50 ap75 ap_small ap_medium ap_large ar1 ar10 ar100 ar_small ar_medium ar_large".split()
    ours = [getattr(metrics, name) for name in names]
    np.testing.assert_array_equal(ours, np.where(plain.stats == -1, np.nan, plain.stats))
    assert 0 < metrics.ap < 1 and np.nanmean(list(metrics.per_class.values())) == pytest.approx(metrics.ap)
    assert list(metrics.per_class) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("size", [64, 128])
def test_a_perfect_detector_on_a_folder(tmp_path, size, capsys):
    # a category 0 that nothing uses, gaps in the ids, an image without objects, a crowd
    categories = [(0, "animals"), (7, "cat"), (90, "dog")]
    content = truth([(i, {1: 7, 2: 90}[c], b) for i, c, b in SOME] + [(1, 90, (0, 0, 60, 40), 1)], categories, images=4)
    content["images"].reverse()  # the order of the file is not that of the ids
    dataset = folder(tmp_path, content)
    model = perfect_detector(dataset, content, size)
    metrics = evaluate(model, dataset, progress=False, batch_size=3)
    assert metrics.ap == pytest.approx(1)
    assert (metrics.num_images, metrics.num_detections) == (4, 4)
    assert sum(map(len, model.inputs)) == 4 and model.training  # images without objects too
    assert capsys.readouterr() == ("", "")
    for options, kept in [({"conf": 0.95}, 0), ({"max_detections": 1}, 2), ({"top_k": 1}, 2)]:
        assert evaluate(model, dataset, progress=False, **options).num_detections == kept  # of two images with objects


box = [0, 0, 5, 5]
BAD = [
    ([result(99, 1, box)], None, r"result 0 has image_id 99, which the ground truth does not know"),
    ([result(0, 1, box), result(0, 3, box)], None, r"result 1 has category_id 3, which the ground truth"),
    ([result(0, 1, box, math.inf)], None, r"result 0 must have .* a finite score"),
    ([{"image_id": 0, "bbox": box}], None, r"result 0 lacks category_id, score"),
    ([], "nowhere.json", r"nowhere.json"),
    ([], "bad.json", r"bad.json is not valid JSON"),
    ([], {"images": [], "categories": []}, r'the ground truth has no "annotations"'),
]


@pytest.mark.parametrize(("results", "ground_truth", "message"), BAD)
def test_bad_results_and_ground_truth_are_named(results, ground_truth, message, tmp_path):
    (tmp_path / "bad.json").write_text("{")
    ground_truth = tmp_path / ground_truth if isinstance(ground_truth, str) else ground_truth or truth(SOME)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        coco_metrics(results, ground_truth)


def test_another_number_or_order_of_classes_is_refused(tmp_path):
    model = perfect_detector(dataset := folder(tmp_path, truth(SOME)), truth(SOME))
    for num_classes, names, message in [
        (80, None, r"the model predicts 80 classes, but the dataset has 2"),
        (2, ["dog", "cat"], r"classes in another order: \['dog', 'cat'\] against \['cat', 'dog'\]"),
    ]:
        model.num_classes, model.class_names = num_classes, names
        with pytest.raises(ValueError, match=message):
            evaluate(model, dataset)
