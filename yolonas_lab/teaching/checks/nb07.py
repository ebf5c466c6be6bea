"""Exercises of notebook 07 (pretraining and pseudo-labels): transfer, choose_threshold, make_pseudo_labels."""

import torch
from torch import Tensor

from yolonas_lab.teaching.exercises import Case, Exercise, Exercises

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


def _threshold_cases() -> list[Case]:
    scores, right = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.3]), torch.tensor([1, 1, 1, 0, 1, 0]).bool()
    two, both = torch.tensor([0.25, 0.5]), torch.tensor([True, True])
    edge, low = torch.tensor([0.75, 0.5]), torch.tensor([0.375, 0.3125])
    cases = [
        Case((torch.tensor([0.2, 0.4, 0.65, 0.85]), scores, right, 6), "by hand: F is 8/12, 8/11, 6/9, 2/7"),
        Case((two, torch.tensor([0.75]), both[:1], 2), "two thresholds are equally good: the higher one"),
        Case((two, edge, both, 2), "a score that equals a threshold"),
        Case((torch.tensor([0.25, 0.5, 0.75]), low, both, 3), "at high thresholds nothing is left"),
    ]
    for seed, (boxes, objects) in enumerate([(40, 25), (200, 60), (30, 90)]):
        g = torch.Generator().manual_seed(seed)
        scores = torch.rand(boxes, generator=g)
        right = torch.rand(boxes, generator=g) < scores
        objects = max(objects, int(right.sum()))
        cases.append(Case((torch.linspace(0.1, 0.9, 17), scores, right, objects), f"{boxes} boxes, {objects} objects"))
    return cases


def _label_cases() -> list[Case]:
    boxes = torch.tensor([[4.0, 6, 24, 36], [30, 30, 60, 50], [10, 2, 20, 8], [0, 0, 9, 9]])
    scores, labels = torch.tensor([0.5625, 0.375, 0.5625, 0.125]), torch.tensor([0, 1, 2, 1])
    edge = (boxes[:2], torch.tensor([0.5, 0.75]), torch.tensor([1, 1]), torch.tensor([0.25, 0.5]), 1)
    none = (boxes[:0], scores[:0], labels[:0], torch.tensor([0.5, 0.5]), 3)
    cases = [
        Case(
            (boxes, scores, labels, torch.tensor([0.5, 0.25, 0.625]), 7),
            "by hand: two boxes have too low a score for their class",
        ),
        Case(edge, "a score that equals its threshold is not above it"),
        Case(none, "no boxes", []),
    ]
    for seed in range(3):
        g = torch.Generator().manual_seed(seed)
        corners = torch.randint(0, 30, (6, 2), generator=g).float()
        made = torch.cat([corners, corners + torch.randint(1, 30, (6, 2), generator=g)], dim=1)  # (6, 4)
        labels, thresholds = torch.randint(0, 4, (6,), generator=g), torch.rand(4, generator=g)
        arguments = (made, torch.rand(6, generator=g), labels, thresholds, seed + 10)
        cases.append(Case(arguments, "six boxes, four classes"))
    return cases


_old, _new = torch.ones, torch.zeros  # what comes from the old model, and from the new one
EXERCISES = Exercises(
    Exercise(
        transfer,
        hints=(
            "Go through the fresh model's names, for it decides what the result must hold. When may a pretrained "
            "tensor take the place of a fresh one?",
            "Two conditions: the name exists in pretrained, and the two shapes are equal. Names that only pretrained "
            "has are left out.",
            "{name: pretrained[name] if name in pretrained and pretrained[name].shape == tensor.shape else tensor "
            "for name, tensor in fresh.items()}",
        ),
        cases=[
            Case(
                (
                    {"stem.weight": _old(2), "class.weight": _old(10, 2)},
                    {"stem.weight": _new(2), "class.weight": _new(6, 2)},
                ),
                "by hand: 10 classes before, 6 now",
            ),
            Case(
                ({"a": _old(3), "b": _old(2, 2)}, {"b": _new(2, 2), "a": _new(3)}), "the same classes: everything fits"
            ),
            Case(({"a": _old(3), "old": _old(4)}, {"a": _new(3)}), "a layer that only the old model has"),
            Case(({"a": _old(3)}, {"a": _new(3), "new": _new(4)}), "a layer that only the new model has"),
            Case(
                ({"a": _old(2, 3), "n": _old(())}, {"a": _new(3, 2), "n": _new(())}),
                "as many numbers, but of another shape",
            ),
        ],
        mistakes={
            "pretrained[name] if name in fits else tensor for name, tensor in fresh.items() -> "
            "fresh[name] for name in fits": "layers that do not fit must be in the result too, as they are in fresh; "
            "those that do fit come from pretrained.",
            "if name in fits else tensor for name, tensor in fresh.items() -> for name in fits": "layers that do not "
            "fit must be in the result too, as they are in fresh.",
            "fresh.items()} -> fresh.items() if name in pretrained}": "layers that the old model does not have must be "
            "in the result too, as they are in fresh.",
            "fresh.items()} -> fresh.items()} | {n: t for n, t in pretrained.items() if n not in fresh}": (
                "the new model has no place for layers that only the old one has: leave them out."
            ),
            " and pretrained[name].shape == tensor.shape ->": "the tensors must have equal shapes: a model for 6 "
            "classes cannot take a class layer for 10.",
            ".shape == tensor.shape -> .numel() == tensor.numel()": "compare the shapes, not the number of elements: "
            "(2, 3) is no (3, 2).",
            "fits = -> pretrained, fresh = fresh, pretrained; fits =": "pretrained and fresh have changed places: the "
            "result has the names and shapes of fresh.",
            "pretrained[name] if name in fits else tensor -> tensor": "nothing was taken over: where name and shape "
            "agree, the pretrained tensor belongs into the result.",
        },
    ),
    Exercise(
        choose_threshold,
        hints=(
            "For one threshold: count the boxes with a higher score, and those of them that are right. Both counts, "
            "and objects, are all that F needs.",
            "precision = hits / kept and recall = hits / objects, so F = 2 · hits / (kept + objects). In this form "
            "nothing is divided by zero.",
            "above = scores > thresholds[:, None] is (t, n); kept = above.sum(dim=1), hits = (above & "
            "right).sum(dim=1). Of the thresholds where f_score == f_score.max(), return the highest.",
        ),
        cases=_threshold_cases,
        mistakes={
            "scores > -> scores >=": "a box is kept when its score is *above* the threshold: >, not >=.",
            "].max() -> ].min()": "of equally good thresholds return the highest: argmax finds the first.",
            "2 * hits / (objects + kept) -> hits / kept.clamp(min=1)": "this is the threshold with the best precision "
            "alone; it forgets the objects that go missing.",
            "2 * hits / (objects + kept) -> hits / objects": "this is the threshold with the best recall alone; it "
            "forgets the wrong boxes.",
            "2 * hits / (objects + kept) -> (hits / kept.clamp(min=1) + hits / objects) / 2": "F is the harmonic mean "
            "of precision and recall, 2PR / (P + R), not (P + R) / 2.",
            "objects + kept -> right.sum() + kept": "recall is the share of all objects: divide by objects, not by the "
            "boxes that are right.",
            "objects + kept -> len(right) + kept": "recall is the share of all objects: divide by objects, not by the "
            "number of boxes.",
            "thresholds[f_score == f_score.max()].max() -> (f_score == f_score.max()).nonzero()[-1, 0]": (
                "return the threshold, not its index."
            ),
        },
    ),
    Exercise(
        make_pseudo_labels,
        hints=(
            "Loop over the boxes. Which of the k thresholds is the one for this box?",
            "thresholds[label]. A COCO bbox is left, top, width, height, and category ids count from 1 here.",
            'if score > thresholds[label]: append {"image_id": image_id, "category_id": label + 1, "bbox": [x1, y1, '
            'x2 - x1, y2 - y1], "score": score}, all as Python numbers (.tolist()).',
        ),
        cases=_label_cases,
        mistakes={
            "x2 - x1, y2 - y1 -> x2, y2": "a COCO bbox is left, top, width, height: subtract the corners.",
            "[x1, y1, -> [(x1 + x2) / 2, (y1 + y2) / 2,": "a COCO bbox begins with the left top corner, not with the "
            "center.",
            "label + 1 -> label": "category ids count from 1: label + 1.",
            "thresholds[label] -> thresholds[0]": "every class has its own threshold: thresholds[label], not the first "
            "one for all.",
            "thresholds[label] -> thresholds.min()": "every class has its own threshold; with the lowest for all, "
            "doubtful boxes of others slip through.",
            "thresholds[label] -> thresholds.max()": "every class has its own threshold; with the highest for all, "
            "sure boxes of other classes are lost.",
            "score > -> score >=": "a box is kept when its score is *above* its threshold: >, not >=.",
            "score > thresholds[label] -> True": "nothing was left out: compare each score with its class's threshold.",
        },
    ),
)
hint, solution = EXERCISES.hint, EXERCISES.solution
check_transfer, check_choose_threshold = EXERCISES["transfer"].check, EXERCISES["choose_threshold"].check
check_make_pseudo_labels = EXERCISES["make_pseudo_labels"].check
