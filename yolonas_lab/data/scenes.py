"""Glyph scenes: a detection data set that is drawn, not downloaded (first met in notebook 00).

Colored symbols lie on soft cluttered grounds; a box is tight around the pixels of its symbol that stay visible.
Scene i of a split is a function of (seed, domain, split, i, image size, difficulty) alone. Lengths are fractions of the
image side, so a scene looks alike at every size. Notebook 07 pre-trains on one domain and fine-tunes on the other.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import shake_128
from random import Random
from typing import Any, NamedTuple

import numpy as np

from yolonas_lab.common import unknown_name
from yolonas_lab.data.glyphs import SHAPES, VISIBLE, Stamp, paint, shape_mask, visible_box

DEFAULT_DIFFICULTY = 0.25


@dataclass(frozen=True)
class GlyphClass:
    """One class of a domain: its name, the character that is drawn, and its typical hue in degrees."""

    name: str
    character: str
    hue: int


@dataclass(frozen=True)
class Domain:
    """A family of scenes: the classes in category order and the hues (degrees) of the ground."""

    name: str
    classes: tuple[GlyphClass, ...]
    ground_hues: tuple[int, ...]

    @property
    def class_names(self) -> list[str]:
        """Names in category order: label 0 first (category id 1 in the files)."""
        return [glyph.name for glyph in self.classes]


SCENES = Domain(
    name="scenes",
    classes=(
        GlyphClass("airplane", "✈", 195), GlyphClass("umbrella", "☂", 330), GlyphClass("phone", "☎", 6),
        GlyphClass("knight", "♞", 44), GlyphClass("anchor", "⚓", 150), GlyphClass("scissors", "✂", 275),
    ),
    ground_hues=(200, 215, 230, 250, 270, 185),
)  # fmt: skip
SCENES_PRETRAIN = Domain(
    name="scenes_pretrain",
    classes=(
        GlyphClass("heart", "♥", 350), GlyphClass("star", "★", 50), GlyphClass("gear", "⚙", 210),
        GlyphClass("envelope", "✉", 35), GlyphClass("flower", "✿", 310), GlyphClass("skull", "☠", 90),
        GlyphClass("music", "♫", 260), GlyphClass("flag", "⚑", 125), GlyphClass("lightning", "⚡", 62),
        GlyphClass("cloud", "☁", 195), GlyphClass("rook", "♜", 18), GlyphClass("spade", "♠", 175),
    ),
    ground_hues=(18, 32, 350, 90, 60),
)  # fmt: skip


@dataclass(frozen=True)
class Difficulty:
    """What makes a scene hard; `difficulty_settings(level)` makes one, `dataclasses.replace` changes it."""

    objects: tuple[int, int]  # fewest and most
    object_size: tuple[float, float]  # longest side as a fraction of the image side; below 0.05 nothing is to be seen
    ground_luma: tuple[float, float]  # brightness of the ground, in [0, 1]
    contrast: float  # distance of an object's brightness from it
    darker: float  # probability that an object is darker than the ground
    typical_hue: float  # probability that it has its class's hue
    rotation: float  # largest angle in degrees
    tilt: float  # largest shear
    clutter: tuple[int, int]  # fewest and most background shapes
    letters: float  # probability that such a shape is a letter
    occluders: int  # most bars laid over the objects
    overlap: float  # largest part of the smaller of two objects' boxes that they may share
    min_visible: float  # every object keeps at least this part of its pixels; below 0.3 objects vanish
    noise: float  # amplitude in gray levels (of 255)


def difficulty_settings(level: float | Difficulty) -> Difficulty:
    """Settings for a level in [0, 1]: 0 plain bright objects, 0.25 the workbook's default, 1 hard for a person too.

    A Difficulty comes back as it is. Raises ValueError for a level outside [0, 1].

    >>> difficulty_settings(0).objects, difficulty_settings(1).objects
    ((1, 3), (1, 6))
    """
    if isinstance(level, Difficulty):
        return level
    if not 0 <= level <= 1:
        raise ValueError(f"difficulty is {level}: give a number from 0 (easy) to 1 (hard).")

    def between(easy: float, hard: float) -> float:
        return round(easy + (hard - easy) * level, 4)

    return Difficulty(
        objects=(1, round(between(2.6, 6))),
        object_size=(between(0.32, 0.12), between(0.70, 0.48)),
        ground_luma=(between(0.13, 0.22), between(0.22, 0.62)),
        contrast=between(0.5, 0.2),
        darker=round(max(0.0, level - 0.3) * 0.5 / 0.7, 4),
        typical_hue=between(0.8, 0.3),
        rotation=between(12, 45),
        tilt=between(0.05, 0.25),
        clutter=(round(between(2, 8)), round(between(5, 18))),
        letters=round(max(0.0, level - 0.3) * 0.6 / 0.7, 4),
        occluders=round(between(0.4, 4)),
        overlap=between(0.05, 0.6),
        min_visible=between(0.9, 0.5),
        noise=between(4, 24),
    )


def resolve_domain(domain: str | Domain) -> Domain:
    """The domain itself, or the built-in one of that name; raises ValueError for an unknown name."""
    built_in = {known.name: known for known in (SCENES, SCENES_PRETRAIN)}
    if isinstance(domain, str) and domain not in built_in:
        raise ValueError(unknown_name("domain", domain, built_in))
    return built_in[domain] if isinstance(domain, str) else domain


class Scene(NamedTuple):
    """An image (h, w, 3) uint8 RGB, its boxes (n, 4) float32 xyxy in pixels, and labels (n,) int64 from 0."""

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray


# Only random() is promised to give the same numbers in every version of Python, so everything is made from it.
def _between(rng: Random, low: float, high: float) -> float:
    return low + (high - low) * rng.random()


def _integer(rng: Random, low: int, high: int) -> int:
    """A whole number from low to high, both included."""
    return low + int(rng.random() * (high - low + 1))


def _pick(rng: Random, items: Sequence) -> Any:
    return items[int(rng.random() * len(items))]


def color(hue: float, saturation: float, luma: float) -> tuple[int, int, int]:
    """RGB bytes of a hue (degrees) whose brightness 0.299 R + 0.587 G + 0.114 B is `luma` (in [0, 1])."""
    pure = colorsys.hsv_to_rgb(hue % 360 / 360, saturation, 1.0)
    own = 0.299 * pure[0] + 0.587 * pure[1] + 0.114 * pure[2]
    white = max(0.0, (luma - own) / (1 - own)) if own < 1 else 0.0
    rgb = [(c + (1 - c) * white) * min(1.0, luma / own) for c in pure]
    return round(255 * rgb[0]), round(255 * rgb[1]), round(255 * rgb[2])


@lru_cache(maxsize=64)
def _texture(kind: int, side: int) -> np.ndarray:
    """A faint woven pattern in [-64, 64] of twice the image side: stripes, cross-hatch or dots (int32)."""
    period = max(6, side // (9, 7, 8, 6)[kind])
    rows, columns = np.mgrid[0 : 2 * side, 0 : 2 * side]

    def wave(position: np.ndarray) -> np.ndarray:  # triangle wave in [-64, 64]
        return np.abs(position * 256 // period % 256 - 128) - 64

    hatch = np.maximum(wave(rows + columns), wave(rows - columns))
    return (wave(rows + columns), wave(2 * rows - columns), hatch, np.minimum(wave(rows), wave(columns)))[kind]


def _ground(rng: Random, side: int, domain: Domain, luma: float) -> np.ndarray:
    """A soft gradient of neighboring hues with a faint texture, (side, side, 3) uint8."""
    from PIL import Image

    hue, lean = _pick(rng, domain.ground_hues), (rng.random() - 0.5, rng.random() - 0.5)
    cells = bytearray()
    for row in range(4):
        for column in range(4):
            slope = 0.22 * (lean[0] * (row - 1.5) + lean[1] * (column - 1.5))
            level = luma * (1 + slope + 0.35 * (rng.random() - 0.5))
            cells += bytes(color(hue + 44 * (rng.random() - 0.5), 0.35 + 0.25 * rng.random(), min(level, 0.95)))
    small = Image.frombytes("RGB", (4, 4), bytes(cells))
    canvas = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC)).astype(np.int32)
    row, column, strength = _integer(rng, 0, side - 1), _integer(rng, 0, side - 1), _integer(rng, 2, 7)
    pattern = _texture(_integer(rng, 0, 3), side)[row : row + side, column : column + side]
    return np.clip(canvas + (pattern * strength >> 6)[:, :, None], 0, 255).astype(np.uint8)


def _centered(mask: np.ndarray, x: float, y: float) -> tuple[int, int]:
    return round(x - mask.shape[1] / 2), round(y - mask.shape[0] / 2)


def _clutter(rng: Random, side: int, domain: Domain, settings: Difficulty, luma: float) -> list[Stamp]:
    """Out-of-focus discs, rings and bars (and letters, where it is hard) close to the ground's brightness."""
    stamps = []
    for _ in range(_integer(rng, *settings.clutter)):
        letter, shape = _pick(rng, "ABEFGHKMRSTZ2357"), _pick(rng, SHAPES)
        shape = letter if rng.random() < settings.letters else shape
        size, softness = side * max(0.12, 0.52 * rng.random()), 0.12 * rng.random()
        mask = shape_mask(shape, size, _between(rng, 0, 360), 0.0, softness)
        x, y = _centered(mask, side * rng.random(), side * rng.random())
        level = min(0.95, max(0.02, luma + settings.contrast * 0.5 * (rng.random() - 0.35)))
        ink = color(_pick(rng, domain.ground_hues) + 30 * rng.random(), 0.3 + 0.4 * rng.random(), level)
        stamps.append(Stamp(mask, x, y, ink, ink, _integer(rng, 70, 169), -1))
    return stamps


def _object(
    rng: Random, side: int, domain: Domain, settings: Difficulty, luma: float, label: int, shrink: float
) -> list[Stamp]:
    """One object as two stamps: its soft shadow, then the symbol itself."""
    glyph = domain.classes[label]
    low, high = settings.object_size
    size = side * max(low, shrink * (low + (high - low) * rng.random()))
    angle, tilt = settings.rotation * _between(rng, -1, 1), settings.tilt * _between(rng, -1, 1)
    mask = shape_mask(glyph.character, size, angle, tilt)
    shadow = shape_mask(glyph.character, size, angle, tilt, softness=0.1)
    # the center may lie close to the rim, so that a little of the symbol is cut off
    reach = max(0.0, side - 0.9 * size)
    center_x, center_y = side / 2 + reach * (rng.random() - 0.5), side / 2 + reach * (rng.random() - 0.5)
    x, y = _centered(mask, center_x, center_y)
    shadow_x, shadow_y = _centered(shadow, center_x + 0.05 * size, center_y + 0.06 * size)

    distance = settings.contrast * (0.85 + 0.4 * rng.random())
    level = luma - distance if rng.random() < settings.darker else luma + distance
    if not 0.05 <= level <= 0.92:  # no room on that side: take the other one
        level = min(0.92, max(0.05, 2 * luma - level))
    typical = rng.random() < settings.typical_hue
    hue = glyph.hue + 24 * (rng.random() - 0.5) if typical else 360 * rng.random()
    saturation = 0.7 + 0.3 * rng.random()
    top, bottom = color(hue, saturation, min(0.97, level + 0.08)), color(hue, saturation, max(0.03, level - 0.06))
    dark = color(_pick(rng, domain.ground_hues), 0.6, 0.04)
    return [Stamp(shadow, shadow_x, shadow_y, dark, dark, 130, -1), Stamp(mask, x, y, top, bottom, 256, label)]


def _occluder(rng: Random, side: int, domain: Domain, settings: Difficulty, luma: float) -> list[Stamp]:
    mask = shape_mask("bar", side * _between(rng, 0.5, 1.0), _between(rng, 0, 180))
    x, y = _centered(mask, side * rng.random(), side * rng.random())
    ink = color(_pick(rng, domain.ground_hues), 0.5, min(0.95, luma + settings.contrast * 0.4 * rng.random()))
    return [Stamp(mask, x, y, ink, ink, 256, -1)]


def _lay_out(rng: Random, side: int, domain: Domain, settings: Difficulty, luma: float) -> list[Stamp]:
    """Objects and bars in painting order; one that would hide too much of an earlier object is tried again."""
    stamps: list[Stamp] = []
    plan = [_integer(rng, 0, len(domain.classes) - 1) for _ in range(_integer(rng, *settings.objects))]
    plan += [-1] * _integer(rng, 0, settings.occluders)
    for label in plan:
        for attempt in range(12):  # every failure makes the next try smaller
            common = rng, side, domain, settings, luma
            new = _object(*common, label, 0.9**attempt) if label >= 0 else _occluder(*common)
            if _is_acceptable(stamps + new, side, settings):
                stamps += new
                break
    return stamps


def _is_acceptable(stamps: Sequence[Stamp], side: int, settings: Difficulty) -> bool:
    """Whether every object shows enough of itself and no two objects' boxes share too much of the smaller one."""
    boxes = []
    for index, stamp in enumerate(stamps):
        if stamp.label >= 0:
            box, shown = visible_box(stamps, index, side)
            if shown < max(1, settings.min_visible * np.count_nonzero(stamp.mask >= VISIBLE)):
                return False
            boxes.append(box)
    return all(_shared_part(a, b) <= settings.overlap for i, a in enumerate(boxes) for b in boxes[:i])


def _shared_part(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Intersection of two xyxy boxes over the area of the smaller one."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(0, width) * max(0, height) / smaller


def _add_noise(rng: Random, canvas: np.ndarray, amplitude: float) -> np.ndarray:
    """Add triangular noise within about +-`amplitude` gray levels to every value."""
    byte = np.arange(256)
    table = (((byte >> 4) + (byte & 15) - 15) * round(256 * amplitude / 15) >> 8).astype(np.int16)
    random_bytes = shake_128(repr(rng.random()).encode()).digest(canvas.size)
    noise = table[np.frombuffer(random_bytes, dtype=np.uint8)].reshape(canvas.shape)
    return np.clip(canvas + noise, 0, 255).astype(np.uint8)


def compose(rng: Random, side: int, domain: Domain, settings: Difficulty) -> tuple[np.ndarray, list[Stamp]]:
    """Choose a scene: its empty ground (side, side, 3) uint8 and everything to lay on it, in painting order."""
    luma = _between(rng, *settings.ground_luma)
    canvas = _ground(rng, side, domain, luma)
    objects = _lay_out(rng, side, domain, settings, luma)
    return canvas, _clutter(rng, side, domain, settings, luma) + objects


def draw_scene(
    index: int = 0,
    image_size: int = 96,
    seed: int = 0,
    domain: str | Domain = "scenes",
    split: str = "train",
    difficulty: float | Difficulty = DEFAULT_DIFFICULTY,
) -> Scene:
    """Draw scene `index` of a split in memory: image (s, s, 3) uint8 RGB, boxes (n, 4) xyxy px, labels (n,).

    `difficulty` is a level in [0, 1] or a Difficulty. Raises ValueError for an unknown domain, an image size
    outside 32..1024 or a difficulty outside [0, 1].

    >>> scene = draw_scene(5, image_size=64)
    >>> scene.boxes.tolist(), [SCENES.class_names[label] for label in scene.labels]
    ([[9.0, 23.0, 40.0, 52.0], [43.0, 5.0, 60.0, 15.0]], ['umbrella', 'scissors'])
    """
    if not isinstance(image_size, int) or not 32 <= image_size <= 1024:
        raise ValueError(f"image_size is {image_size}: give whole pixels from 32 to 1024.")
    domain, settings = resolve_domain(domain), difficulty_settings(difficulty)
    rng = Random(f"{seed}/{domain.name}/{split}/{index}")
    canvas, stamps = compose(rng, image_size, domain, settings)
    paint(canvas, stamps)
    image = _add_noise(rng, canvas, settings.noise)
    boxes = [visible_box(stamps, index, image_size)[0] for index, stamp in enumerate(stamps) if stamp.label >= 0]
    labels = [stamp.label for stamp in stamps if stamp.label >= 0]
    return Scene(image, np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64))
