"""One color per meaning through the whole book, and the drawings that many notebooks share.

The colors stay apart under the common forms of color blindness (Okabe and Ito, "Color Universal Design"; wine and
rose from Paul Tol's schemes); tests measure it. All drawing functions take and return a matplotlib `ax`. Figures are
stored as PNG with a palette, which is a third to a quarter in size.
"""

from binascii import b2a_base64
from collections.abc import Mapping, Sequence
from io import BytesIO
from types import MappingProxyType
from typing import Any

import numpy as np

from yolonas_lab.detections import CLASS_COLORS as CLASS_COLORS
from yolonas_lab.detections import class_color as class_rgb

# One color per meaning. The two of a line are the ones that appear side by side.
FP32, INT8 = "#0072B2", "#D55E00"  # number formats: blue, vermilion
GROUND_TRUTH, PREDICTION = "#009E73", "#E69F00"  # boxes: green, orange
TEACHER, STUDENT = "#882255", "#DD88AA"  # distillation: dark wine, light rose
TRAIN, VALIDATION = "#7F7F7F", "#111111"  # curves: gray, black
CORRECT, WRONG = "#0E7C7B", "#E2603B"  # verdicts: teal, brick
PICO, NANO, S, M, L = "#E8D98F", "#B99B35", "#80660F", "#4A3B06", "#171100"  # models: the larger the darker
QAREPVGG, REPVGG = "#4B3F9E", "#56B4E9"  # blocks: indigo, sky
HIGHLIGHT, MUTED = "#A8327A", "#BBBBBB"  # what to look at, and what not
ABOVE = MappingProxyType({"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0})  # a legend: hides no dot
PALETTE_COLORS = 256


def class_color(label: int) -> str:
    """The color of a class, as `Detections` draws it too.

    >>> class_color(0)
    '#0072B2'
    """
    return "#{:02X}{:02X}{:02X}".format(*class_rgb(int(label)))


def show_image(ax: Any, image: Any, title: str = "") -> Any:
    """Show an image: (h, w, 3) or (h, w) uint8 or float in [0, 1], or a (3, h, w) tensor as models take it."""
    pixels = as_array(image)
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.shape[2] not in (1, 3, 4):
        pixels = pixels.transpose(1, 2, 0)  # (h, w, c)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]  # (h, w)
    if pixels.dtype.kind == "f":
        pixels = pixels.clip(0, 1)
    top = 255 if pixels.dtype == np.uint8 else 1
    height, width = pixels.shape[:2]
    edges = (0, width, height, 0)  # box coordinates are positions of pixel edges, so the first pixel begins at 0
    ax.imshow(pixels, cmap="gray" if pixels.ndim == 2 else None, vmin=0, vmax=top, extent=edges)
    return _picture_axes(ax, title)


def draw_boxes(
    ax: Any, image: Any, boxes: Any, labels: Any = None, scores: Any = None,
    class_names: Sequence[str] | None = None, color: str | None = None, linewidth: float = 2.0,
) -> Any:  # fmt: skip
    """Draw boxes (n, 4) xyxy px over an image (None: over what is there), with class names and scores where given.

    One `color` for all, or each class in its own color (orange, the color of predictions, where no labels are given).
    """
    from matplotlib.patheffects import withStroke

    if image is not None:
        show_image(ax, image)
    for i, box in enumerate(as_array(boxes).reshape(-1, 4).tolist()):
        own, words = color or PREDICTION, []
        if labels is not None:
            own = color or class_color(labels[i])
            words = [class_names[int(labels[i])] if class_names is not None else str(int(labels[i]))]
        if scores is not None:
            words.append(f"{float(scores[i]):.2f}")
        rim = withStroke(linewidth=linewidth + 1.5, foreground="white", alpha=0.7)
        add_rectangle(ax, box, fill=False, edgecolor=own, linewidth=linewidth, path_effects=[rim])
        if words:
            _name_plate(ax, box[0], box[1], " ".join(words), own)
    return ax


def add_rectangle(ax: Any, box: Sequence[float], **look: Any) -> None:
    """Add the rectangle of a box, xyxy in data units, with what matplotlib's Rectangle takes."""
    from matplotlib.patches import Rectangle

    x1, y1, x2, y2 = box
    ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, **look))


def add_card(ax: Any, x: float, y: float, size: tuple[float, float], rounding: float, **look: Any) -> None:
    """Add a rectangle with round corners around its middle (x, y), all in data units."""
    from matplotlib.patches import FancyBboxPatch

    width, height = size
    style = f"round,pad=0,rounding_size={rounding}"
    ax.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height, boxstyle=style, **look))


def draw_arrow(ax: Any, start: Sequence[float], end: Sequence[float], color: str, zorder: int = 3, **look: Any) -> None:
    """Draw an arrow between two points in data units; `look` is what matplotlib's `arrowprops` take."""
    style = {"arrowstyle": "-|>", "color": color, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end, start, arrowprops=style | look, zorder=zorder)


def note(ax: Any, text: str, at: Sequence[float], shift: tuple[float, float], **look: Any) -> None:
    """Write text beside a point in data units, moved by `shift` points."""
    ax.annotate(text, at, xytext=shift, textcoords="offset points", **look)


def draw_stairs(ax: Any, points: Sequence[tuple[float, float]], until: float, **look: Any) -> None:
    """The best value within each cost: stairs through (cost, value) of a frontier, up to the cost `until`."""
    x, y = zip(*points)
    ax.plot([*x, max(x[-1], until)], [*y, y[-1]], drawstyle="steps-post", **look)


def draw_means(ax: Any, x: Any, values: Any, color: str, label: str, linestyle: str = "-") -> None:
    """A line through the means of values (places, seeds) at x (places,), and a pale dot for each seed."""
    values = np.asarray(values)
    ax.plot(np.repeat(x, values.shape[1]), values.ravel(), "o", color=color, alpha=0.4, markersize=5)
    ax.plot(x, values.mean(axis=1), color=color, linestyle=linestyle, label=label)


def draw_differences(ax: Any, found: Mapping[str, Any], color: str, xlabel: str, title: str = "") -> Any:
    """Paired differences (`Result.difference`) by their names, the first on top: a dot per seed, mean, interval."""
    for row, difference in enumerate(found.values()):
        ax.plot(difference.values, [row - 0.1] * len(difference.values), "o", color=color, markersize=5, alpha=0.8)
        draw_interval(ax, row + 0.15, difference.mean, difference.low, difference.high)
    ax.axvline(0, color="black", linewidth=0.8, linestyle=":")
    ax.set(xlabel=xlabel, title=title)
    return name_rows(ax, list(found), len(found) - 0.5, -0.5)


def draw_interval(ax: Any, row: float, mean: float, low: float, high: float) -> None:
    """A diamond at a mean, and a line as long as its interval, at the height `row`."""
    ax.plot([low, high], [row, row], color="black", linewidth=2)
    ax.plot([mean], [row], "D", color="black", markersize=5)


def name_rows(ax: Any, names: Sequence[str], bottom: float, top: float) -> Any:
    """Write names at the heights 0, 1, 2 … of an axis from bottom to top, and take its horizontal lines away."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(bottom, top)
    ax.grid(False, axis="y")
    return ax


def show_matrix(
    ax: Any, matrix: Any, title: str = "", number_format: str = "{:.2f}",
    limit: float | None = None, cmap: str | None = None, signed: bool | None = None,
) -> Any:  # fmt: skip
    """Show a small matrix (h, w) as colored cells with the number in each: a kernel, a cost matrix, IoUs.

    Colors run from -limit (blue) over 0 (white) to limit (red) where `signed` (default: something is negative), else
    from 0 to limit; give matrices that are compared the same `limit` and `signed`.
    """
    values = as_array(matrix).astype(float)
    top = limit or max(np.abs(values[np.isfinite(values)]).max(initial=0.0), 1e-12)
    signed = bool((values < 0).any()) if signed is None else signed
    shown = ax.imshow(values, cmap=cmap or ("RdBu_r" if signed else "Blues"), vmin=-top * signed, vmax=top)
    for (row, column), value in np.ndenumerate(values):
        ink = _ink(shown.cmap(shown.norm(value))[:3])
        ax.text(column, row, number_format.format(value), ha="center", va="center", color=ink, fontsize=9)
    return _picture_axes(ax, title)


def format_count(number: float) -> str:
    """Write a count as a person would.

    >>> format_count(8400), format_count(12184532), format_count(3.2e9)
    ('8,400', '12.18 M', '3.20 G')
    """
    for unit, size in (("G", 1e9), ("M", 1e6)):
        if abs(number) >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number:,.0f}"


def format_change(ratio: float) -> str:
    """Write a ratio as a person would: 1.85 -> '1.85×', 0.5 -> '0.50×'."""
    return f"{ratio:.2f}×"


def _name_plate(ax: Any, x: float, y: float, text: str, color: str) -> None:
    """Write text on a plate of the box's color above its upper left corner, or inside where the image ends there."""
    import matplotlib.colors

    bottom, top = ax.get_ylim()
    shown_height = abs(ax.get_window_extent().height) / max(abs(bottom - top), 1e-9)
    inside = (y - min(bottom, top)) * shown_height < 14
    plate = {"boxstyle": "square,pad=0.15", "facecolor": color, "edgecolor": "none"}
    look = {"fontsize": 8.5, "color": _ink(matplotlib.colors.to_rgb(color)), "bbox": plate}
    note(ax, text, (x, y), (2, -2 if inside else 2), va="top" if inside else "bottom", **look)


def _ink(rgb: Sequence[float]) -> str:
    """Return black or white, whichever reads better on this color (relative luminance, WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if luminance > 0.179 else "white"


def _picture_axes(ax: Any, title: str) -> Any:
    """Take grid, ticks and frame away: this is a picture, not a chart."""
    ax.grid(False)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    if title:
        ax.set_title(title)
    return ax


def as_array(values: Any) -> np.ndarray:
    """Return a NumPy array of a tensor on any device, with or without a gradient, of an array or of nested lists."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def palette_png(figure: Any) -> bytes:
    """Render a matplotlib figure at its own dpi as a PNG with a palette."""
    from PIL import Image

    drawn = BytesIO()
    figure.savefig(drawn, format="png", dpi=figure.dpi, metadata={"Software": None})
    picture = Image.open(drawn).convert("RGB")
    stored = BytesIO()
    reduced = picture.quantize(PALETTE_COLORS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    reduced.putpalette([255 if value > 250 else value for value in reduced.getpalette() or []])  # white stays white
    reduced.save(stored, "PNG", optimize=True)
    return stored.getvalue()


def use_palette_png(shell: Any) -> None:
    """Let this notebook display figures by `palette_png`; `setup_notebook` calls it once it has chosen PNG."""
    from matplotlib.figure import Figure

    def as_text(figure: Any) -> str:  # in base64: widgets keep outputs as JSON, which holds no bytes
        return b2a_base64(palette_png(figure), newline=False).decode("ascii")

    shell.display_formatter.formatters["image/png"].for_type(Figure, as_text)
