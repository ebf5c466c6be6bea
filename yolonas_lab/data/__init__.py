"""Data: generated glyph scenes, and any COCO-format folder (notebooks 00 and 14)."""

from yolonas_lab.data.coco import CocoDataset, CocoReport, Sample
from yolonas_lab.data.coco_json import write_coco
from yolonas_lab.data.contact_sheet import class_sheet, contact_sheet
from yolonas_lab.data.images import load_image
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

__all__ = [
    "DEFAULT_DIFFICULTY",
    "SCENES",
    "SCENES_PRETRAIN",
    "CocoDataset",
    "CocoReport",
    "Difficulty",
    "Domain",
    "GlyphClass",
    "Sample",
    "Scene",
    "ScenesSummary",
    "class_sheet",
    "contact_sheet",
    "difficulty_settings",
    "digest",
    "draw_scene",
    "load_image",
    "make_scenes",
    "write_coco",
]
