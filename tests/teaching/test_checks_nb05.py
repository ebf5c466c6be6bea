import pytest
import torch
import torch.nn.functional as F

from yolonas_lab import boxes as geometry
from yolonas_lab.data.coco import Targets
from yolonas_lab.losses import assign
from yolonas_lab.losses import dfl_loss as library_dfl_loss
from yolonas_lab.models.yolo_nas import RawPredictions, anchor_points, decode_boxes
from yolonas_lab.teaching.checks import nb05
from yolonas_lab.teaching.checks import nb05 as nb05_mistakes
from yolonas_lab.teaching.checks.nb05 import random_sides
from yolonas_lab.teaching.exercises import CheckFailed

CHECKS = {
    "decode_distances": nb05.check_decode_distances,
    "dfl_loss": nb05.check_dfl_loss,
    "task_aligned_assign": nb05.check_task_aligned_assign,
}


@pytest.mark.parametrize("name", CHECKS)
def test_reference_solutions_pass(name, capsys):
    CHECKS[name](nb05.SOLUTIONS[name])
    assert capsys.readouterr().out.startswith(f"✓ {name}")


def test_reference_solutions_agree_with_the_library():
    logits, points, strides = random_sides(7, 6, 9)
    torch.testing.assert_close(nb05.decode_distances(logits, points, strides), decode_boxes(logits, points, strides))
    distances = torch.rand(6, 4, generator=torch.Generator().manual_seed(1)) * 7.9
    torch.testing.assert_close(nb05.dfl_loss(logits, distances), library_dfl_loss(logits, distances))


def predictions_and_boxes(seed, g):
    """A random batch of one and g boxes that overlap in the middle, as the exercise's matrices and as assign's."""
    random = torch.Generator().manual_seed(seed)
    points, strides = anchor_points([(8, 8), (4, 4), (2, 2)])
    class_logits = 4 * torch.randn(1, 84, g, generator=random)
    box_logits = torch.randn(1, 84, 4, 9, generator=random) - 0.3 * torch.arange(9)
    corner = torch.rand(g, 2, generator=random) * 20
    boxes = torch.cat([corner, corner + 26 + torch.rand(g, 2, generator=random) * 16], dim=1)
    inside = ((points[None] > boxes[:, None, :2]) & (points[None] < boxes[:, None, 2:])).all(-1)  # (g, 84)
    iou = geometry.iou(boxes, decode_boxes(box_logits[0], points, strides))
    raw = RawPredictions(class_logits, box_logits, points, strides)
    return (class_logits[0].sigmoid().T, iou, inside, 13), (raw, [Targets(boxes, torch.arange(g))])


@pytest.mark.parametrize("g", [1, 2, 4])
def test_reference_assignment_agrees_with_the_library(g):
    strangers = 0
    for seed in range(5):
        exercise, batch = predictions_and_boxes(seed, g)
        positive, quality = nb05.task_aligned_assign(*exercise)
        expected = assign(*batch)
        assert (positive.sum(0) <= 1).all() and positive.any()
        owner = torch.where(positive.any(0), positive.int().argmax(0), g)  # (a,)
        assert torch.equal(owner, expected.labels[0])
        torch.testing.assert_close(quality, expected.quality[0], atol=1e-5, rtol=1e-4)
        alone = nb05_mistakes.variant(*exercise, conflict="pickers")[0]
        strangers += (positive != alone).any(0).sum().item()
    assert (strangers > 0) == (g > 2)  # contested points that went to an object that had not picked them


def test_solutions_written_in_another_way_pass():
    def decode_distances(logits, points, strides):
        boxes = []
        for sides, (x, y), (stride,) in zip(logits, points.tolist(), strides.tolist(), strict=True):
            left, top, right, bottom = (
                stride * sum(i * p for i, p in enumerate(F.softmax(side, 0).tolist())) for side in sides
            )
            boxes.append([x - left, y - top, x + right, y + bottom])
        return torch.tensor(boxes)

    def dfl_loss(logits, distances):
        bins = torch.arange(logits.shape[-1])
        target = (1 - (distances[..., None] - bins).abs()).clamp(min=0)  # a triangle around each distance
        return -(target * logits.log_softmax(-1)).sum(-1).mean(-1)

    def task_aligned_assign(scores, iou, inside, top_k):
        (g, a), owner = iou.shape, {}
        alignment = scores * iou.pow(6)
        for j in range(g):
            mine = [n for n in range(a) if inside[j, n]]
            for n in sorted(mine, key=lambda n: -alignment[j, n].item())[:top_k]:
                owner[n] = max(range(g), key=lambda i: iou[i, n].item()) if n in owner else j
        positive, quality = torch.zeros(g, a, dtype=torch.bool), torch.zeros(a)
        for n, j in owner.items():
            positive[j, n] = True
        for n, j in owner.items():
            mine = positive[j]
            quality[n] = alignment[j, n] / alignment[j][mine].max() * iou[j][mine].max()
        return positive, quality

    nb05.check_decode_distances(decode_distances)
    nb05.check_dfl_loss(dfl_loss)
    nb05.check_task_aligned_assign(task_aligned_assign)


def corners(distances, points):
    return torch.cat([points - distances[:, :2], points + distances[:, 2:]], dim=1)


def bins(x):
    return torch.arange(x.shape[-1], dtype=x.dtype)


def swapped_dfl(x, d):
    low, log_p = d.long(), x.log_softmax(-1)
    fraction = d - low
    below, above = (log_p.gather(2, i[..., None])[..., 0] for i in (low, low + 1))
    return -(fraction * below + (1 - fraction) * above).mean(1)


def right_dfl_by_side(x, d):
    return F.cross_entropy(
        x.movedim(2, 1), (1 - (d[..., None] - bins(x)).abs()).clamp(min=0).movedim(2, 1), reduction="none"
    )


def wrong_assign(resolve="iou of all", restrict=True, scale="object"):
    def fn(scores, iou, inside, top_k):
        alignment = scores * iou**6
        pool = torch.where(inside, alignment, torch.zeros(())) if restrict else alignment
        positive = torch.zeros_like(inside)
        for j, best in enumerate(pool.topk(min(top_k, iou.shape[1])).indices):
            positive[j, best] = True
        positive &= inside
        for n in (positive.sum(0) > 1).nonzero()[:, 0].tolist():
            judge = {"iou of all": iou, "iou of pickers": iou * positive, "alignment": alignment * positive}.get(
                resolve
            )
            if judge is not None:
                winner = judge[:, n].argmax()
                positive[:, n] = torch.arange(len(iou)) == winner
        alignment = alignment * positive
        best = alignment.amax(1, keepdim=True) + 1e-12
        if scale == "none":
            return positive, alignment.amax(0)
        if scale == "one":
            return positive, (alignment / best).amax(0)
        return positive, (alignment / best * (iou * positive).amax(1, keepdim=True)).amax(0)

    return fn


def best_fit_everywhere(scores, iou, inside, top_k):
    """Each point's best fitting object, where that object picked it; picks of other objects are lost."""
    alignment, positive = scores * iou**6, torch.zeros_like(inside)
    for j, row in enumerate(torch.where(inside, alignment, torch.zeros(()))):
        positive[j, row.topk(min(top_k, iou.shape[1])).indices] = True
    positive = positive & inside & (iou == iou.amax(0))
    alignment, best_iou = alignment * positive, (iou * positive).amax(1, keepdim=True)
    return positive, (alignment / (alignment.amax(1, keepdim=True) + 1e-12) * best_iou).amax(0)


def test_the_material_of_the_wrong_assignments_is_right():
    nb05.check_task_aligned_assign(wrong_assign())
    nb05.check_dfl_loss(lambda x, d: right_dfl_by_side(x, d).mean(1))


WRONG = [
    ("decode_distances", lambda x, p, s: corners(x.argmax(-1) * s, p), "likeliest bin"),
    ("decode_distances", lambda x, p, s: corners((x.softmax(-1) * bins(x)).sum(-1), p), "multiply by the stride"),
    ("decode_distances", lambda x, p, s: corners((x * bins(x)).sum(-1) * s, p), "no probabilities yet"),
    ("decode_distances", lambda x, p, s: corners((x.softmax(-1) * (bins(x) + 1)).sum(-1) * s, p), "distance 0, not 1"),
    (
        "decode_distances",
        lambda x, p, s: torch.cat([p, p], 1) + (x.softmax(-1) * bins(x)).sum(-1) * s,
        "subtract them from the point",
    ),
    ("decode_distances", lambda x, p, s: corners((x.softmax(1) * bins(x)).sum(-1) * s, p), "four sides"),
    ("decode_distances", lambda x, p, s: None, "returned None"),
    ("dfl_loss", swapped_dfl, "swapped"),
    (
        "dfl_loss",
        lambda x, d: F.cross_entropy(x.movedim(2, 1), d.round().long(), reduction="none").mean(1),
        "nearest bin alone",
    ),
    ("dfl_loss", lambda x, d: right_dfl_by_side(x, d).sum(1), "mean over the four sides"),
    ("dfl_loss", lambda x, d: right_dfl_by_side(x, d).mean(), "one number for each point"),
    ("dfl_loss", lambda x, d: -right_dfl_by_side(x, d).mean(1), "sign"),
    ("dfl_loss", lambda x, d: ((x.softmax(-1) @ bins(x)) - d).abs().mean(1), "expected"),
    ("task_aligned_assign", wrong_assign(resolve="never"), "still positive for both"),
    ("task_aligned_assign", wrong_assign(resolve="alignment"), "not the largest alignment"),
    ("task_aligned_assign", wrong_assign(resolve="iou of pickers"), "also one that did not pick it"),
    ("task_aligned_assign", best_fit_everywhere, "only points that several objects picked"),
    ("task_aligned_assign", wrong_assign(restrict=False), "exclude them before topk"),
    ("task_aligned_assign", wrong_assign(scale="none"), "best point gets its best IoU"),
    ("task_aligned_assign", wrong_assign(scale="one"), "not 1"),
    ("task_aligned_assign", lambda s, i, n, k: nb05.task_aligned_assign(s, i ** (1 / 6), n, k), "expected"),
    ("task_aligned_assign", lambda s, i, n, k: (n, s.amax(0)), "expected"),
]


@pytest.mark.parametrize(("name", "wrong", "advice"), WRONG)
def test_wrong_solutions_are_told_what_is_wrong(name, wrong, advice):
    with pytest.raises(CheckFailed, match=advice):
        CHECKS[name](wrong)


@pytest.mark.parametrize("name", CHECKS)
def test_hints_and_solutions_exist(name, capsys):
    for level in (1, 2, 3):
        nb05.hint(name, level)
    nb05.solution(name)
    assert f"def {name}" in capsys.readouterr().out
