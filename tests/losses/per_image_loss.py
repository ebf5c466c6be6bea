"""The YOLO-NAS loss written straightforwardly, image by image: the oracle of the tests, and the speed baseline."""

import torch
import torch.nn.functional as F

from yolonas_lab import boxes as B
from yolonas_lab.models.yolo_nas import decode


@torch.no_grad()
def assign_image(scores, predicted, points, target, top_k=13, alpha=1.0, beta=6.0):
    """One image: labels (a,), boxes (a, 4), soft scores (a, k)."""
    a, k = scores.shape
    g = len(target.labels)
    labels, boxes, soft = torch.full((a,), k), torch.zeros(a, 4), torch.zeros(a, k)
    if g == 0:
        return labels, boxes, soft
    ious = B.iou(target.boxes, predicted)  # (g, a)
    alignment, positive = torch.zeros(g, a), torch.zeros(g, a, dtype=torch.bool)
    for j in range(g):
        inside = torch.cat([points - target.boxes[j, :2], target.boxes[j, 2:] - points], 1).amin(1) > 1e-9
        alignment[j] = scores[:, target.labels[j]] ** alpha * ious[j] ** beta
        best = torch.topk(torch.where(inside, alignment[j], 0.0), min(top_k, a))
        if best.values[0] > 1e-9:
            positive[j, best.indices] = True
            positive[j] &= inside
    for i in torch.nonzero(positive.sum(0) > 1)[:, 0]:
        positive[:, i] = False
        positive[ious[:, i].argmax(), i] = True
    for j in range(g):
        if not (mine := positive[j]).any():
            continue
        quality = alignment[j] / (alignment[j][mine].max() + 1e-9) * ious[j][mine].max()
        labels[mine], boxes[mine] = target.labels[j], target.boxes[j]
        soft[mine, target.labels[j]] = quality[mine]
    return labels, boxes, soft


def varifocal(logits, labels, soft, object_weight):
    """Sum over one image's points and classes: logits and soft targets (a, k), labels and object_weight (a,)."""
    one_hot = F.one_hot(labels, logits.shape[1] + 1)[:, :-1].float()
    weight = 0.75 * logits.sigmoid() ** 2 * (1 - one_hot) + soft * one_hot
    losses = weight * F.binary_cross_entropy_with_logits(logits, soft, reduction="none")
    return (losses.sum(1) * object_weight).sum()


def per_image_loss_vectorised_over_points(raw, targets, weights=(1.0, 2.5, 0.5)):
    """(total, classification, iou, dfl), as DetectionLoss: what a reasonable first implementation looks like."""
    boxes, scores = decode(raw)
    k, reg_max = scores.shape[2], raw.box_logits.shape[-1] - 1
    sums, normalizer = [torch.zeros(()) for _ in range(3)], torch.zeros(())
    for i, target in enumerate(targets):
        labels, wanted, soft = assign_image(scores[i], boxes[i].detach(), raw.anchor_points, target)
        weight = torch.ones(len(labels))
        for n in torch.nonzero(labels < k)[:, 0]:
            weight[n] = target.weights[(wanted[n] == target.boxes).all(1)].item()
        sums[0] = sums[0] + varifocal(raw.class_logits[i], labels, soft, weight)
        soft = soft * weight[:, None]
        normalizer = normalizer + soft.sum()
        mine = labels < k
        q, points, strides = soft[mine].sum(1), raw.anchor_points[mine], raw.strides[mine]
        sums[1] = sums[1] + (q * (1 - B.paired_giou(boxes[i][mine], wanted[mine]))).sum()
        sides = torch.cat([points - wanted[mine][:, :2], wanted[mine][:, 2:] - points], 1) / strides
        sides = sides.clamp(0, reg_max - 0.01)
        low = sides.long()
        right = sides - low
        logits = raw.box_logits[i][mine].movedim(-1, 1)  # (n, r, 4)
        ce = (1 - right) * F.cross_entropy(logits, low, reduction="none")
        ce = ce + right * F.cross_entropy(logits, low + 1, reduction="none")
        sums[2] = sums[2] + (q * ce.mean(1)).sum()
    parts = [w * s / normalizer.clamp(min=1) for w, s in zip(weights, sums, strict=True)]
    return sum(parts), *parts
