"""Pictures of generated scenes for the notebooks: a sheet of scenes with their boxes under a row of the classes."""

from typing import TYPE_CHECKING

import numpy as np

from yolonas_lab.data.glyphs import shape_mask
from yolonas_lab.data.scene_settings import DEFAULT_DIFFICULTY, Difficulty, Domain, resolve_domain
from yolonas_lab.data.scenes import color, draw_scene

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GROUND = 250  # gray level between the pictures


def class_sheet(ax: "Axes | None" = None, domain: str | Domain = "scenes", columns: int = 6) -> "Axes":
    """Draw every class of a domain once, large and in its typical hue, with its name below; returns `ax`."""
    domain = resolve_domain(domain)
    side, rows = 120, -(-len(domain.classes) // columns)
    sheet = np.full((rows * side, columns * side, 3), _GROUND, dtype=np.uint8)
    ax = _axes(ax, columns * 1.4, rows * 1.4)
    for position, glyph in enumerate(domain.classes):
        row, column = divmod(position, columns)
        mask = shape_mask(glyph.character, 72)
        alpha = mask[:, :, None] / 255
        y = row * side + 48 - mask.shape[0] // 2
        x = column * side + side // 2 - mask.shape[1] // 2
        part = sheet[y : y + mask.shape[0], x : x + mask.shape[1]]
        part[:] = np.round(part + (np.array(color(glyph.hue, 0.9, 0.52)) - part) * alpha)
        ax.text((column + 0.5) * side, row * side + 106, glyph.name, ha="center", va="center", fontsize=9)
    return _show(ax, sheet)


def contact_sheet(
    ax: "Axes | None" = None,
    domain: str | Domain = "scenes",
    rows: int = 3,
    columns: int = 6,
    image_size: int = 96,
    seed: int = 0,
    difficulty: float | Difficulty = DEFAULT_DIFFICULTY,
    names: bool = True,
) -> "Axes":
    """Draw the first rows x columns training scenes of a domain side by side; returns `ax`.

    With `names`, every object has its box and, above it, its class name. Raises ValueError as `draw_scene` does.
    """
    if rows < 1 or columns < 1:
        raise ValueError(f"rows and columns are {rows} and {columns}: give at least 1 of each.")
    domain = resolve_domain(domain)
    gap = max(2, image_size // 24)
    step = image_size + gap
    sheet = np.full((rows * step + gap, columns * step + gap, 3), _GROUND, dtype=np.uint8)
    ax = _axes(ax, columns * 1.9, rows * 1.9)
    for index in range(rows * columns):
        scene = draw_scene(index, image_size, seed, domain, "train", difficulty)
        y, x = gap + index // columns * step, gap + index % columns * step
        sheet[y : y + image_size, x : x + image_size] = scene.image
        for box, label in zip(scene.boxes, scene.labels, strict=True) if names else ():
            _mark(ax, box, domain.class_names[label], x, y, image_size)
    return _show(ax, sheet)


def _mark(ax: "Axes", box: np.ndarray, name: str, x: int, y: int, side: int) -> None:
    """Outline a box of the scene at (x, y) and write its name above it, or inside where there is no room."""
    from matplotlib.patches import Rectangle

    x1, y1, x2, y2 = box
    corner = (x + x1 - 0.5, y + y1 - 0.5)
    ax.add_patch(Rectangle(corner, x2 - x1, y2 - y1, fill=False, edgecolor="white", linewidth=0.9))
    above = y1 > 0.09 * side
    ax.text(
        x + min(x1, 0.72 * side),
        y + (y1 - 0.01 * side if above else y1 + 0.015 * side),
        name,
        color="black",
        fontsize=6,
        va="bottom" if above else "top",
        bbox={"boxstyle": "square,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
    )


def _axes(ax: "Axes | None", width: float, height: float) -> "Axes":
    """The given axes, or new ones of that size in inches."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def _show(ax: "Axes", sheet: np.ndarray) -> "Axes":
    ax.imshow(sheet, interpolation="nearest")
    ax.set_axis_off()
    return ax
