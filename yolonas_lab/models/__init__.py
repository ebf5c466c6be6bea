"""YOLO-NAS: blocks, stages, neck, heads, the whole network, its re-parameterization and its official checkpoints."""

from yolonas_lab.models.blocks import ConvAct, ConvBN, ConvBNAct, QARepVGGBlock, RepVGGBlock
from yolonas_lab.models.checkpoint import LoadReport
from yolonas_lab.models.configs import CONFIGS, StageConfig, YoloNASConfig
from yolonas_lab.models.get import get
from yolonas_lab.models.official import COCO_CLASS_NAMES, load_official, official_layout
from yolonas_lab.models.reparameterize import fuse_blocks, reparameterize
from yolonas_lab.models.yolo_nas import RawPredictions, YoloNAS, anchor_points, decode

__all__ = [
    "COCO_CLASS_NAMES", "CONFIGS", "ConvAct", "ConvBN", "ConvBNAct", "LoadReport", "QARepVGGBlock", "RawPredictions",
    "RepVGGBlock", "StageConfig", "YoloNAS", "YoloNASConfig", "anchor_points", "decode", "fuse_blocks", "get",
    "load_official", "official_layout", "reparameterize",
]  # fmt: skip
