import torch
import torch.nn.functional as F

from yolonas_lab import losses
from yolonas_lab.models.yolo_nas import decode_boxes


def decode_side_by_side(logits, points, strides):
    boxes = []
    for sides, (x, y), (stride,) in zip(logits, points.tolist(), strides.tolist(), strict=True):
        sides = [stride * sum(i * p for i, p in enumerate(F.softmax(side, 0).tolist())) for side in sides]
        boxes.append([x - sides[0], y - sides[1], x + sides[2], y + sides[3]])
    return torch.tensor(boxes)


def triangle(logits, distances):
    """The target is a triangle around each distance."""
    target = (1 - (distances[..., None] - torch.arange(logits.shape[-1])).abs()).clamp(min=0)
    return F.cross_entropy(logits.movedim(2, 1), target.movedim(2, 1), reduction="none").mean(1)


def assign_in_loops(scores, iou, inside, top_k):
    (g, a), owners = iou.shape, {}
    alignment = scores * iou.pow(6)
    for j in range(g):
        mine = [n for n in range(a) if inside[j, n]]
        for n in sorted(mine, key=lambda n: -alignment[j, n].item())[:top_k]:
            owners.setdefault(n, []).append(j)
    for n, several in owners.items():
        if len(several) > 1:
            owners[n] = [max(range(g), key=lambda i: iou[i, n].item())]
    positive, quality = torch.zeros(g, a, dtype=torch.bool), torch.zeros(a)
    for n, several in owners.items():
        positive[several, n] = True
    for n, (j, *_) in owners.items():
        quality[n] = alignment[j, n] / alignment[j][positive[j]].max() * iou[j][positive[j]].max()
    return positive, quality


RIGHT = [
    ("decode_distances", decode_side_by_side),
    ("decode_distances", decode_boxes),
    ("dfl_loss", triangle),
    ("dfl_loss", losses.dfl_loss),
    ("task_aligned_assign", assign_in_loops),
]
WRONG = [
    ("decode_distances", (decode_side_by_side, "stride * sum -> sum"), "multiply by the stride"),
    ("decode_distances", (decode_side_by_side, "enumerate(F.softmax(side, 0).tolist()) -> enumerate(side)"), "softmax"),
    ("dfl_loss", lambda x, d: F.cross_entropy(x.movedim(2, 1), d.round().long(), reduction="none").mean(1), "nearest"),
    ("dfl_loss", lambda x, d: triangle(x, d.floor() + 1 - d.frac()), "swapped"),
    ("dfl_loss", (triangle, ".mean(1) -> .sum(1)"), "mean over the four sides"),
    ("dfl_loss", lambda x, d: triangle(x, d).mean(), "one number for each point"),
    ("dfl_loss", lambda x, d: -triangle(x, d), "sign"),
    ("dfl_loss", lambda x, d: ((x.softmax(-1) @ torch.arange(float(x.shape[2]))) - d).abs().mean(1), "expected"),
    ("task_aligned_assign", (assign_in_loops, "len(several) > 1 -> False"), "still positive for both"),
    ("task_aligned_assign", (assign_in_loops, "max(range(g), -> max(several,"), "also one that did not pick it"),
    ("task_aligned_assign", (assign_in_loops, "iou[i, n].item() -> alignment[i, n].item()"), "expected"),
    ("task_aligned_assign", (assign_in_loops, " if inside[j, n] ->"), "expected"),
    ("task_aligned_assign", (assign_in_loops, " * iou[j][positive[j]].max() ->"), "not 1"),
    ("task_aligned_assign", (assign_in_loops, ".pow(6) ->"), "the exponent of IoU is missing"),
]
