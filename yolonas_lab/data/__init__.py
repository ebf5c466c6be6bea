"""Data: generated glyph scenes, any COCO-format folder, augmentation and batches (notebooks 00, 06 and 14)."""

from yolonas_lab.data.augmentation import Augmentation
from yolonas_lab.data.coco import CocoDataset, CocoReport, Sample
from yolonas_lab.data.coco_json import write_coco
from yolonas_lab.data.contact_sheet import class_sheet, contact_sheet
from yolonas_lab.data.images import load_image
from yolonas_lab.data.loader import Loader
from yolonas_lab.data.scene_files import ScenesSummary, digest, make_scenes
from yolonas_lab.data.scene_settings import (
    DEFAULT_DIFFICULTY,
    SCENES,
    SCENES_PRETRAIN,
    Difficulty,
    Domain,
    GlyphClass,
    difficulty_settings,
)
from yolonas_lab.data.scenes import Scene, draw_scene
from yolonas_lab.data.targets import Batch, Targets
from yolonas_lab.data.transforms import LabeledImage, augment

__all__ = [
    "DEFAULT_DIFFICULTY",
    "SCENES",
    "SCENES_PRETRAIN",
    "Augmentation",
    "Batch",
    "CocoDataset",
    "CocoReport",
    "Difficulty",
    "Domain",
    "GlyphClass",
    "LabeledImage",
    "Loader",
    "Sample",
    "Scene",
    "ScenesSummary",
    "Targets",
    "augment",
    "class_sheet",
    "contact_sheet",
    "difficulty_settings",
    "digest",
    "draw_scene",
    "load_image",
    "make_scenes",
    "write_coco",
]
