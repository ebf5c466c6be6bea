"""The map of the workbook, which notebook 00 draws: what each notebook explains, which published number it bears on."""

from typing import Any, NamedTuple

from yolonas_lab.teaching.figures import FP32, MUTED, add_card, add_rectangle, draw_arrow


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
ARROW = {"color": "#999999", "linewidth": 1.4}
LOOKS: dict[bool, dict[str, Any]] = {  # of a box, here or planned
    True: {"facecolor": "#E3EEF6", "linewidth": 1.5, "edgecolor": FP32},
    False: {"facecolor": "white", "linewidth": 1.5, "edgecolor": "#777777", "linestyle": (0, (4, 3))},
}
LEGEND = """Below each box: the number it bears on.
mAP: accuracy in %,  ms: latency.
↑ meant to raise it,  ↓ to lower it."""


def draw_course_map(ax: Any) -> Any:
    """Draw the notebooks as boxes along the way from data to INT8 engine, solid where here, dashed where planned."""
    for r, (theme, row) in enumerate(ROWS.items()):
        y = -r * STEP_Y
        ax.text(-0.12, y, theme, ha="right", va="center", fontsize=10, fontweight="bold")
        for c, chapter in enumerate(row):
            _draw_chapter(ax, chapter, c * STEP_X, y)
            if c:
                draw_arrow(ax, ((c - 1) * STEP_X + WIDTH, y), (c * STEP_X, y), **ARROW)
        if r + 1 < len(ROWS):  # from the end of a row to the beginning of the next
            end, between, below = (len(row) - 1) * STEP_X + WIDTH, y - 0.56 * STEP_Y, y - STEP_Y
            bends = [end, end + 0.11, end + 0.11, -0.08, -0.08], [y, y, between, between, below]
            ax.plot(*bends, color=MUTED, linewidth=1.4, solid_capstyle="butt", zorder=0)
            draw_arrow(ax, (-0.08, below), (0, below), **ARROW)
    x, y = 3 * STEP_X + 0.12, 0.24  # the legend, where the short rows leave room
    for here, text in ((True, "here in this version"), (False, "planned")):
        add_rectangle(ax, (x, y - 0.06, x + 0.2, y + 0.06), **LOOKS[here])
        ax.text(x + 0.28, y, text, fontsize=9, va="center")
        y -= 0.22
    ax.text(x, y + 0.04, LEGEND, fontsize=9, va="top", linespacing=1.35)
    ax.set(xlim=(-0.95, 4 * STEP_X + WIDTH + 0.04), ylim=(-3 * STEP_Y - 0.66, 0.42))
    ax.set_axis_off()
    return ax


def _draw_chapter(ax: Any, chapter: Chapter, x: float, y: float) -> None:
    """Draw one box whose left edge is at x and whose middle is at height y, with the number it bears on below."""
    look = LOOKS[chapter.here]
    add_card(ax, x + WIDTH / 2, y, (WIDTH, HEIGHT), 0.08, **look)
    ax.text(x + 0.06, y + 0.31, chapter.number, fontsize=8.5, fontweight="bold", va="top", color=look["edgecolor"])
    ax.text(x + 0.21, y + 0.31, chapter.title, fontsize=8.2, fontweight="bold", va="top", linespacing=1.0)
    ax.text(x + 0.06, y - 0.01, chapter.idea, fontsize=8, va="top", linespacing=1.15)
    ax.text(x + WIDTH / 2, y - HEIGHT / 2 - 0.03, chapter.number_moved, fontsize=8.5, ha="center", va="top")
