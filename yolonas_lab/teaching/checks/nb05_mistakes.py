"""Material of notebook 05's checks: the pieces that plausible mistakes are made of, and seeded random arguments."""

import torch
from torch import Tensor


def bins(logits: Tensor) -> Tensor:
    return torch.arange(logits.shape[-1], dtype=logits.dtype)


def corners(distances: Tensor, points: Tensor) -> Tensor:
    return torch.cat([points - distances[:, :2], points + distances[:, 2:]], dim=1)


def two_bins(values: Tensor, distances: Tensor, swap: bool = False) -> Tensor:
    lower = distances.long()
    upper_weight = 1 - (distances - lower) if swap else distances - lower
    both = values.gather(2, torch.stack([lower, lower + 1], dim=-1))  # (n, 4, 2)
    return -((1 - upper_weight) * both[..., 0] + upper_weight * both[..., 1])  # (n, 4)


def variant(
    scores: Tensor,
    iou: Tensor,
    inside: Tensor,
    top_k: int,
    *,
    conflict: str = "iou",
    inside_first: bool = True,
    keep_outside: bool = False,
    quality: str = "object",
    beta: float = 6.0,
) -> tuple[Tensor, Tensor]:
    """The assignment with one thing done differently: what the mistakes are made of."""
    alignment = scores * iou**beta
    picked = (alignment * inside if inside_first else alignment).topk(min(top_k, iou.shape[1]), dim=1).indices
    positive = torch.zeros_like(inside).scatter(1, picked, True)
    positive = positive if keep_outside else positive & inside
    judges = {"pickers": torch.where(positive, iou, -1.0), "alignment": torch.where(positive, alignment, -1.0)}
    winner = torch.arange(len(iou))[:, None] == judges.get(conflict, iou).argmax(dim=0)  # (g, a)
    if conflict == "every point":
        positive = positive & winner
    elif conflict != "none":
        positive = torch.where(positive.sum(dim=0) > 1, winner, positive)
    alignment, fit = alignment * positive, (iou * positive).amax(dim=1, keepdim=True)
    best = alignment.amax(dim=1, keepdim=True) if quality != "image" else alignment.max()
    scaled = alignment / best.clamp(min=1e-9)
    values = {"alignment": alignment, "to one": scaled}.get(quality, scaled * fit)
    return positive, values.amax(dim=0)


def random_sides(seed: int, n: int, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    strides = torch.tensor([8.0, 16, 32])[torch.randint(3, (n, 1), generator=g)]
    return torch.randn(n, 4, bins, generator=g), torch.rand(n, 2, generator=g) * 64, strides


def random_image(seed: int, g: int, a: int) -> tuple[Tensor, Tensor, Tensor, int]:
    """An object's row of scores, IoUs from 0.3 up, and a run of points inside it that overlaps its neighbor's.

    Points outside fit worse than any inside, so that no contested point goes to an object that it lies outside of.
    """
    random = torch.Generator().manual_seed(200 + seed)
    scores, iou = 0.05 + 0.9 * torch.rand(g, a, generator=random), 0.3 + 0.65 * torch.rand(g, a, generator=random)
    inside = torch.zeros(g, a, dtype=torch.bool)
    for j in range(g):
        start = j * a // (g + 1)
        inside[j, start : start + 2 * a // (g + 1)] = True
    return scores, torch.where(inside, iou, iou / 4), inside, 5
