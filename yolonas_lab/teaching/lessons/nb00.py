"""The map of the workbook, which notebook 00 draws: what each notebook explains, which published number it bears on."""

from typing import TYPE_CHECKING, Any, NamedTuple

from yolonas_lab.teaching.figures import FP32, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Chapter(NamedTuple):
    """One notebook: number, title and idea as drawn (lines), the number it bears on, and whether it can be read yet."""

    number: str
    title: str
    idea: str
    number_moved: str
    here: bool = True


# Each row is a theme; the first of a row continues the last of the row above.
ROWS: dict[str, tuple[Chapter, ...]] = {
    "Reading\nthe numbers": (
        Chapter("00", "start here", "data, a first\nprediction", "the table"),
        Chapter("01", "boxes\nand NMS", "8,400 candidates,\na few detections", "what is counted"),
        Chapter("02", "COCO AP", "a detector's quality\nas one number", "what mAP means"),
    ),
    "The network": (
        Chapter("03", "re-parameter-\nization", "three branches\nbecome one conv", "ms ↓"),
        Chapter("04", "architecture", "S, M and L,\nlayer by layer", "mAP ↑  ms ↑"),
        Chapter("09", "architecture\nsearch", "the best shape\nfor given ms", "mAP ↑ at equal ms"),
    ),
    "Learning": (
        Chapter("05", "DFL and\nassignment", "what is asked\nof each point", "mAP ↑"),
        Chapter("06", "training", "a recipe, and what\neach part buys", "mAP ↑"),
        Chapter("07", "pseudo-labels", "learning from\nunlabeled images", "mAP ↑"),
        Chapter("08", "distillation", "learning from a\nlarger network", "mAP ↑"),
    ),
    "Eight bits": (
        Chapter("10", "post-training\nquantization", "floats become\nintegers", "ms ↓  mAP ↓"),
        Chapter("11", "quantization-\naware training", "winning back\nwhat was lost", "mAP ↑"),
        Chapter("12", "ONNX", "one graph for\nevery engine", "same mAP"),
        Chapter("13", "TensorRT\nINT8", "the engine, and\nhonest timing", "ms ↓"),
        Chapter("14", "capstone", "your own data,\nall of it", "your own row", here=False),
    ),
}
WIDTH, HEIGHT = 1.0, 0.74  # of a box
STEP_X, STEP_Y = 1.22, 1.14  # from box to box
LEGEND = """Below each box: the number it bears on.
mAP: accuracy in %,  ms: latency.
↑ meant to raise it,  ↓ to lower it."""


def draw_course_map(ax: "Axes") -> "Axes":
    """Draw the notebooks as boxes along the way from data to INT8 engine, solid where here, dashed where planned."""
    for r, (theme, row) in enumerate(ROWS.items()):
        y = -r * STEP_Y
        ax.text(-0.12, y, theme, ha="right", va="center", fontsize=10, fontweight="bold")
        for c, chapter in enumerate(row):
            _draw_chapter(ax, chapter, c * STEP_X, y)
            if c:
                _arrow(ax, ((c - 1) * STEP_X + WIDTH, y), (c * STEP_X, y))
        if r + 1 < len(ROWS):
            _draw_turn(ax, (len(row) - 1) * STEP_X + WIDTH, y)
    _draw_legend(ax, 3 * STEP_X + 0.12, 0.24)
    ax.set(xlim=(-0.95, 4 * STEP_X + WIDTH + 0.04), ylim=(-3 * STEP_Y - 0.66, 0.42))
    ax.set_axis_off()
    return ax


def _draw_chapter(ax: "Axes", chapter: Chapter, x: float, y: float) -> None:
    """Draw one box whose left edge is at x and whose middle is at height y, with the number it bears on below."""
    from matplotlib.patches import FancyBboxPatch

    look = _look(chapter.here)
    style = "round,pad=0,rounding_size=0.08"
    ax.add_patch(FancyBboxPatch((x, y - HEIGHT / 2), WIDTH, HEIGHT, boxstyle=style, **look))
    ax.text(x + 0.06, y + 0.31, chapter.number, fontsize=8.5, fontweight="bold", va="top", color=look["edgecolor"])
    ax.text(x + 0.21, y + 0.31, chapter.title, fontsize=8.2, fontweight="bold", va="top", linespacing=1.0)
    ax.text(x + 0.06, y - 0.01, chapter.idea, fontsize=8, va="top", linespacing=1.15)
    ax.text(x + WIDTH / 2, y - HEIGHT / 2 - 0.03, chapter.number_moved, fontsize=8.5, ha="center", va="top")


def _draw_legend(ax: "Axes", x: float, y: float) -> None:
    """Explain the two kinds of box and the words below them, where the short rows leave room."""
    from matplotlib.patches import Rectangle

    for row, (here, text) in enumerate({True: "here in this version", False: "planned"}.items()):
        ax.add_patch(Rectangle((x, y - 0.22 * row - 0.06), 0.2, 0.12, **_look(here)))
        ax.text(x + 0.28, y - 0.22 * row, text, fontsize=9, va="center")
    ax.text(x, y - 0.4, LEGEND, fontsize=9, va="top", linespacing=1.35)


def _look(here: bool) -> dict[str, Any]:
    """Return how the outline and ground of a chapter's box look."""
    line = {"edgecolor": FP32, "linestyle": "-"} if here else {"edgecolor": "#777777", "linestyle": (0, (4, 3))}
    return {"facecolor": "#E3EEF6" if here else "white", "linewidth": 1.5, **line}


def _draw_turn(ax: "Axes", end: float, y: float) -> None:
    """Draw the line from the end of a row at height y to the beginning of the next."""
    between, below = y - 0.56 * STEP_Y, y - STEP_Y
    x = [end, end + 0.11, end + 0.11, -0.08, -0.08]
    ax.plot(x, [y, y, between, between, below], color=MUTED, linewidth=1.4, solid_capstyle="butt", zorder=0)
    _arrow(ax, (-0.08, below), (0, below))


def _arrow(ax: "Axes", start: tuple[float, float], end: tuple[float, float]) -> None:
    look = {"arrowstyle": "-|>", "color": "#999999", "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end, start, arrowprops=look)
