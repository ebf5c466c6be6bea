import torch

from yolonas_lab.teaching.checks.nb07 import choose_threshold, transfer


def transfer_common(pretrained, fresh):
    result = dict(fresh)
    for name in pretrained.keys() & fresh.keys():
        if list(pretrained[name].shape) == list(fresh[name].shape):
            result[name] = pretrained[name]
    return result


def with_old_layers(pretrained, fresh):
    result = dict(pretrained)
    return result | {n: t for n, t in fresh.items() if n not in pretrained or pretrained[n].shape != t.shape}


def threshold_in_a_loop(thresholds, scores, right, objects):
    best, best_f = thresholds[0].item(), -1.0
    for threshold in thresholds.tolist():
        kept = [r for s, r in zip(scores.tolist(), right.tolist()) if s > threshold]
        precision, recall = sum(kept) / max(len(kept), 1), sum(kept) / objects
        f_score = 2 * precision * recall / (precision + recall) if sum(kept) else 0.0
        if f_score > best_f - 1e-9:
            best, best_f = threshold, f_score
    return best


def first_of_equals(thresholds, scores, right, objects):
    above = scores > thresholds[:, None]
    return thresholds[((above & right).sum(1) / (objects + above.sum(1))).argmax()]


def finds_most(thresholds, scores, right, objects):
    hits = ((scores > thresholds[:, None]) & right).sum(1)
    return thresholds[hits == hits.max()].max()


def labels_in_one_go(boxes, scores, labels, thresholds, image_id):
    keep = scores > thresholds[labels]
    bboxes = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1)[keep].tolist()
    rows = zip(bboxes, scores[keep].tolist(), (labels[keep] + 1).tolist())
    return [{"score": s, "bbox": b, "category_id": c, "image_id": image_id} for b, s, c in rows]


def rows(arguments, keep=lambda score, t, k: score > t[k], bbox=lambda x, y, x2, y2: [x, y, x2 - x, y2 - y], first=1):
    boxes, scores, labels, thresholds, image_id = arguments
    return [
        {"image_id": image_id, "category_id": label + first, "bbox": bbox(*box), "score": score}
        for box, score, label in zip(boxes.tolist(), scores.tolist(), labels.tolist())
        if keep(score, thresholds, label)
    ]


def centers(x, y, x2, y2):
    return [(x + x2) / 2, (y + y2) / 2, x2 - x, y2 - y]


RIGHT = [
    ("transfer", transfer_common),
    ("choose_threshold", threshold_in_a_loop),
    ("make_pseudo_labels", labels_in_one_go),
    ("make_pseudo_labels", lambda *a: rows(a)),
]
WRONG = [
    ("transfer", lambda old, new: {name: old.get(name, tensor) for name, tensor in new.items()}, "equal shapes"),
    ("transfer", lambda old, new: {n: t for n, t in transfer(old, new).items() if t is old.get(n)}, "do not fit must"),
    ("transfer", with_old_layers, "no place for layers that only the old one has"),
    ("transfer", lambda old, new: transfer_common(new, old), "have changed places"),
    ("transfer", lambda old, new: [], "instead of a dictionary"),
    ("choose_threshold", first_of_equals, "of equally good thresholds return the highest"),
    (
        "choose_threshold",
        lambda t, s, right, n: choose_threshold(t, s.nextafter(torch.ones(1)), right, n),
        ">, not >=",
    ),
    ("choose_threshold", finds_most, "best recall alone"),
    ("choose_threshold", lambda t, s, right, n: threshold_in_a_loop(t, s, right, len(s)), "not by the number of boxes"),
    ("make_pseudo_labels", lambda *a: rows(a, bbox=lambda *box: list(box)), "left, top, width, height"),
    ("make_pseudo_labels", lambda *a: rows(a, bbox=centers), "not with the center"),
    ("make_pseudo_labels", lambda *a: rows(a, first=0), "count from 1"),
    ("make_pseudo_labels", lambda *a: rows(a, lambda s, t, k: s > t[0]), "not the first one for all"),
    ("make_pseudo_labels", lambda *a: rows(a, lambda s, t, k: s >= t[k]), ">, not >="),
    ("make_pseudo_labels", lambda *a: rows(a, lambda s, t, k: s > t.min()), "with the lowest for all"),
    ("make_pseudo_labels", lambda *a: rows(a, lambda s, t, k: True), "nothing was left out"),
]
