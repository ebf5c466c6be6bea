"""Exercises of notebook 07 (pretraining and pseudo-labels): transfer, choose_threshold, make_pseudo_labels."""

from collections.abc import Callable

import torch
from torch import Tensor

from yolonas_lab.teaching.exercises import Case, Mistake, check_cases, show_hint, show_solution

# Plausible wrong answers for the exercises of notebook 07.


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


Weights = dict[str, Tensor]


def transfer(pretrained: Weights, fresh: Weights) -> Weights:
    fits = {name for name, tensor in fresh.items() if name in pretrained and pretrained[name].shape == tensor.shape}
    return {name: pretrained[name] if name in fits else tensor for name, tensor in fresh.items()}


def choose_threshold(thresholds: Tensor, scores: Tensor, right: Tensor, objects: int) -> Tensor:
    above = scores > thresholds[:, None]  # (t, n)
    kept, hits = above.sum(dim=1), (above & right).sum(dim=1)  # (t,), (t,)
    f_score = 2 * hits / (objects + kept)  # (t,)
    return thresholds[f_score == f_score.max()].max()


def make_pseudo_labels(boxes: Tensor, scores: Tensor, labels: Tensor, thresholds: Tensor, image_id: int) -> list[dict]:
    annotations = []
    for (x1, y1, x2, y2), score, label in zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True):
        if score > thresholds[label]:
            bbox = [x1, y1, x2 - x1, y2 - y1]
            annotations.append({"image_id": image_id, "category_id": label + 1, "bbox": bbox, "score": score})
    return annotations


SOLUTIONS: dict[str, Callable] = {
    "transfer": transfer,
    "choose_threshold": choose_threshold,
    "make_pseudo_labels": make_pseudo_labels,
}
HINTS = {
    "transfer": (
        "Go through the fresh model's names, for it decides what the result must hold. When may a pretrained tensor "
        "take the place of a fresh one?",
        "Two conditions: the name exists in pretrained, and the two shapes are equal. Names that only pretrained has "
        "are left out.",
        "{name: pretrained[name] if name in pretrained and pretrained[name].shape == tensor.shape else tensor "
        "for name, tensor in fresh.items()}",
    ),
    "choose_threshold": (
        "For one threshold: count the boxes with a higher score, and those of them that are right. Both counts, and "
        "objects, are all that F needs.",
        "precision = hits / kept and recall = hits / objects, so F = 2 · hits / (kept + objects). In this form nothing "
        "is divided by zero.",
        "above = scores > thresholds[:, None] is (t, n); kept = above.sum(dim=1), hits = (above & right).sum(dim=1). "
        "Of the thresholds where f_score == f_score.max(), return the highest.",
    ),
    "make_pseudo_labels": (
        "Loop over the boxes. Which of the k thresholds is the one for this box?",
        "thresholds[label]. A COCO bbox is left, top, width, height, and category ids count from 1 here.",
        'if score > thresholds[label]: append {"image_id": image_id, "category_id": label + 1, "bbox": [x1, y1, '
        'x2 - x1, y2 - y1], "score": score}, all as Python numbers (.tolist()).',
    ),
}


def hint(name: str, level: int = 1) -> None:
    """Print a hint for an exercise of this notebook; level 1 is the gentlest."""
    show_hint(HINTS, name, level)


def solution(name: str) -> None:
    """Print the reference solution of an exercise of this notebook."""
    show_solution(SOLUTIONS, name)


def check_transfer(fn) -> None:
    """Check transfer(pretrained, fresh) -> the new model's tensors by name."""
    one, two = torch.ones, torch.zeros
    hand = {"stem.weight": one(2), "class.weight": one(10, 2)}, {"stem.weight": two(2), "class.weight": two(6, 2)}
    cases = {
        "by hand: 10 classes before, 6 now": hand,
        "the same classes: everything fits": ({"a": one(3), "b": one(2, 2)}, {"b": two(2, 2), "a": two(3)}),
        "a layer that only the old model has": ({"a": one(3), "old": one(4)}, {"a": two(3)}),
        "a layer that only the new model has": ({"a": one(3)}, {"a": two(3), "new": two(4)}),
        "as many numbers, but of another shape": ({"a": one(2, 3), "n": one(())}, {"a": two(3, 2), "n": two(())}),
    }
    check_cases(
        "transfer",
        fn,
        [Case(arguments, transfer(*arguments), about) for about, arguments in cases.items()],
        [
            Mistake(
                lambda old, new: {n: t for n, t in new.items() if n in old and old[n].shape == t.shape},
                "layers that do not fit must be in the result too, as they are in fresh.",
            ),
            Mistake(
                lambda old, new: {n: old[n] for n, t in new.items() if n in old and old[n].shape == t.shape},
                "layers that do not fit must be in the result too, as they are in fresh.",
            ),
            Mistake(
                lambda old, new: {name: tensor for name, tensor in transfer(old, new).items() if name in old},
                "layers that the old model does not have must be in the result too, as they are in fresh.",
            ),
            Mistake(
                lambda old, new: transfer(old, new) | {n: t for n, t in old.items() if n not in new},
                "the new model has no place for layers that only the old one has: leave them out.",
            ),
            Mistake(
                lambda old, new: new | old,
                "the tensors must have equal shapes: a model for 6 classes cannot take a class layer for 10.",
            ),
            Mistake(
                lambda old, new: {n: old.get(n, t) for n, t in new.items()},
                "the tensors must have equal shapes: a model for 6 classes cannot take a class layer for 10.",
            ),
            Mistake(
                lambda old, new: {n: old[n] if n in old and old[n].numel() == t.numel() else t for n, t in new.items()},
                "compare the shapes, not the number of elements: (2, 3) is no (3, 2).",
            ),
            Mistake(
                lambda old, new: transfer(new, old),
                "pretrained and fresh have changed places: the result has the names and shapes of fresh.",
            ),
            Mistake(
                lambda old, new: new,
                "nothing was taken over: where name and shape agree, the pretrained tensor belongs into the result.",
            ),
        ],
    )


def check_choose_threshold(fn) -> None:
    """Check choose_threshold(thresholds, scores, right, objects) -> the threshold with the largest F."""
    scores, right = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.3]), torch.tensor([1, 1, 1, 0, 1, 0]).bool()
    hand = (torch.tensor([0.2, 0.4, 0.65, 0.85]), scores, right, 6)
    cases = [Case(hand, choose_threshold(*hand), "by hand: F is 8/12, 8/11, 6/9, 2/7")]
    equal = (torch.tensor([0.25, 0.5]), torch.tensor([0.75]), torch.tensor([True]), 2)
    cases.append(Case(equal, choose_threshold(*equal), "two thresholds are equally good: the higher one"))
    edge = (torch.tensor([0.25, 0.5]), torch.tensor([0.75, 0.5]), torch.tensor([True, True]), 2)
    cases.append(Case(edge, choose_threshold(*edge), "a score that equals a threshold"))
    empty = (torch.tensor([0.25, 0.5, 0.75]), torch.tensor([0.375, 0.3125]), torch.tensor([True, True]), 3)
    cases.append(Case(empty, choose_threshold(*empty), "at high thresholds nothing is left"))
    for seed, (boxes, objects) in enumerate([(40, 25), (200, 60), (30, 90)]):
        g = torch.Generator().manual_seed(seed)
        scores = torch.rand(boxes, generator=g)
        right = torch.rand(boxes, generator=g) < scores
        arguments = (torch.linspace(0.1, 0.9, 17), scores, right, max(objects, int(right.sum())))
        cases.append(Case(arguments, choose_threshold(*arguments), f"{boxes} boxes, {arguments[3]} objects"))
    check_cases("choose_threshold", fn, cases, threshold_mistakes(choose_threshold))


def check_make_pseudo_labels(fn) -> None:
    """Check make_pseudo_labels(boxes, scores, labels, thresholds, image_id) -> list of annotations."""
    boxes = torch.tensor([[4.0, 6, 24, 36], [30, 30, 60, 50], [10, 2, 20, 8], [0, 0, 9, 9]])
    scores, labels = torch.tensor([0.5625, 0.375, 0.5625, 0.125]), torch.tensor([0, 1, 2, 1])
    hand = (boxes, scores, labels, torch.tensor([0.5, 0.25, 0.625]), 7)
    cases = [Case(hand, make_pseudo_labels(*hand), "by hand: two boxes have too low a score for their class")]
    edge = (boxes[:2], torch.tensor([0.5, 0.75]), torch.tensor([1, 1]), torch.tensor([0.25, 0.5]), 1)
    cases.append(Case(edge, make_pseudo_labels(*edge), "a score that equals its threshold is not above it"))
    none = (torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.tensor([0.5, 0.5]), 3)
    cases.append(Case(none, [], "no boxes"))
    for seed in range(3):
        g = torch.Generator().manual_seed(seed)
        corners = torch.randint(0, 30, (6, 2), generator=g).float()
        made = torch.cat([corners, corners + torch.randint(1, 30, (6, 2), generator=g)], dim=1)  # (6, 4)
        labels, thresholds = torch.randint(0, 4, (6,), generator=g), torch.rand(4, generator=g)
        arguments = (made, torch.rand(6, generator=g), labels, thresholds, seed + 10)
        cases.append(Case(arguments, make_pseudo_labels(*arguments), "six boxes, four classes"))
    check_cases("make_pseudo_labels", fn, cases, label_mistakes(make_pseudo_labels))
