"""What a generated scene may contain: the classes and colors of a domain, and what `difficulty` changes.

Notebook 00 shows the scenes, notebook 07 uses both domains (pre-train on one, fine-tune on the other).
All lengths are fractions of the image side, so a scene looks alike at every image size.
"""

from dataclasses import dataclass

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
        GlyphClass("airplane", "✈", 195),
        GlyphClass("umbrella", "☂", 330),
        GlyphClass("phone", "☎", 6),
        GlyphClass("knight", "♞", 44),
        GlyphClass("anchor", "⚓", 150),
        GlyphClass("scissors", "✂", 275),
    ),
    ground_hues=(200, 215, 230, 250, 270, 185),
)

SCENES_PRETRAIN = Domain(
    name="scenes_pretrain",
    classes=(
        GlyphClass("heart", "♥", 350),
        GlyphClass("star", "★", 50),
        GlyphClass("gear", "⚙", 210),
        GlyphClass("envelope", "✉", 35),
        GlyphClass("flower", "✿", 310),
        GlyphClass("skull", "☠", 90),
        GlyphClass("music", "♫", 260),
        GlyphClass("flag", "⚑", 125),
        GlyphClass("lightning", "⚡", 62),
        GlyphClass("cloud", "☁", 195),
        GlyphClass("rook", "♜", 18),
        GlyphClass("spade", "♠", 175),
    ),
    ground_hues=(18, 32, 350, 90, 60),
)


@dataclass(frozen=True)
class Difficulty:
    """What makes a scene hard; make one by hand or with `difficulty_settings(level)`.

    objects: fewest and most objects; object_size: longest side of an object as a fraction of the image side;
    ground_luma, contrast: brightness of the ground and the distance of an object from it, in [0, 1];
    darker: probability that an object is darker than the ground; typical_hue: probability that it has its class's hue;
    rotation: largest angle in degrees; tilt: largest shear; clutter: fewest and most background shapes;
    letters: probability that such a shape is a letter; occluders: most bars laid over the objects;
    overlap: largest part of the smaller of two objects' boxes that they may share;
    min_visible: every object keeps at least this part of its pixels; noise: amplitude in gray levels (of 255).
    """

    objects: tuple[int, int]
    object_size: tuple[float, float]
    ground_luma: tuple[float, float]
    contrast: float
    darker: float
    typical_hue: float
    rotation: float
    tilt: float
    clutter: tuple[int, int]
    letters: float
    occluders: int
    overlap: float
    min_visible: float
    noise: float

    def __post_init__(self) -> None:
        ranges = {"objects": self.objects, "object_size": self.object_size, "clutter": self.clutter}
        for name, (low, high) in {**ranges, "ground_luma": self.ground_luma}.items():
            if not 0 <= low <= high:
                raise ValueError(f"Difficulty.{name} is {(low, high)}: give (smallest, largest), both at least 0.")
        fractions = ("darker", "typical_hue", "letters", "min_visible", "contrast", "overlap")
        for name in fractions:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"Difficulty.{name} is {getattr(self, name)}: give a number from 0 to 1.")
        if not 0.05 <= self.object_size[0] or self.object_size[1] > 1 or self.ground_luma[1] > 1:
            raise ValueError("Difficulty.object_size must stay within 0.05 and 1, and ground_luma within 0 and 1.")
        if self.min_visible < 0.3:
            raise ValueError(f"Difficulty.min_visible is {self.min_visible}: give at least 0.3, or objects vanish.")
        for name, largest in (("rotation", 180), ("tilt", 0.5), ("noise", 64), ("occluders", 100)):
            if not 0 <= getattr(self, name) <= largest:
                raise ValueError(f"Difficulty.{name} is {getattr(self, name)}: give a number from 0 to {largest}.")


def difficulty_settings(level: float) -> Difficulty:
    """Settings for a level in [0, 1]: 0 plain bright objects, 0.25 the workbook's default, 1 hard for a person too.

    Raises ValueError for a level outside [0, 1].
    """
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
    """The domain itself, or the built-in one of that name; raises ValueError for an unknown name or no classes."""
    if isinstance(domain, str):
        built_in = {known.name: known for known in (SCENES, SCENES_PRETRAIN)}
        if domain not in built_in:
            raise ValueError(f"domain is '{domain}': give one of {', '.join(built_in)}, or a Domain.")
        return built_in[domain]
    names = domain.class_names
    if not names or len(set(names)) != len(names):
        raise ValueError(f"Domain '{domain.name}' needs at least one class, and no class name twice: it has {names}.")
    if not domain.ground_hues:
        raise ValueError(f"Domain '{domain.name}' has no ground_hues: give at least one hue in degrees.")
    for glyph in domain.classes:
        if len(glyph.character) != 1 or glyph.character.isspace():
            raise ValueError(f"Class '{glyph.name}' needs one character that can be seen: it has '{glyph.character}'.")
    return domain


def resolve_difficulty(difficulty: float | Difficulty) -> Difficulty:
    """The settings themselves, or those of a level in [0, 1]."""
    return difficulty if isinstance(difficulty, Difficulty) else difficulty_settings(difficulty)
