"""YOLO-NAS from the top: backbone, neck, heads, put together from a config. Notebook 04 builds it step by step.

Architecture as released by Deci in super-gradients (`customizable_detector.py`, `yolo_nas_variants.py`), May 2023.
"""

import torch
from torch import Tensor, nn

from yolonas_lab.models.checkpoint import LoadReport
from yolonas_lab.models.configs import YoloNASConfig
from yolonas_lab.models.heads import STRIDES, Heads, RawPredictions
from yolonas_lab.models.neck import DownStage, Neck, UpStage
from yolonas_lab.models.stages import SPP, Backbone, CSPLayer, Stage


class YoloNAS(nn.Module):
    """A detector: images (b, 3, h, w), RGB in [0, 1], h and w multiples of 32 -> RawPredictions, in train and eval
    mode alike.

    `config` holds the architecture, `num_classes` the number of classes k, `class_names` their names (or None), and
    `image_size` the side in px of the square that `predict` fits an image into.
    """

    def __init__(self, config: YoloNASConfig, num_classes: int = 80, class_names: list[str] | None = None):
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes is {num_classes}; a detector needs at least 1 class.")
        if class_names is not None and len(class_names) != num_classes:
            raise ValueError(
                f"{len(class_names)} class_names were given for num_classes={num_classes}; give one name per class."
            )
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
        """Detect objects in an image (path, URL, PIL image, array), a list or folder of them, or a video: see
        `detect.predict`.
        """
        from yolonas_lab.detect import predict

        return predict(self, source, conf=conf, iou=iou, **options)


def build_backbone(config: YoloNASConfig) -> Backbone:
    """Stem, four stages and SPP of this size."""
    stages, channels = [], config.stem_channels
    for s in config.backbone:
        stages.append(Stage(channels, s.out_channels, s.blocks, s.hidden_channels, s.concat, s.block))
        channels = s.out_channels
    stem = config.stem_block(3, config.stem_channels, stride=2)
    return Backbone(stem, stages, SPP(channels, channels, config.spp_kernels))


def build_neck(config: YoloNASConfig) -> Neck:
    """The four neck stages of this size."""
    c2, c3, c4, c5 = (stage.out_channels for stage in config.backbone)
    up1, up2, down1, down2 = config.neck

    def csp(in_channels: int, stage) -> CSPLayer:
        return CSPLayer(in_channels, stage.out_channels, stage.blocks, stage.hidden_channels, stage.concat, stage.block)

    return Neck(
        UpStage(c5, c4, c3, csp(up1.out_channels, up1), up1.out_channels),
        UpStage(up1.out_channels, c3, c2, csp(up2.out_channels, up2), up2.out_channels),
        DownStage(up2.out_channels, csp(down1.out_channels // 2 + up2.out_channels, down1), down1.out_channels),
        DownStage(down1.out_channels, csp(down2.out_channels // 2 + up1.out_channels, down2), down2.out_channels),
    )


def check_images(images: Tensor) -> None:
    """Raise ValueError unless images are (b, 3, h, w) floats whose sides are multiples of the coarsest stride."""
    if torch.compiler.is_compiling():
        return
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 3:
        shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(
            f"The model takes images as a tensor (b, 3, h, w), got {shape}; use images[None] for a single image."
        )
    if not images.is_floating_point():
        raise ValueError(f"The model takes float images in [0, 1], got {images.dtype}; divide uint8 images by 255.")
    h, w = images.shape[2:]
    if h % STRIDES[-1] or w % STRIDES[-1] or h == 0 or w == 0:
        raise ValueError(
            f"Image sides must be multiples of {STRIDES[-1]} px, got {h}×{w}; letterbox the image to such a size first."
        )
