"""Exercises of notebook 07 (pretraining and pseudo-labels): transfer, choose_threshold, make_pseudo_labels."""

import torch
from torch import Tensor

from yolonas_lab.teaching.exercises import Case, Exercise, Exercises, faults

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


def _transfer(old: Weights, new: Weights, wrong: str) -> Weights:
    """transfer with one fault."""
    fits = [name for name, tensor in new.items() if name in old and old[name].shape == tensor.shape]
    return {
        "only_fresh": lambda: {name: new[name] for name in fits},
        "only_fitting": lambda: {name: old[name] for name in fits},
        "only_known": lambda: {name: tensor for name, tensor in transfer(old, new).items() if name in old},
        "all_known": lambda: transfer(old, new) | {name: t for name, t in old.items() if name not in new},
        "by_name": lambda: {name: old.get(name, tensor) for name, tensor in new.items()},
        "by_size": lambda: {n: old[n] if n in old and old[n].numel() == t.numel() else t for n, t in new.items()},
        "exchanged": lambda: transfer(new, old),
        "nothing": lambda: new,
    }[wrong]()


def _choose(thresholds: Tensor, scores: Tensor, right: Tensor, objects: int, wrong: str) -> Tensor:
    """choose_threshold with one fault."""
    objects = {"of_the_right": int(right.sum()), "of_the_boxes": len(right)}.get(wrong, objects)
    above = scores >= thresholds[:, None] if wrong == "at_least" else scores > thresholds[:, None]
    kept, hits = above.sum(dim=1).float(), (above & right).sum(dim=1).float()
    precision, recall = hits / kept.clamp(min=1), hits / objects
    values = {"precision": precision, "recall": recall, "mean": (precision + recall) / 2}
    values = values.get(wrong, 2 * hits / (kept + objects))
    best = thresholds[values == values.max()]
    if wrong == "index":
        return (thresholds == best.max()).nonzero()[-1, 0]
    return best.min() if wrong == "lowest" else best.max()


def _label(boxes: Tensor, scores: Tensor, labels: Tensor, t: Tensor, image_id: int, wrong: str) -> list[dict]:
    """make_pseudo_labels with one fault."""
    common = {"first": t[0], "lowest": t.min(), "highest": t.max(), "everything": torch.tensor(-1.0)}
    t = torch.full_like(t, common[wrong].item()) if wrong in common else t
    t = torch.nextafter(t, torch.zeros_like(t)) if wrong == "at_least" else t
    rows = make_pseudo_labels(boxes, scores, labels, t, image_id)
    for row in rows:
        x, y, w, h = row["bbox"]
        row["bbox"] = {"corners": [x, y, x + w, y + h], "center": [x + w / 2, y + h / 2, w, h]}.get(wrong, row["bbox"])
        row["category_id"] -= wrong == "from_zero"
    return rows


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
        mistakes=faults(
            _transfer,
            only_fresh="layers that do not fit must be in the result too, as they are in fresh; those that do fit come "
            "from pretrained.",
            only_fitting="layers that do not fit must be in the result too, as they are in fresh.",
            only_known="layers that the old model does not have must be in the result too, as they are in fresh.",
            all_known="the new model has no place for layers that only the old one has: leave them out.",
            by_name="the tensors must have equal shapes: a model for 6 classes cannot take a class layer for 10.",
            by_size="compare the shapes, not the number of elements: (2, 3) is no (3, 2).",
            exchanged="pretrained and fresh have changed places: the result has the names and shapes of fresh.",
            nothing="nothing was taken over: where name and shape agree, the pretrained tensor belongs into the "
            "result.",
        ),
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
        mistakes=faults(
            _choose,
            at_least="a box is kept when its score is *above* the threshold: >, not >=.",
            lowest="of equally good thresholds return the highest: argmax finds the first.",
            precision="this is the threshold with the best precision alone; it forgets the objects that go missing.",
            recall="this is the threshold with the best recall alone; it forgets the wrong boxes.",
            mean="F is the harmonic mean of precision and recall, 2PR / (P + R), not (P + R) / 2.",
            of_the_right="recall is the share of all objects: divide by objects, not by the boxes that are right.",
            of_the_boxes="recall is the share of all objects: divide by objects, not by the number of boxes.",
            index="return the threshold, not its index.",
        ),
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
        mistakes=faults(
            _label,
            corners="a COCO bbox is left, top, width, height: subtract the corners.",
            center="a COCO bbox begins with the left top corner, not with the center.",
            from_zero="category ids count from 1: label + 1.",
            first="every class has its own threshold: thresholds[label], not the first one for all.",
            lowest="every class has its own threshold; with the lowest for all, doubtful boxes of others slip through.",
            highest="every class has its own threshold; with the highest for all, sure boxes of other classes are "
            "lost.",
            at_least="a box is kept when its score is *above* its threshold: >, not >=.",
            everything="nothing was left out: compare each score with its class's threshold.",
        ),
    ),
)
hint, solution = EXERCISES.hint, EXERCISES.solution
check_transfer, check_choose_threshold = EXERCISES["transfer"].check, EXERCISES["choose_threshold"].check
check_make_pseudo_labels = EXERCISES["make_pseudo_labels"].check
