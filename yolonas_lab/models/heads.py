"""The detection heads: class scores and box-side distributions at every anchor point, and their decoding to boxes.

Notebooks 04 and 05. Distribution Focal Loss heads: Li et al., "Generalized Focal Loss", arXiv 2006.04388, section 3;
layout as in super-gradients' `yolo_nas/dfl_heads.py`.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from yolonas_lab.models.blocks import ConvBNAct

STRIDES = (8, 16, 32)
CLASS_PRIOR = (
    0.01  # a fresh head scores every class 0.01, so that training does not start from a flood of false positives
)


class RawPredictions(NamedTuple):
    """What the network says, undecoded; `a` counts the anchor points of all levels, fine to coarse, row by row."""

    class_logits: Tensor  # (b, a, k)
    box_logits: Tensor  # (b, a, 4, r): left, top, right, bottom distances as distributions over bins 0 … reg_max
    anchor_points: Tensor  # (a, 2) x, y of the cell centers, px
    strides: Tensor  # (a, 1) px


class Head(nn.Module):
    """One level's head: a shared 1×1 stem, then a 3×3 and a 1×1 convolution each for classes and box sides.

    (b, c, h, w) -> class logits (b, k, h, w), box logits (b, 4·(reg_max+1), h, w).
    """

    def __init__(self, in_channels: int, hidden_channels: int, num_classes: int, reg_max: int):
        super().__init__()
        self.stem = ConvBNAct(in_channels, hidden_channels, 1)
        self.class_conv = ConvBNAct(hidden_channels, hidden_channels, 3)
        self.box_conv = ConvBNAct(hidden_channels, hidden_channels, 3)
        self.class_pred = nn.Conv2d(hidden_channels, num_classes, 1)
        self.box_pred = nn.Conv2d(hidden_channels, 4 * (reg_max + 1), 1)
        nn.init.constant_(self.class_pred.bias, math.log(CLASS_PRIOR / (1 - CLASS_PRIOR)))  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        return self.class_pred(self.class_conv(x)), self.box_pred(self.box_conv(x))


class Heads(nn.Module):
    """The heads of all levels, their outputs flattened into one list of anchor points."""

    def __init__(self, in_channels: list[int], hidden_channels: tuple[int, ...], num_classes: int, reg_max: int):
        super().__init__()
        self.levels = nn.ModuleList(
            Head(c, hidden, num_classes, reg_max) for c, hidden in zip(in_channels, hidden_channels, strict=True)
        )
        self.reg_max = reg_max
        self._points: dict[tuple, tuple[Tensor, Tensor]] = {}  # anchor points by map sizes, device and dtype

    def forward(self, features: list[Tensor]) -> RawPredictions:
        class_logits, box_logits = [], []
        for head, feature in zip(self.levels, features, strict=True):
            classes, sides = head(feature)
            class_logits.append(classes.flatten(2).transpose(1, 2))  # (b, h·w, k)
            box_logits.append(sides.flatten(2).transpose(1, 2))  # (b, h·w, 4·r)
        points, strides = self.points(features)
        return RawPredictions(
            class_logits=torch.cat(class_logits, dim=1),  # (b, a, k)
            box_logits=torch.cat(box_logits, dim=1).unflatten(2, (4, self.reg_max + 1)),  # (b, a, 4, r)
            anchor_points=points,
            strides=strides,
        )

    def points(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Anchor points (a, 2) px and strides (a, 1) px for these maps; made once per size, device and dtype."""
        sizes = [(f.shape[2], f.shape[3]) for f in features]
        device = features[0].device
        # Pixel positions need more digits than bfloat16 or half have, whatever the features are computed in.
        dtype = torch.promote_types(features[0].dtype, torch.float32)
        if torch.compiler.is_compiling():  # sizes may be symbolic there and must not become keys
            return anchor_points(sizes, device=device, dtype=dtype)
        key = (*sizes, device, dtype, torch.is_inference_mode_enabled())
        if key not in self._points:
            if len(self._points) >= 16:  # multi-scale use must not grow without bound
                self._points.clear()
            self._points[key] = anchor_points(sizes, device=device, dtype=dtype)
        return self._points[key]


def anchor_points(
    sizes: list[tuple[int, int]],
    strides: tuple[int, ...] = STRIDES,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Cell centers of maps with the given (h, w) sizes: points (a, 2) x, y px and strides (a, 1) px, level by level,
    row by row.
    """
    points, point_strides = [], []
    for (h, w), stride in zip(sizes, strides, strict=True):
        y = (torch.arange(h, device=device, dtype=dtype) + 0.5) * stride
        x = (torch.arange(w, device=device, dtype=dtype) + 0.5) * stride
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")  # (h, w) each
        points.append(torch.stack([grid_x, grid_y], dim=-1).flatten(0, 1))  # (h·w, 2)
        point_strides.append(torch.full((h * w, 1), float(stride), device=device, dtype=dtype))
    return torch.cat(points), torch.cat(point_strides)


def decode(raw: RawPredictions) -> tuple[Tensor, Tensor]:
    """Turn raw predictions into boxes (b, a, 4) xyxy px and scores (b, a, k) in [0, 1].

    Each side's distance is the expectation of its distribution over the bins, in units of the stride (Generalized
    Focal Loss, equation 6), measured from the anchor point to the left, top, right and bottom.
    """
    return decode_boxes(raw.box_logits, raw.anchor_points, raw.strides), raw.class_logits.sigmoid()


def decode_boxes(box_logits: Tensor, anchor_points: Tensor, strides: Tensor) -> Tensor:
    """Box logits (…, 4, r) at anchor points (…, 2) px of strides (…, 1) px -> boxes (…, 4) xyxy px."""
    bins = torch.arange(box_logits.shape[-1], device=box_logits.device, dtype=box_logits.dtype)  # (r,)
    distances = box_logits.softmax(dim=-1) @ bins * strides  # (…, 4) px
    left_top, right_bottom = distances.chunk(2, dim=-1)  # (…, 2) each
    return torch.cat([anchor_points - left_top, anchor_points + right_bottom], dim=-1)  # (…, 4)
