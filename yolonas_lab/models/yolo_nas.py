"""YOLO-NAS from its smallest part to the whole: backbone, neck, heads, the network, decoding.

Notebook 04 builds it step by step. Architecture as released by Deci in super-gradients (`yolo_nas_variants.py`,
`yolo_nas/`), May 2023. CSP: Wang et al., arXiv 1911.11929; SPP: He et al., arXiv 1406.4729; neck: Liu et al., "Path
Aggregation Network", arXiv 1803.01534; box sides as distributions: Li et al., "Generalized Focal Loss", arXiv
2006.04388, section 3 (notebook 05).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from yolonas_lab.models.blocks import Block, ConvBNAct
from yolonas_lab.models.checkpoint import LoadReport
from yolonas_lab.models.configs import StageConfig, YoloNASConfig

STRIDES = (8, 16, 32)  # px of the image per cell of the three maps that the heads read
CLASS_PRIOR = 0.01  # a fresh head gives every class this score: training does not start from a flood of false positives


class RawPredictions(NamedTuple):
    """What the network says, undecoded; `a` counts the anchor points of all levels, fine to coarse, row by row."""

    class_logits: Tensor  # (b, a, k)
    box_logits: Tensor  # (b, a, 4, r): left, top, right, bottom distances as distributions over bins 0 … reg_max
    anchor_points: Tensor  # (a, 2) x, y of the cell centers, px
    strides: Tensor  # (a, 1) px


class Bottleneck(nn.Module):
    """Two 3×3 blocks beside a scaled skip: alpha · x + block2(block1(x)), alpha learned. Keeps (b, c, h, w)."""

    def __init__(self, channels: int, block: Block):
        super().__init__()
        self.block1 = block(channels, channels)
        self.block2 = block(channels, channels)
        self.alpha = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.alpha * x + self.block2(self.block1(x))  # (b, c, h, w)


class CSPLayer(nn.Module):
    """Cross-stage-partial layer: half of the features pass through bottlenecks, the other half goes around them.

    With `concat` the outputs of all bottlenecks (and their input) are concatenated, otherwise only the last one.
    (b, c_in, h, w) -> (b, c_out, h, w).
    """

    def __init__(self, in_channels: int, stage: StageConfig):
        super().__init__()
        hidden_channels = stage.hidden_channels
        self.conv1 = ConvBNAct(in_channels, hidden_channels, 1)
        self.conv2 = ConvBNAct(in_channels, hidden_channels, 1)
        self.bottlenecks = nn.ModuleList([Bottleneck(hidden_channels, stage.block) for _ in range(stage.blocks)])
        pieces = (stage.blocks + 1 if stage.concat else 1) + 1  # and one that goes around
        self.conv3 = ConvBNAct(pieces * hidden_channels, stage.out_channels, 1)
        self.concat = stage.concat

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x)  # (b, hidden, h, w)
        pieces = [y]
        for bottleneck in self.bottlenecks:
            y = bottleneck(y)
            pieces = [*pieces, y] if self.concat else [y]
        # the order decides which of conv3's weights meet which piece: official checkpoints want this one
        y = torch.cat([*pieces, self.conv2(x)], dim=1)  # (b, pieces · hidden, h, w)
        return self.conv3(y)  # (b, c_out, h, w)


class Stage(nn.Module):
    """A backbone stage: halve height and width with a strided block, then a CSP layer.

    (b, c_in, h, w) -> (b, c_out, h/2, w/2).
    """

    def __init__(self, in_channels: int, stage: StageConfig):
        super().__init__()
        self.downsample = stage.block(in_channels, stage.out_channels, stride=2)
        self.csp = CSPLayer(stage.out_channels, stage)

    def forward(self, x: Tensor) -> Tensor:
        return self.csp(self.downsample(x))  # (b, c_out, h/2, w/2)


class SPP(nn.Module):
    """Spatial pyramid pooling: the map beside its maxima over growing windows. (b, c_in, h, w) -> (b, c_out, h, w)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_sizes: tuple[int, ...]):
        super().__init__()
        hidden_channels = in_channels // 2
        self.conv1 = ConvBNAct(in_channels, hidden_channels, 1)
        self.pools = nn.ModuleList([nn.MaxPool2d(k, stride=1, padding=k // 2) for k in kernel_sizes])
        self.conv2 = ConvBNAct(hidden_channels * (1 + len(kernel_sizes)), out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)  # (b, c_in/2, h, w)
        x = torch.cat([x, *(pool(x) for pool in self.pools)], dim=1)  # (b, (1 + windows) · c_in/2, h, w)
        return self.conv2(x)  # (b, c_out, h, w)


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
            x = stage(x)  # (b, c, h/4, w/4), …, (b, c, h/32, w/32)
            features.append(x)
        features[-1] = self.spp(x)
        return features


class UpStage(nn.Module):
    """Coarse to fine: bring the coarse map up, the finest skip down, and mix both with the skip in the middle.

    x (b, c, h, w), skip (b, ·, 2h, 2w), fine_skip (b, ·, 4h, 4w) -> reduced x (b, c_out, h, w) for the down path, and
    the mixed map (b, c_out, 2h, 2w).
    """

    def __init__(self, in_channels: int, skip_channels: int, fine_skip_channels: int, stage: StageConfig):
        super().__init__()
        out_channels = stage.out_channels
        csp = CSPLayer(out_channels, stage)  # before the others: a seed gives each part the numbers it always gave it
        self.reduce_skip = ConvBNAct(skip_channels, out_channels, 1)
        self.reduce_fine_skip = ConvBNAct(fine_skip_channels, out_channels, 1)
        self.downsample_fine_skip = ConvBNAct(out_channels, out_channels, 3, stride=2)
        self.reduce = ConvBNAct(in_channels, out_channels, 1)
        self.upsample = nn.ConvTranspose2d(out_channels, out_channels, kernel_size=2, stride=2)
        self.reduce_concat = ConvBNAct(3 * out_channels, out_channels, 1)
        self.csp = csp

    def forward(self, x: Tensor, skip: Tensor, fine_skip: Tensor) -> tuple[Tensor, Tensor]:
        reduced = self.reduce(x)  # (b, c_out, h, w)
        pieces = [
            self.upsample(reduced),  # (b, c_out, 2h, 2w) each
            self.reduce_skip(skip),
            self.downsample_fine_skip(self.reduce_fine_skip(fine_skip)),
        ]
        mixed = self.reduce_concat(torch.cat(pieces, dim=1))  # (b, 3 · c_out, 2h, 2w) -> (b, c_out, 2h, 2w)
        return reduced, self.csp(mixed)


class DownStage(nn.Module):
    """Fine to coarse: halve the map and mix it with the up path's reduced map of that size.

    x (b, c, h, w), skip (b, ·, h/2, w/2) -> (b, c_out, h/2, w/2).
    """

    def __init__(self, in_channels: int, skip_channels: int, stage: StageConfig):
        super().__init__()
        csp = CSPLayer(stage.out_channels // 2 + skip_channels, stage)  # the halved map and the skip
        self.downsample = ConvBNAct(in_channels, stage.out_channels // 2, 3, stride=2)
        self.csp = csp

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.csp(torch.cat([self.downsample(x), skip], dim=1))  # (b, c_out, h/2, w/2)


class Neck(nn.Module):
    """Two up stages, then two down stages: features at strides 4, 8, 16, 32 -> features at strides 8, 16, 32."""

    def __init__(self, up1: UpStage, up2: UpStage, down1: DownStage, down2: DownStage):
        super().__init__()
        self.up1, self.up2, self.down1, self.down2 = up1, up2, down1, down2

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        c2, c3, c4, c5 = features  # strides 4, 8, 16, 32
        reduced5, x = self.up1(c5, c4, c3)  # strides 32, 16
        reduced4, p3 = self.up2(x, c3, c2)  # strides 16, 8
        p4 = self.down1(p3, reduced4)  # stride 16
        p5 = self.down2(p4, reduced5)  # stride 32
        return [p3, p4, p5]


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
        x = self.stem(x)  # (b, hidden, h, w)
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
        key = (*sizes, device, dtype, torch.is_inference_mode_enabled())  # backward refuses inference-mode tensors
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
    """Cell centers of maps of these (h, w), level by level, row by row: points (a, 2) x, y px, strides (a, 1) px."""
    points, point_strides = [], []
    for (h, w), stride in zip(sizes, strides, strict=True):
        y = (torch.arange(h, device=device, dtype=dtype) + 0.5) * stride  # (h,)
        x = (torch.arange(w, device=device, dtype=dtype) + 0.5) * stride  # (w,)
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")  # (h, w) each
        points.append(torch.stack([grid_x, grid_y], dim=-1).flatten(0, 1))  # (h·w, 2)
        point_strides.append(torch.full((h * w, 1), float(stride), device=device, dtype=dtype))
    return torch.cat(points), torch.cat(point_strides)


class YoloNAS(nn.Module):
    """A detector: images (b, 3, h, w), RGB in [0, 1], h and w multiples of 32 -> RawPredictions, in every mode.

    `config` holds the architecture, `num_classes` the number of classes k, `class_names` their names (or None), and
    `image_size` the side in px of the square that `predict` fits an image into.
    """

    def __init__(self, config: YoloNASConfig, num_classes: int = 80, class_names: list[str] | None = None):
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes is {num_classes}; a detector needs at least 1 class.")
        if class_names is not None and len(class_names) != num_classes:
            raise ValueError(f"{len(class_names)} class_names were given for num_classes={num_classes}; give one each.")
        self.config = config
        self.num_classes = num_classes
        self.class_names = list(class_names) if class_names is not None else None
        self.image_size = config.image_size
        self.load_report: LoadReport | None = None  # what was loaded from which checkpoint
        self.backbone = build_backbone(config)
        self.neck = build_neck(config)
        _, up2, down1, down2 = (stage.out_channels for stage in config.neck)
        self.heads = Heads([up2, down1, down2], config.head_channels, num_classes, config.reg_max)

    def forward(self, images: Tensor) -> RawPredictions:
        check_images(images)
        return self.heads(self.neck(self.backbone(images)))

    def predict(self, source, conf: float = 0.25, iou: float = 0.7, **options):
        """Detect objects in an image (path, URL, array, …), a list or folder of them, or a video: `detect.predict`."""
        from yolonas_lab.detect import predict

        return predict(self, source, conf=conf, iou=iou, **options)


def build_backbone(config: YoloNASConfig) -> Backbone:
    """Stem, four stages and SPP of this size."""
    stages, channels = [], config.stem_channels
    for stage in config.backbone:
        stages.append(Stage(channels, stage))
        channels = stage.out_channels
    stem = config.stem_block(3, config.stem_channels, stride=2)
    return Backbone(stem, stages, SPP(channels, channels, config.spp_kernels))


def build_neck(config: YoloNASConfig) -> Neck:
    """The four neck stages of this size."""
    c2, c3, c4, c5 = (stage.out_channels for stage in config.backbone)
    up1, up2, down1, down2 = config.neck
    return Neck(
        UpStage(c5, c4, c3, up1),
        UpStage(up1.out_channels, c3, c2, up2),
        DownStage(up2.out_channels, up2.out_channels, down1),  # a skip is the reduced map of the way up
        DownStage(down1.out_channels, up1.out_channels, down2),
    )


def check_images(images: Tensor) -> None:
    """Raise ValueError unless images are (b, 3, h, w) floats whose sides are multiples of the coarsest stride."""
    if torch.compiler.is_compiling():
        return
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 3:
        shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"The model takes images as a tensor (b, 3, h, w), got {shape}; for one image, images[None].")
    if not images.is_floating_point():
        raise ValueError(f"The model takes float images in [0, 1], got {images.dtype}; divide uint8 images by 255.")
    h, w = images.shape[2:]
    if h % STRIDES[-1] or w % STRIDES[-1] or h == 0 or w == 0:
        raise ValueError(
            f"Image sides must be multiples of {STRIDES[-1]} px, got {h}×{w}; letterbox the image to such a size first."
        )


def decode(raw: RawPredictions) -> tuple[Tensor, Tensor]:
    """Turn raw predictions into boxes (b, a, 4) xyxy px and scores (b, a, k) in [0, 1].

    Each side's distance is the expectation of its distribution over the bins, in units of the stride (Generalized
    Focal Loss, equation 6), measured from the anchor point to the left, top, right and bottom.

    >>> points, strides = torch.tensor([[20.0, 12.0]]), torch.tensor([[8.0]])
    >>> decode(RawPredictions(torch.zeros(1, 1, 1), torch.zeros(1, 1, 4, 3), points, strides))  # bins 0, 1, 2 alike
    (tensor([[[12.,  4., 28., 20.]]]), tensor([[[0.5000]]]))
    """
    return decode_boxes(raw.box_logits, raw.anchor_points, raw.strides), raw.class_logits.sigmoid()


def decode_boxes(box_logits: Tensor, anchor_points: Tensor, strides: Tensor) -> Tensor:
    """Box logits (…, 4, r) at anchor points (…, 2) px of strides (…, 1) px -> boxes (…, 4) xyxy px."""
    bins = torch.arange(box_logits.shape[-1], device=box_logits.device, dtype=box_logits.dtype)  # (r,)
    distances = box_logits.softmax(dim=-1) @ bins * strides  # (…, 4) px
    left_top, right_bottom = distances.chunk(2, dim=-1)  # (…, 2) each
    return torch.cat([anchor_points - left_top, anchor_points + right_bottom], dim=-1)  # (…, 4)
