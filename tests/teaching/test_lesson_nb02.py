import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yolonas_lab.boxes import iou
from yolonas_lab.evaluate import coco_metrics
from yolonas_lab.teaching.lessons.nb02 import Faults, _normal, _poisson, simulate, simulate_image

PERFECT = Faults(jitter=0, misses=0, confusions=0, false_alarms=0, score_quality=1)
NAMES = ["cat", "dog", "bird"]


class BoxImages:
    """300 images of 100 x 80 px with 0 to 4 boxes each; where `crowded`, one of them marks a crowd."""

    class_names = NAMES
    category_ids = (1, 2, 3)

    def __init__(self, count=300, crowded=False):
        rng = np.random.default_rng(1)
        self.rows = []
        for _ in range(count):
            n = rng.integers(0, 5)
            corner, size = rng.uniform(0, 40, (n, 2)), rng.uniform(15, 40, (n, 2))
            boxes = np.concatenate([corner, corner + size], axis=1).astype(np.float32)
            crowd = np.zeros(n, bool)
            crowd[: int(crowded)] = True
            self.rows.append((boxes, rng.integers(0, 3, n), crowd))

    def __len__(self):
        return len(self.rows)

    def annotations(self, index, /):
        return self.rows[index]

    def image_size(self, index, /):
        return 80, 100

    def coco(self):
        annotations = [
            {"image_id": i, "category_id": int(k) + 1, "bbox": [x, y, r - x, b - y]}
            for i, (boxes, labels, _) in enumerate(self.rows)
            for (x, y, r, b), k in zip(boxes.tolist(), labels, strict=True)
        ]
        images = [{"id": i, "width": 100, "height": 80} for i in range(len(self))]
        categories = [{"id": i + 1, "name": name} for i, name in enumerate(NAMES)]
        return {"images": images, "annotations": annotations, "categories": categories}


def ap(dataset, faults, seed=0):
    found = simulate(dataset, faults, seed)
    results = [row for i, d in enumerate(found) for row in d.to_coco(i, dataset.category_ids)]
    return coco_metrics(results, dataset.coco())


def test_without_faults_it_returns_the_ground_truth_and_scores_1():
    dataset = BoxImages()
    for (boxes, labels, _), found in zip(dataset.rows, simulate(dataset, PERFECT), strict=True):
        torch.testing.assert_close(found.boxes, torch.tensor(boxes), rtol=0, atol=1e-5)
        assert found.labels.tolist() == labels.tolist()
        torch.testing.assert_close(found.scores, torch.ones(len(boxes)))
    assert ap(dataset, PERFECT).ap == pytest.approx(1)


def test_the_same_seed_gives_the_same_detections_and_another_seed_others():
    first, again, other = ([vars(d) for d in simulate(BoxImages(20), Faults(), seed)] for seed in (3, 3, 4))
    assert str(first) == str(again) != str(other)


def test_misses_false_alarms_and_confusions_come_as_often_as_asked_for():
    dataset = BoxImages()
    objects = sum(len(row[0]) for row in dataset.rows)
    assert sum(map(len, simulate(dataset, Faults(misses=0.3, false_alarms=0)))) / objects == pytest.approx(
        0.7, abs=0.05
    )
    assert sum(map(len, simulate(dataset, Faults(misses=1, false_alarms=2.5)))) / 300 == pytest.approx(2.5, abs=0.3)
    found = simulate(dataset, Faults(jitter=0, misses=0, confusions=0.4, false_alarms=0))
    wrong = 0
    for (boxes, labels, _), d in zip(dataset.rows, found, strict=True):
        for box, label in zip(d.boxes.numpy(), d.labels.tolist(), strict=True):
            wrong += label != labels[np.abs(boxes - box).sum(axis=1).argmin()]
    assert wrong / objects == pytest.approx(0.4, abs=0.06)


def test_jitter_has_the_standard_deviation_asked_for():
    box, label = np.array([[400, 400, 600, 500]], np.float32), np.array([0])
    faults = Faults(jitter=0.1, misses=0, confusions=0, false_alarms=0)
    moves = np.stack(
        [simulate_image(box, label, (1000, 1000), NAMES, faults, i).boxes.numpy() - box for i in range(600)]
    )
    np.testing.assert_allclose(moves[:, 0].std(axis=0), [20, 10, 20, 10], rtol=0.1)
    np.testing.assert_allclose(moves[:, 0].mean(axis=0), 0, atol=2.5)


DIALS = {"jitter": (0.02, 0.2), "misses": (0.0, 0.5), "confusions": (0.0, 0.5), "false_alarms": (0.0, 8.0)}


@pytest.mark.parametrize("dial, values", [*DIALS.items(), ("score_quality", (1.0, 0.0))])
def test_turning_any_dial_to_the_worse_lowers_ap(dial, values):
    dataset = BoxImages(100)
    better, worse = (ap(dataset, Faults(**{dial: value})).ap for value in values)
    assert better > worse + 0.02


def test_turning_one_dial_leaves_the_other_faults_as_they_were():
    dataset = BoxImages(50)
    few, many = (simulate(dataset, Faults(false_alarms=n)) for n in (1.0, 5.0))
    for a, b in zip(few, many, strict=True):
        assert {tuple(box) for box in a.boxes.tolist()} <= {tuple(box) for box in b.boxes.tolist()}


def test_crowd_boxes_are_not_detected():
    dataset = BoxImages(40, crowded=True)
    for (boxes, _, crowd), found in zip(dataset.rows, simulate(dataset, PERFECT), strict=True):
        assert len(found) == (~crowd).sum()
        if crowd.any() and len(found):
            assert float(iou(found.boxes, torch.tensor(boxes[crowd])).max()) < 0.999


@settings(max_examples=60)
@given(st.floats(0, 3), st.floats(0, 10), st.integers(0, 10_000), st.integers(0, 3))
def test_boxes_stay_in_the_image_with_a_side_of_a_pixel_and_scores_are_sorted(jitter, false_alarms, seed, n):
    boxes = np.array([[0, 0, 100, 80], [99, 79, 100, 80], [10, 20, 12, 60]], np.float32)[:n]
    faults = Faults(jitter=jitter, false_alarms=false_alarms)
    found = simulate_image(boxes, np.zeros(n, np.int64), (80, 100), NAMES, faults, seed)
    x1, y1, x2, y2 = found.boxes.unbind(1)
    assert (x1 >= 0).all() and (y1 >= 0).all() and (x2 <= 100).all() and (y2 <= 80).all()
    assert (x2 - x1 >= 1 - 1e-4).all() and (y2 - y1 >= 1 - 1e-4).all()
    assert (found.scores >= 0).all() and (found.scores <= 1).all()
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


def test_poisson_and_normal_against_scipy():
    stats = pytest.importorskip("scipy.stats")
    from random import Random

    uniforms = np.linspace(0.001, 0.999, 200)
    for mean in (0.0, 0.3, 2.0, 12.0):
        assert [_poisson(u, mean) for u in uniforms] == stats.poisson.ppf(uniforms, mean).clip(0).astype(int).tolist()
    rng = Random(0)
    assert stats.kstest([_normal(rng) for _ in range(2000)], "norm").pvalue > 0.01
