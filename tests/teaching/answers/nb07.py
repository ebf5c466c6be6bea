import torch


def transfer_common(pretrained, fresh):
    result = dict(fresh)
    for name in pretrained.keys() & fresh.keys():
        if list(pretrained[name].shape) == list(fresh[name].shape):
            result[name] = pretrained[name]
    return result


def threshold_in_a_loop(thresholds, scores, right, objects):
    best, best_f = thresholds[0].item(), -1.0
    for threshold in thresholds.tolist():
        kept = [r for s, r in zip(scores.tolist(), right.tolist()) if s > threshold]
        precision, recall = sum(kept) / max(len(kept), 1), sum(kept) / objects
        f_score = 2 * precision * recall / (precision + recall) if sum(kept) else 0.0
        if f_score > best_f - 1e-9:
            best, best_f = threshold, f_score
    return best


def labels_in_one_go(boxes, scores, labels, thresholds, image_id):
    keep = scores > thresholds[labels]
    bboxes = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1)[keep].tolist()
    rows = zip(bboxes, scores[keep].tolist(), (labels[keep] + 1).tolist())
    return [{"score": s, "bbox": b, "category_id": c, "image_id": image_id} for b, s, c in rows]


RIGHT = [
    ("transfer", transfer_common),
    ("choose_threshold", threshold_in_a_loop),
    ("make_pseudo_labels", labels_in_one_go),
]
WRONG = [
    ("transfer", lambda old, new: {name: old.get(name, tensor) for name, tensor in new.items()}, "equal shapes"),
    ("transfer", (transfer_common, "dict(fresh) -> {}"), "do not fit must"),
    ("transfer", (transfer_common, "dict(fresh) -> pretrained | fresh"), "no place for layers that only"),
    ("transfer", lambda old, new: transfer_common(new, old), "have changed places"),
    ("transfer", lambda old, new: [], "instead of a dictionary"),
    ("choose_threshold", (threshold_in_a_loop, "best_f - 1e-9 -> best_f + 1e-9"), "return the highest"),
    ("choose_threshold", (threshold_in_a_loop, "s > threshold -> s >= threshold"), ">, not >="),
    ("choose_threshold", (threshold_in_a_loop, "f_score > best_f -> recall > best_f"), "expected"),
    ("choose_threshold", lambda t, s, right, n: threshold_in_a_loop(t, s, right, len(s)), "not by the number of boxes"),
    ("make_pseudo_labels", (labels_in_one_go, "boxes[:, 2:] - boxes[:, :2] -> boxes[:, 2:]"), "a COCO bbox is left"),
    (
        "make_pseudo_labels",
        (labels_in_one_go, "[boxes[:, :2], -> [boxes.view(-1, 2, 2).mean(1),"),
        "not with the center",
    ),
    ("make_pseudo_labels", (labels_in_one_go, "(labels[keep] + 1) -> labels[keep]"), "count from 1"),
    ("make_pseudo_labels", (labels_in_one_go, "thresholds[labels] -> thresholds[0]"), "not the first one for all"),
    ("make_pseudo_labels", (labels_in_one_go, "scores > -> scores >="), ">, not >="),
    ("make_pseudo_labels", (labels_in_one_go, "thresholds[labels] -> thresholds.min()"), "with the lowest for all"),
]
