"""The neck: a path-aggregation network that mixes fine and coarse features in both directions.

Notebook 04 builds it. Liu et al., "Path Aggregation Network", arXiv 1803.01534; the three-input up stage as in
super-gradients' `yolo_nas/panneck.py` and `yolo_stages.py`.
"""

import torch
from torch import Tensor, nn

from yolonas_lab.models.blocks import ConvBNAct
from yolonas_lab.models.stages import CSPLayer


class UpStage(nn.Module):
    """Coarse to fine: bring the coarse map up, the finest skip down, and mix both with the skip in the middle.

    x (b, c, h, w), skip (b, ·, 2h, 2w), fine_skip (b, ·, 4h, 4w) -> reduced x (b, c_out, h, w) for the down path, and
    the mixed map (b, c_out, 2h, 2w).
    """

    def __init__(self, in_channels: int, skip_channels: int, fine_skip_channels: int, csp: CSPLayer, out_channels: int):
        super().__init__()
        self.reduce_skip = ConvBNAct(skip_channels, out_channels, 1)
        self.reduce_fine_skip = ConvBNAct(fine_skip_channels, out_channels, 1)
        self.downsample_fine_skip = ConvBNAct(out_channels, out_channels, 3, stride=2)
        self.reduce = ConvBNAct(in_channels, out_channels, 1)
        self.upsample = nn.ConvTranspose2d(out_channels, out_channels, kernel_size=2, stride=2)
        self.reduce_concat = ConvBNAct(3 * out_channels, out_channels, 1)
        self.csp = csp

    def forward(self, x: Tensor, skip: Tensor, fine_skip: Tensor) -> tuple[Tensor, Tensor]:
        reduced = self.reduce(x)
        pieces = [
            self.upsample(reduced),
            self.reduce_skip(skip),
            self.downsample_fine_skip(self.reduce_fine_skip(fine_skip)),
        ]
        return reduced, self.csp(self.reduce_concat(torch.cat(pieces, dim=1)))


class DownStage(nn.Module):
    """Fine to coarse: halve the map and mix it with the up path's reduced map of that size.

    x (b, c, h, w), skip (b, ·, h/2, w/2) -> (b, c_out, h/2, w/2).
    """

    def __init__(self, in_channels: int, csp: CSPLayer, out_channels: int):
        super().__init__()
        self.downsample = ConvBNAct(in_channels, out_channels // 2, 3, stride=2)
        self.csp = csp

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.csp(torch.cat([self.downsample(x), skip], dim=1))


class Neck(nn.Module):
    """Two up stages, then two down stages: features at strides 4, 8, 16, 32 -> features at strides 8, 16, 32."""

    def __init__(self, up1: UpStage, up2: UpStage, down1: DownStage, down2: DownStage):
        super().__init__()
        self.up1, self.up2, self.down1, self.down2 = up1, up2, down1, down2

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        c2, c3, c4, c5 = features  # strides 4, 8, 16, 32
        reduced5, x = self.up1(c5, c4, c3)
        reduced4, p3 = self.up2(x, c3, c2)
        p4 = self.down1(p3, reduced4)
        p5 = self.down2(p4, reduced5)
        return [p3, p4, p5]
