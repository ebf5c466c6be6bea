import torch
import torch.nn.functional as F

from yolonas_lab import losses
from yolonas_lab.models.yolo_nas import decode_boxes
from yolonas_lab.teaching.checks.nb05 import task_aligned_assign


def decode_side_by_side(logits, points, strides):
    boxes = []
    for sides, (x, y), (stride,) in zip(logits, points.tolist(), strides.tolist(), strict=True):
        left, top, right, bottom = (
            stride * sum(i * p for i, p in enumerate(F.softmax(side, 0).tolist())) for side in sides
        )
        boxes.append([x - left, y - top, x + right, y + bottom])
    return torch.tensor(boxes)


def triangle(logits, distances):
    """The loss by side; the target is a triangle around each distance."""
    target = (1 - (distances[..., None] - torch.arange(logits.shape[-1])).abs()).clamp(min=0)
    return F.cross_entropy(logits.movedim(2, 1), target.movedim(2, 1), reduction="none")


def assign_in_loops(scores, iou, inside, top_k):
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


def assign(resolve="iou of all", restrict=True, scale="object"):
    def fn(scores, iou, inside, top_k):
        alignment = scores * iou**6
        pool = torch.where(inside, alignment, torch.zeros(())) if restrict else alignment
        positive = torch.zeros_like(inside)
        for j, best in enumerate(pool.topk(min(top_k, iou.shape[1])).indices):
            positive[j, best] = True
        positive &= inside
        judges = {"iou of all": iou, "iou of pickers": iou * positive, "alignment": alignment * positive}
        for n in (positive.sum(0) > 1).nonzero()[:, 0].tolist() if resolve in judges else []:
            positive[:, n] = torch.arange(len(iou)) == judges[resolve][:, n].argmax()
        if resolve == "every point":
            positive &= iou == iou.amax(0)
        alignment = alignment * positive
        best = alignment.amax(1, keepdim=True) + 1e-12
        fit = 1 if scale == "one" else (iou * positive).amax(1, keepdim=True)
        return positive, (alignment if scale == "none" else alignment / best * fit).amax(0)

    return fn


RIGHT = [
    ("decode_distances", decode_side_by_side),
    ("decode_distances", decode_boxes),
    ("dfl_loss", lambda x, d: triangle(x, d).mean(1)),
    ("dfl_loss", losses.dfl_loss),
    ("task_aligned_assign", assign_in_loops),
    ("task_aligned_assign", assign()),
]
WRONG = [
    ("decode_distances", lambda x, p, s: decode_boxes(x, p, 0 * s + 1), "multiply by the stride"),
    ("decode_distances", lambda x, p, s: decode_boxes(x.exp().log_softmax(1), p, s), "expected"),
    ("dfl_loss", lambda x, d: F.cross_entropy(x.movedim(2, 1), d.round().long(), reduction="none").mean(1), "nearest"),
    ("dfl_loss", lambda x, d: triangle(x, d.floor() + 1 - d.frac()).mean(1), "swapped"),
    ("dfl_loss", lambda x, d: triangle(x, d).sum(1), "mean over the four sides"),
    ("dfl_loss", lambda x, d: triangle(x, d).mean(), "one number for each point"),
    ("dfl_loss", lambda x, d: -triangle(x, d).mean(1), "sign"),
    ("dfl_loss", lambda x, d: ((x.softmax(-1) @ torch.arange(float(x.shape[2]))) - d).abs().mean(1), "expected"),
    ("task_aligned_assign", assign(resolve="never"), "still positive for both"),
    ("task_aligned_assign", assign(resolve="alignment"), "not the largest alignment"),
    ("task_aligned_assign", assign(resolve="iou of pickers"), "also one that did not pick it"),
    ("task_aligned_assign", assign(resolve="every point"), "only points that several objects picked"),
    ("task_aligned_assign", assign(restrict=False), "exclude them before topk"),
    ("task_aligned_assign", assign(scale="none"), "best point gets its best IoU"),
    ("task_aligned_assign", assign(scale="one"), "not 1"),
    ("task_aligned_assign", lambda s, i, n, k: task_aligned_assign(s, i ** (1 / 6), n, k), "expected"),
    ("task_aligned_assign", lambda s, i, n, k: (n, s.amax(0)), "expected"),
]
