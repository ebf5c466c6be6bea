"""The map of the workbook: what each notebook explains, which published number it bears on, and whether it is here yet.

Drawn in notebook 00.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from yolonas_lab.teaching.figures import FP32, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Chapter:
    """One notebook: number, title and idea as drawn (lines), the number it bears on, and whether it can be read yet."""

    number: str
    title: str
    idea: str
    number_moved: str
    here: bool


# Each row is a theme; the first of a row continues the last of the row above.
ROWS: tuple[tuple[str, tuple[Chapter, ...]], ...] = (
    (
        "Reading\nthe numbers",
        (
            Chapter("00", "start here", "data, a first\nprediction", "the table", True),
            Chapter("01", "boxes\nand NMS", "8,400 candidates,\na few detections", "what is counted", True),
            Chapter("02", "COCO AP", "a detector's quality\nas one number", "what mAP means", True),
        ),
    ),
    (
        "The network",
        (
            Chapter("03", "re-parameter-\nization", "three branches\nbecome one conv", "ms ↓", True),
            Chapter("04", "architecture", "S, M and L,\nlayer by layer", "mAP ↑  ms ↑", True),
            Chapter("09", "architecture\nsearch", "the best shape\nfor given ms", "mAP ↑ at equal ms", True),
        ),
    ),
    (
        "Learning",
        (
            Chapter("05", "DFL and\nassignment", "what is asked\nof each point", "mAP ↑", True),
            Chapter("06", "training", "a recipe, and what\neach part buys", "mAP ↑", True),
            Chapter("07", "pseudo-labels", "learning from\nunlabeled images", "mAP ↑", True),
            Chapter("08", "distillation", "learning from a\nlarger network", "mAP ↑", True),
        ),
    ),
    (
        "Eight bits",
        (
            Chapter("10", "post-training\nquantization", "floats become\nintegers", "ms ↓  mAP ↓", True),
            Chapter("11", "quantization-\naware training", "winning back\nwhat was lost", "mAP ↑", True),
            Chapter("12", "ONNX", "one graph for\nevery engine", "same mAP", True),
            Chapter("13", "TensorRT\nINT8", "the engine, and\nhonest timing", "ms ↓", True),
            Chapter("14", "capstone", "your own data,\nall of it", "your own row", False),
        ),
    ),
)

WIDTH, HEIGHT = 1.0, 0.74  # of a box; boxes stand 1.22 apart, rows 1.14
STEP_X, STEP_Y = 1.22, 1.14


def chapters() -> list[Chapter]:
    """Return all notebooks in the order of their numbers."""
    return sorted((chapter for _, row in ROWS for chapter in row), key=lambda chapter: chapter.number)


def draw_course_map(ax: "Axes") -> "Axes":
    """Draw the notebooks as boxes along the way from data to INT8 engine, solid where here, dashed where planned."""
    for r, (theme, row) in enumerate(ROWS):
        ax.text(-0.12, -r * STEP_Y, theme, ha="right", va="center", fontsize=10, fontweight="bold")
        for c, chapter in enumerate(row):
            _draw_chapter(ax, chapter, c * STEP_X, -r * STEP_Y)
            if c:
                _arrow(ax, ((c - 1) * STEP_X + WIDTH, -r * STEP_Y), (c * STEP_X, -r * STEP_Y))
        if r + 1 < len(ROWS):
            _draw_turn(ax, len(row), r)
    _draw_legend(ax)
    ax.set(xlim=(-0.95, 5 * STEP_X - STEP_X + WIDTH + 0.04), ylim=(-3 * STEP_Y - 0.66, 0.42))
    ax.set_axis_off()
    return ax


def _draw_chapter(ax: "Axes", chapter: Chapter, x: float, y: float) -> None:
    """Draw one box whose left edge is at x and whose middle is at height y, with the number it bears on below."""
    from matplotlib.patches import FancyBboxPatch

    look = _look(chapter.here)
    style = "round,pad=0,rounding_size=0.08"
    ax.add_patch(FancyBboxPatch((x, y - HEIGHT / 2), WIDTH, HEIGHT, boxstyle=style, linewidth=1.5, **look))
    ax.text(x + 0.06, y + 0.31, chapter.number, fontsize=8.5, fontweight="bold", va="top", color=look["edgecolor"])
    ax.text(x + 0.21, y + 0.31, chapter.title, fontsize=8.2, fontweight="bold", va="top", linespacing=1.0)
    ax.text(x + 0.06, y - 0.01, chapter.idea, fontsize=8, va="top", linespacing=1.15)
    ax.text(x + WIDTH / 2, y - HEIGHT / 2 - 0.03, chapter.number_moved, fontsize=8.5, ha="center", va="top")


def _draw_legend(ax: "Axes") -> None:
    """Explain the two kinds of box and the words below them, where the short rows leave room."""
    from matplotlib.patches import Rectangle

    x, y = 3 * STEP_X + 0.12, 0.24
    for here, text in ((True, "here in this version"), (False, "planned")):
        ax.add_patch(Rectangle((x, y - 0.06), 0.2, 0.12, linewidth=1.5, **_look(here)))
        ax.text(x + 0.28, y, text, fontsize=9, va="center")
        y -= 0.22
    words = (
        "Below each box: the number it bears on.\n"
        "mAP: accuracy in %,  ms: latency.\n"
        "↑ meant to raise it,  ↓ to lower it."
    )
    ax.text(x, y + 0.04, words, fontsize=9, va="top", linespacing=1.35)


def _look(here: bool) -> dict[str, Any]:
    """Return how the outline and ground of a chapter's box look."""
    if here:
        return {"facecolor": "#E3EEF6", "edgecolor": FP32, "linestyle": "-"}
    return {"facecolor": "white", "edgecolor": "#777777", "linestyle": (0, (4, 3))}


def _draw_turn(ax: "Axes", boxes: int, row: int) -> None:
    """Draw the line from the end of a row to the beginning of the next."""
    end, between = (boxes - 1) * STEP_X + WIDTH, -(row + 0.56) * STEP_Y
    x, y = [end, end + 0.11, end + 0.11, -0.08, -0.08], [-row * STEP_Y] * 2 + [between] * 2 + [-(row + 1) * STEP_Y]
    ax.plot(x, y, color=MUTED, linewidth=1.4, solid_capstyle="butt", zorder=0)
    _arrow(ax, (-0.08, -(row + 1) * STEP_Y), (0, -(row + 1) * STEP_Y))


def _arrow(ax: "Axes", start: tuple[float, float], end: tuple[float, float]) -> None:
    look = {"arrowstyle": "-|>", "color": "#999999", "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end, start, arrowprops=look)
