"""What a detector is to learn from: the true objects of each image of a batch. Notebook 05."""

from typing import NamedTuple

from torch import Tensor


class Targets(NamedTuple):
    """The true objects of one image: boxes (n, 4) xyxy px of the network's input, labels (n,) int64 in 0 … k-1.

    weights (n,) in (0, 1] say how far to trust each object; None: all of them fully.
    """

    boxes: Tensor
    labels: Tensor
    weights: Tensor | None = None


class Batch(NamedTuple):
    """Images ready for the network, and what is true about each."""

    images: Tensor  # (b, 3, s, s) float32 RGB in [0, 1]
    targets: list[Targets]  # one per image
    image_ids: list[int]  # one per image, to name it when something goes wrong
