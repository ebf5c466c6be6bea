"""Plausible wrong answers for the exercises of notebook 07."""

from collections.abc import Callable

import torch
from torch import Tensor

from yolonas_lab.teaching.checks.check import Mistake


def threshold_mistakes(choose_threshold: Callable) -> list[Mistake]:
    """Of choose_threshold, whose right version is given."""

    def by(value: Callable[[Tensor, Tensor, int], Tensor], at_least: bool = False, last: bool = True) -> Callable:
        def wrong(thresholds, scores, right, objects):
            above = scores >= thresholds[:, None] if at_least else scores > thresholds[:, None]
            values = value(above.sum(dim=1).float(), (above & right).sum(dim=1).float(), objects)
            best = thresholds[values == values.max()]
            return best.max() if last else best.min()

        return wrong

    def f_score(kept, hits, objects):
        return 2 * hits / (kept + objects)

    return [
        Mistake(by(f_score, at_least=True), "a box is kept when its score is *above* the threshold: >, not >=."),
        Mistake(by(f_score, last=False), "of equally good thresholds return the highest: argmax finds the first."),
        Mistake(
            by(lambda kept, hits, objects: hits / kept.clamp(min=1)),
            "this is the threshold with the best precision alone; it forgets the objects that go missing.",
        ),
        Mistake(
            by(lambda kept, hits, objects: hits / objects),
            "this is the threshold with the best recall alone; it forgets the wrong boxes.",
        ),
        Mistake(
            by(lambda kept, hits, objects: (hits / kept.clamp(min=1) + hits / objects) / 2),
            "F is the harmonic mean of precision and recall, 2PR / (P + R), not (P + R) / 2.",
        ),
        Mistake(
            lambda t, s, r, o: choose_threshold(t, s, r, int(r.sum())),
            "recall is the share of all objects: divide by objects, not by the boxes that are right.",
        ),
        Mistake(
            lambda t, s, r, o: choose_threshold(t, s, r, len(r)),
            "recall is the share of all objects: divide by objects, not by the number of boxes.",
        ),
        Mistake(
            lambda t, s, r, o: (t == choose_threshold(t, s, r, o)).nonzero()[-1, 0],
            "return the threshold, not its index.",
        ),
    ]


def label_mistakes(make_pseudo_labels: Callable) -> list[Mistake]:
    """Of make_pseudo_labels, whose right version is given."""

    def changed(change: Callable[[dict], dict]) -> Callable:
        return lambda *arguments: [row | change(row) for row in make_pseudo_labels(*arguments)]

    def corners(row):
        x, y, w, h = row["bbox"]
        return {"bbox": [x, y, x + w, y + h]}

    def center(row):
        x, y, w, h = row["bbox"]
        return {"bbox": [x + w / 2, y + h / 2, w, h]}

    def with_thresholds(make: Callable[[Tensor], Tensor]) -> Callable:
        return lambda boxes, scores, labels, t, image_id: make_pseudo_labels(boxes, scores, labels, make(t), image_id)

    return [
        Mistake(changed(corners), "a COCO bbox is left, top, width, height: subtract the corners."),
        Mistake(changed(center), "a COCO bbox begins with the left top corner, not with the center."),
        Mistake(changed(lambda row: {"category_id": row["category_id"] - 1}), "category ids count from 1: label + 1."),
        Mistake(
            with_thresholds(lambda t: torch.full_like(t, t[0].item())),
            "every class has its own threshold: thresholds[label], not the first one for all.",
        ),
        Mistake(
            with_thresholds(lambda t: torch.full_like(t, t.min().item())),
            "every class has its own threshold; with the lowest for all, doubtful boxes of others slip through.",
        ),
        Mistake(
            with_thresholds(lambda t: torch.full_like(t, t.max().item())),
            "every class has its own threshold; with the highest for all, sure boxes of other classes are lost.",
        ),
        Mistake(
            with_thresholds(lambda t: torch.nextafter(t, torch.zeros_like(t))),
            "a box is kept when its score is *above* its threshold: >, not >=.",
        ),
        Mistake(
            with_thresholds(lambda t: t * 0 - 1), "nothing was left out: compare each score with its class's threshold."
        ),
    ]
