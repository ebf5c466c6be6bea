"""Data: generated glyph scenes, any COCO-format folder, augmentation and batches (notebooks 00, 06 and 14)."""

from yolonas_lab.data.augment import Augmentation, LabeledImage, augment
from yolonas_lab.data.coco import Batch, CocoDataset, CocoReport, Sample, Targets, write_coco
from yolonas_lab.data.loader import Loader
from yolonas_lab.data.scene_files import ScenesSummary, class_sheet, contact_sheet, digest, make_scenes
from yolonas_lab.data.scenes import (
    DEFAULT_DIFFICULTY,
    SCENES,
    SCENES_PRETRAIN,
    Difficulty,
    Domain,
    GlyphClass,
    Scene,
    difficulty_settings,
    draw_scene,
)
from yolonas_lab.sources import load_image

__all__ = [
    "DEFAULT_DIFFICULTY", "SCENES", "SCENES_PRETRAIN", "Augmentation", "Batch", "CocoDataset", "CocoReport",
    "Difficulty", "Domain", "GlyphClass", "LabeledImage", "Loader", "Sample", "Scene", "ScenesSummary", "Targets",
    "augment", "class_sheet", "contact_sheet", "difficulty_settings", "digest", "draw_scene", "load_image",
    "make_scenes", "write_coco",
]  # fmt: skip
