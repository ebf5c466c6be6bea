import numpy as np
import pytest
import torch

from yolonas_lab.teaching.checks import nb02
from yolonas_lab.teaching.checks import nb02 as answers
from yolonas_lab.teaching.exercises import CheckFailed

CHECKS = {
    "match": nb02.check_match,
    "precision_recall": nb02.check_precision_recall,
    "average_precision": nb02.check_average_precision,
}


@pytest.mark.parametrize("name", CHECKS)
def test_reference_solutions_pass(name, capsys):
    CHECKS[name](nb02.SOLUTIONS[name])
    assert capsys.readouterr().out.startswith(f"✓ {name}")


def test_solutions_written_in_another_way_pass():
    def match(overlaps, threshold):
        left = torch.tensor(overlaps)
        partners = torch.full((len(left),), -1)
        for i in range(len(left)):
            if left.shape[1] and left[i].max() >= threshold:
                partners[i] = left[i].argmax()
                left[:, partners[i]] = -1
        return partners

    def precision_recall(is_true, num_objects):
        rows = [(int(is_true[:d].sum()) / d, int(is_true[:d].sum()) / num_objects) for d in range(1, len(is_true) + 1)]
        return [list(column) for column in zip(*rows, strict=True)]

    def average_precision(is_true, num_objects):
        hits = torch.tensor(is_true).cumsum(0).double()
        envelope = (hits / torch.arange(1, len(hits) + 1)).flip(0)
        envelope = torch.cummax(envelope, 0).values.flip(0) if len(hits) else envelope
        at = torch.searchsorted(hits / num_objects, torch.linspace(0, 1, 101, dtype=torch.float64))
        return torch.cat([envelope, torch.zeros(1).double()])[at].mean()

    nb02.check_match(match)
    nb02.check_precision_recall(precision_recall)
    nb02.check_average_precision(average_precision)


WRONG = [
    ("match", answers.match_reusing, "taken only once"),
    ("match", answers.match_by_overlap, "better score goes first"),
    ("match", answers.match_favourite_only, "PASCAL VOC"),
    ("match", answers.match_first, "largest IoU"),
    ("match", answers.match_strict, ">="),
    ("match", answers.match_without_threshold, "below the threshold is no match"),
    ("match", answers.match_verdicts, "number of the object"),
    ("match", lambda overlaps, threshold: None, "return"),
    ("match", lambda overlaps, threshold: [0], "instead of 5"),
    ("precision_recall", lambda t, n: nb02.SOLUTIONS["precision_recall"](t, n)[::-1], "precision first"),
    ("precision_recall", lambda t, n: (t / np.arange(1, len(t) + 1), t / n), "running sum"),
    ("precision_recall", lambda t, n: (t.cumsum() / np.arange(1, len(t) + 1), t.cumsum() / t.sum()), "found or not"),
    ("precision_recall", lambda t, n: (t.cumsum() / len(t), t.cumsum() / n), "so far"),
    ("precision_recall", lambda t, n: 0.5, "number instead of 2 values"),
    ("average_precision", answers.ap_strict, "recall >= r"),
    ("average_precision", lambda t, n: answers.ap_at(t, n, envelope=False), "any higher one"),
    ("average_precision", lambda t, n: answers.ap_at(t, max(int(t.sum()), 1)), "found or not"),
    ("average_precision", answers.ap_area, "exact area"),
    ("average_precision", lambda t, n: answers.ap_at(t, n, points=11), "PASCAL VOC"),
    ("average_precision", lambda t, n: answers.ap_at(t, n, points=100), "both ends"),
    ("average_precision", answers.ap_extended, "not the last value"),
    ("average_precision", answers.ap_at_hits, "true positives only"),
    ("average_precision", answers.ap_reached, "never reached"),
    ("average_precision", lambda t, n: ..., "not written yet"),
]


@pytest.mark.parametrize("name, wrong, advice", WRONG)
def test_wrong_answers_get_the_right_advice(name, wrong, advice):
    with pytest.raises(CheckFailed) as failure:
        CHECKS[name](wrong)
    assert advice in str(failure.value)


def test_an_average_precision_that_stumbles_over_an_empty_list_is_told_which_case():
    def average_precision(is_true, num_objects):
        precision, recall = nb02.SOLUTIONS["precision_recall"](is_true, num_objects)
        return np.mean([precision[recall >= r].max() if precision[0] >= 0 else 0 for r in (0.0,)])

    with pytest.raises(CheckFailed):
        nb02.check_average_precision(average_precision)


def test_every_exercise_has_hints_and_a_solution(capsys):
    for name in CHECKS:
        for level in range(1, len(nb02.HINTS[name]) + 1):
            nb02.hint(name, level)
        nb02.solution(name)
        assert f"def {name}(" in capsys.readouterr().out


def test_the_reference_agrees_with_pycocotools_on_one_class():
    """Random detections of one class over several images: match and average_precision against COCOeval."""
    from yolonas_lab.boxes import iou
    from yolonas_lab.evaluate import coco_metrics

    rng = np.random.default_rng(0)
    annotations, results, ranked = [], [], []
    for image_id in range(1, 31):
        corner, size = rng.uniform(0, 60, (4, 2)), rng.uniform(15, 40, (4, 2))
        objects = np.concatenate([corner, corner + size], axis=1)[: rng.integers(0, 5)]
        found = np.repeat(objects, 2, axis=0) + rng.normal(0, 5, (2 * len(objects), 4))
        found = np.concatenate([found, [[5, 5, 30, 40.0]]])
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        scores = np.sort(rng.random(len(found)))[::-1]
        overlaps = iou(torch.tensor(found), torch.tensor(objects).reshape(-1, 4)).numpy()
        ranked += list(zip(scores, [partner >= 0 for partner in answers.match(overlaps, 0.5)], strict=True))
        for boxes, rows in ((objects, annotations), (found, results)):
            for k, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
                rows.append({"image_id": image_id, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1]})
                rows[-1]["score"] = float(scores[k]) if rows is results else 1.0
    for number, row in enumerate(annotations, 1):
        row.pop("score")
        row["id"] = number
    images = [{"id": i, "width": 100, "height": 100} for i in range(1, 31)]
    truth = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    ranked.sort(key=lambda pair: -pair[0])
    ours = answers.average_precision(np.array([right for _, right in ranked]), len(annotations))
    assert ours == pytest.approx(coco_metrics(results, truth).ap50, abs=1e-6)
    assert 0.2 < ours < 0.95
