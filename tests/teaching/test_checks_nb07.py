import pytest
import torch

from yolonas_lab.teaching.checks import nb07
from yolonas_lab.teaching.exercises import CheckFailed

CHECKS = {
    "transfer": nb07.check_transfer,
    "choose_threshold": nb07.check_choose_threshold,
    "make_pseudo_labels": nb07.check_make_pseudo_labels,
}


@pytest.mark.parametrize("name", CHECKS)
def test_reference_solutions_pass(name, capsys):
    CHECKS[name](nb07.SOLUTIONS[name])
    assert capsys.readouterr().out.startswith(f"✓ {name}")


def test_solutions_written_in_another_way_pass():
    def transfer(pretrained, fresh):
        result = dict(fresh)
        for name in pretrained.keys() & fresh.keys():
            if list(pretrained[name].shape) == list(fresh[name].shape):
                result[name] = pretrained[name]
        return result

    def choose_threshold(thresholds, scores, right, objects):
        best, best_f = thresholds[0].item(), -1.0
        for threshold in thresholds.tolist():
            kept = [r for s, r in zip(scores.tolist(), right.tolist()) if s > threshold]
            precision, recall = sum(kept) / max(len(kept), 1), sum(kept) / objects
            f_score = 2 * precision * recall / (precision + recall) if sum(kept) else 0.0
            if f_score > best_f - 1e-9:
                best, best_f = threshold, f_score
        return best

    def make_pseudo_labels(boxes, scores, labels, thresholds, image_id):
        keep = scores > thresholds[labels]
        sizes = boxes[:, 2:] - boxes[:, :2]
        bboxes = torch.cat([boxes[:, :2], sizes], dim=1)[keep].tolist()
        rows = zip(bboxes, scores[keep].tolist(), (labels[keep] + 1).tolist())
        return [{"score": s, "bbox": b, "category_id": c, "image_id": image_id} for b, s, c in rows]

    nb07.check_transfer(transfer)
    nb07.check_choose_threshold(choose_threshold)
    nb07.check_make_pseudo_labels(make_pseudo_labels)


def everything_old(pretrained, fresh):
    return {name: pretrained.get(name, tensor) for name, tensor in fresh.items()}


def only_shared(pretrained, fresh):
    return {n: t for n, t in pretrained.items() if n in fresh and t.shape == fresh[n].shape}


def with_old_layers(pretrained, fresh):
    result = dict(pretrained)
    return result | {n: t for n, t in fresh.items() if n not in pretrained or pretrained[n].shape != t.shape}


def by_size(pretrained, fresh):
    fits = {n for n, t in fresh.items() if n in pretrained and pretrained[n].numel() == t.numel()}
    return {n: pretrained[n] if n in fits else t for n, t in fresh.items()}


def first_of_equals(thresholds, scores, right, objects):
    above = scores > thresholds[:, None]
    return thresholds[((above & right).sum(1) / (objects + above.sum(1))).argmax()]


def at_least(thresholds, scores, right, objects):
    return nb07.choose_threshold(thresholds, torch.nextafter(scores, torch.ones(1)), right, objects)


def most_precise(thresholds, scores, right, objects):
    above = scores > thresholds[:, None]
    precision = (above & right).sum(1) / above.sum(1).clamp(min=1)
    return thresholds[precision == precision.max()].max()


def finds_most(thresholds, scores, right, objects):
    hits = ((scores > thresholds[:, None]) & right).sum(1)
    return thresholds[hits == hits.max()].max()


def arithmetic_mean(thresholds, scores, right, objects):
    above = scores > thresholds[:, None]
    hits = (above & right).sum(1)
    mean = (hits / above.sum(1).clamp(min=1) + hits / objects) / 2
    return thresholds[mean == mean.max()].max()


def of_the_boxes(thresholds, scores, right, objects):
    return nb07.choose_threshold(thresholds, scores, right, len(scores))


def index(thresholds, scores, right, objects):
    return (thresholds == nb07.choose_threshold(thresholds, scores, right, objects)).nonzero()[-1, 0]


def rows(arguments, keep, bbox, first_id=1):
    boxes, scores, labels, thresholds, image_id = arguments
    return [
        {"image_id": image_id, "category_id": label + first_id, "bbox": bbox(*box), "score": score}
        for box, score, label in zip(boxes.tolist(), scores.tolist(), labels.tolist())
        if keep(score, thresholds, label)
    ]


def xywh(x1, y1, x2, y2):
    return [x1, y1, x2 - x1, y2 - y1]


def own(score, thresholds, label):
    return score > thresholds[label]


WRONG = [
    ("transfer", everything_old, "equal shapes"),
    ("transfer", only_shared, "do not fit must be in the result"),
    ("transfer", with_old_layers, "no place for layers that only the old one has"),
    ("transfer", by_size, "compare the shapes, not the number"),
    ("transfer", lambda pretrained, fresh: nb07.transfer(fresh, pretrained), "have changed places"),
    ("transfer", lambda pretrained, fresh: fresh, "nothing was taken over"),
    ("transfer", lambda pretrained, fresh: [], "instead of a dictionary"),
    ("choose_threshold", first_of_equals, "of equally good thresholds return the highest"),
    ("choose_threshold", at_least, ">, not >="),
    ("choose_threshold", most_precise, "best precision alone"),
    ("choose_threshold", finds_most, "best recall alone"),
    ("choose_threshold", arithmetic_mean, "harmonic mean"),
    ("choose_threshold", of_the_boxes, "not by the number of boxes"),
    ("choose_threshold", index, "not its index"),
    ("make_pseudo_labels", lambda *a: rows(a, own, lambda *box: list(box)), "left, top, width, height"),
    (
        "make_pseudo_labels",
        lambda *a: rows(a, own, lambda x, y, x2, y2: [(x + x2) / 2, (y + y2) / 2, x2 - x, y2 - y]),
        "not with the center",
    ),
    ("make_pseudo_labels", lambda *a: rows(a, own, xywh, first_id=0), "count from 1"),
    ("make_pseudo_labels", lambda *a: rows(a, lambda s, t, k: s > t[0], xywh), "not the first one for all"),
    ("make_pseudo_labels", lambda *a: rows(a, lambda s, t, k: s >= t[k], xywh), ">, not >="),
    ("make_pseudo_labels", lambda *a: rows(a, lambda s, t, k: s > t.min(), xywh), "with the lowest for all"),
    ("make_pseudo_labels", lambda *a: rows(a, lambda s, t, k: s > t.max(), xywh), "with the highest for all"),
    ("make_pseudo_labels", lambda *a: rows(a, lambda s, t, k: True, xywh), "nothing was left out"),
]


@pytest.mark.parametrize(("name", "wrong", "says"), WRONG)
def test_wrong_answers_fail_with_their_cause(name, wrong, says):
    with pytest.raises(CheckFailed) as failure:
        CHECKS[name](wrong)
    assert says in str(failure.value)


@pytest.mark.parametrize("name", CHECKS)
def test_hints_and_solutions(name, capsys):
    for level in (1, 2, 3):
        nb07.hint(name, level)
    nb07.solution(name)
    text = capsys.readouterr().out
    assert "Hint 3 of 3" in text and f"def {name}" in text
