"""A stand-in for a trained network: it answers with the boxes that a test tells it, through the real decoding."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from yolonas_lab.models.yolo_nas import RawPredictions

REACH = 2048.0  # px: the farthest that a side may be from its box's center


def raw_predictions(boxes: list[Tensor], scores: list[Tensor]) -> RawPredictions:
    """RawPredictions that decode to boxes[i] (n_i, 4) xyxy px with scores[i] (n_i, k) in image i; float64."""
    all_boxes = torch.cat(boxes).double()  # (a, 4): every box has its own anchor point, at its center
    k = scores[0].shape[1]
    points = (all_boxes[:, :2] + all_boxes[:, 2:]) / 2  # (a, 2)
    distances = torch.cat([points - all_boxes[:, :2], all_boxes[:, 2:] - points], dim=1) / REACH  # (a, 4)
    bins = torch.stack([(1 - distances).log(), distances.log()], dim=-1)  # (a, 4, 2)
    logits = torch.full((len(boxes), len(all_boxes), k), -1000.0, dtype=torch.float64)
    start = 0
    for image, image_scores in enumerate(scores):
        logits[image, start : start + len(image_scores)] = image_scores.double().logit()
        start += len(image_scores)
    strides = torch.full((len(all_boxes), 1), REACH, dtype=torch.float64)
    return RawPredictions(logits, bins.expand(len(boxes), -1, -1, -1), points, strides)


class KnownDetector(nn.Module):
    """Answers answer(image (3, h, w)) -> (boxes (n, 4) in network px, scores (n, k)); remembers what it was given."""

    def __init__(self, answer: Callable[[Tensor], tuple[Tensor, Tensor]], class_names=None, image_size: int = 64):
        super().__init__()
        self.answer, self.class_names, self.image_size = answer, class_names, image_size
        self.num_classes = len(class_names) if class_names else 1
        self.frozen = nn.BatchNorm1d(1).eval()  # in eval mode while the whole is in training mode
        self.inputs: list[Tensor] = []
        self.modes: list[bool] = []

    def forward(self, images: Tensor) -> RawPredictions:
        self.inputs.append(images)
        self.modes.append(self.training)
        boxes, scores = zip(*(self.answer(image) for image in images))
        return raw_predictions(list(boxes), list(scores))


def always(boxes: list[list[float]], scores: list[list[float]]) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """The same answer for every image."""
    answer = torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores)
    return lambda image: answer


def by_center_pixel(answers: dict[int, tuple[Tensor, Tensor]]) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Looks the answer up by the red value 0 … 255 in the middle of the image."""
    return lambda image: answers[round(float(image[0, image.shape[1] // 2, image.shape[2] // 2]) * 255)]
