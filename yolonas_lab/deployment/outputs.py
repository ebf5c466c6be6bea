"""What an exported graph answers, put so that everything that takes a model takes it: decoded boxes as RawPredictions.

Used by the detectors that run exported files; notebook 12 shows that nothing is lost on the way.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from yolonas_lab.models.heads import RawPredictions


def undecode(boxes: Tensor, scores: Tensor) -> RawPredictions:
    """RawPredictions that `decode` turns into these boxes (b, a, 4) xyxy px and scores (b, a, k) in [0, 1].

    Each box has its own anchor point, its center, and each side its own unit, its distance from there; the
    distribution over the bins 0 and 1 is certain of 1.
    """
    left_top, right_bottom = boxes.chunk(2, dim=-1)  # (b, a, 2) each
    half = (right_bottom - left_top) / 2
    certain = boxes.new_tensor([-torch.inf, 0.0]).expand(*boxes.shape, 2)  # (b, a, 4, 2)
    return RawPredictions(
        class_logits=torch.logit(scores),  # (b, a, k)
        box_logits=certain,
        anchor_points=left_top + half,  # (b, a, 2)
        strides=torch.cat([half, half], dim=-1),  # (b, a, 4)
    )


def one_hot_scores(scores: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Scores (b, n) and labels (b, n) of detections after NMS as scores (b, n, k), 0 for all classes but the label."""
    return scores[..., None] * F.one_hot(labels, num_classes)
