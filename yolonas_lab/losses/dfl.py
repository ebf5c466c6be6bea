"""Distribution Focal Loss: teach a distribution over bins to have its mass around a real-valued distance.

Notebook 05. Li et al., "Generalized Focal Loss", arXiv 2006.04388, section 3.2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def distances_to_sides(points: Tensor, boxes: Tensor, strides: Tensor, reg_max: int) -> Tensor:
    """Left, top, right, bottom distances (…, 4) from points (…, 2) px to boxes (…, 4) px, in strides (…, 1), within
    the bins.

    Clipped to [0, reg_max - 0.01], so that the bin to the right of a distance always exists.
    """
    left_top, right_bottom = boxes.chunk(2, dim=-1)
    distances = torch.cat([points - left_top, right_bottom - points], dim=-1) / strides  # (…, 4)
    return distances.clamp(0, reg_max - 0.01)


def dfl_loss(logits: Tensor, distances: Tensor) -> Tensor:
    """Mean over the four sides of the cross-entropy to the two bins beside each distance: (…, 4, r), (…, 4) -> (…).

    The lower bin has weight 1 - fraction, the upper one fraction; the minimum is reached where the expectation is
    exact.
    """
    lower = distances.long()  # (…, 4)
    fraction = distances - lower
    log_p = F.log_softmax(logits, dim=-1)  # (…, 4, r)
    both = log_p.gather(-1, torch.stack([lower, lower + 1], dim=-1))  # (…, 4, 2)
    return -((1 - fraction) * both[..., 0] + fraction * both[..., 1]).mean(dim=-1)
