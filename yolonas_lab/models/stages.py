"""The backbone's parts: CSP layers of residual bottlenecks, the stages made of them, and spatial pyramid pooling.

Notebook 04 builds with them. CSP: Wang et al., "CSPNet", arXiv 1911.11929; SPP: He et al., arXiv 1406.4729.
Layout and names of the parts as in super-gradients' `yolo_nas/yolo_stages.py` and `csp_darknet53.py`.
"""

import torch
from torch import Tensor, nn

from yolonas_lab.models.blocks import Block, ConvBNAct


class Bottleneck(nn.Module):
    """Two 3×3 blocks beside a scaled skip: alpha · x + block2(block1(x)), alpha learned. Keeps (b, c, h, w)."""

    def __init__(self, channels: int, block: Block):
        super().__init__()
        self.block1 = block(channels, channels)
        self.block2 = block(channels, channels)
        self.alpha = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.alpha * x + self.block2(self.block1(x))


class CSPLayer(nn.Module):
    """Cross-stage-partial layer: half of the features pass through bottlenecks, the other half goes around them.

    With `concat` the outputs of all bottlenecks (and their input) are concatenated, otherwise only the last one.
    (b, c_in, h, w) -> (b, c_out, h, w).
    """

    def __init__(
        self, in_channels: int, out_channels: int, blocks: int, hidden_channels: int, concat: bool, block: Block
    ):
        super().__init__()
        self.conv1 = ConvBNAct(in_channels, hidden_channels, 1)
        self.conv2 = ConvBNAct(in_channels, hidden_channels, 1)
        self.bottlenecks = nn.ModuleList([Bottleneck(hidden_channels, block) for _ in range(blocks)])
        pieces = (blocks + 1 if concat else 1) + 1
        self.conv3 = ConvBNAct(pieces * hidden_channels, out_channels, 1)
        self.concat = concat

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x)  # (b, hidden, h, w)
        pieces = [y]
        for bottleneck in self.bottlenecks:
            y = bottleneck(y)
            pieces = [*pieces, y] if self.concat else [y]
        return self.conv3(torch.cat([*pieces, self.conv2(x)], dim=1))


class Stage(nn.Module):
    """A backbone stage: halve height and width with a strided block, then a CSP layer. (b, c_in, h, w) -> (b, c_out,
    h/2, w/2).
    """

    def __init__(
        self, in_channels: int, out_channels: int, blocks: int, hidden_channels: int, concat: bool, block: Block
    ):
        super().__init__()
        self.downsample = block(in_channels, out_channels, stride=2)
        self.csp = CSPLayer(out_channels, out_channels, blocks, hidden_channels, concat, block)

    def forward(self, x: Tensor) -> Tensor:
        return self.csp(self.downsample(x))


class SPP(nn.Module):
    """Spatial pyramid pooling: the map beside its maxima over growing windows. (b, c_in, h, w) -> (b, c_out, h, w)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_sizes: tuple[int, ...]):
        super().__init__()
        hidden_channels = in_channels // 2
        self.conv1 = ConvBNAct(in_channels, hidden_channels, 1)
        self.pools = nn.ModuleList([nn.MaxPool2d(k, stride=1, padding=k // 2) for k in kernel_sizes])
        self.conv2 = ConvBNAct(hidden_channels * (1 + len(kernel_sizes)), out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        return self.conv2(torch.cat([x, *(pool(x) for pool in self.pools)], dim=1))


class Backbone(nn.Module):
    """Stem, four stages and SPP: images (b, 3, h, w) -> features at strides 4, 8, 16 and 32."""

    def __init__(self, stem: nn.Module, stages: list[Stage], spp: SPP):
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.spp = spp

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.stem(images)  # (b, c, h/2, w/2)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        features[-1] = self.spp(x)
        return features
