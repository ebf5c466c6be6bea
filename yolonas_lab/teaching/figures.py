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
    if pixels.ndim not in (2, 3):
        raise ValueError(f"show_image needs one image, (h, w, 3) or (3, h, w), not an array of shape {pixels.shape}.")
    if pixels.dtype.kind == "f":
        pixels = pixels.clip(0, 1)
    top = 255 if pixels.dtype == np.uint8 else 1
    height, width = pixels.shape[:2]
    edges = (0, width, height, 0)  # box coordinates are positions of pixel edges, so the first pixel begins at 0
    ax.imshow(pixels, cmap="gray" if pixels.ndim == 2 else None, vmin=0, vmax=top, extent=edges)
    return _picture_axes(ax, title)


def draw_boxes(
    ax: Any,
    image: Any,
    boxes: Any,
    labels: Any = None,
    scores: Any = None,
    class_names: Sequence[str] | None = None,
    color: str | None = None,
    linewidth: float = 2.0,
) -> Any:
    """Draw boxes (n, 4) xyxy px over an image (None: over what is there), with class names and scores where given.

    One `color` for all, or each class in its own color (orange, the color of predictions, where no labels are given).
    Raises ValueError where boxes are not (n, 4), or labels or scores are not n.
    """
    from matplotlib.patheffects import withStroke

    corners = as_array(boxes)
    corners = corners.reshape(-1, 4) if corners.size == 0 else corners
    if corners.ndim != 2 or corners.shape[1] != 4:
        raise ValueError(f"boxes must have shape (n, 4), xyxy in pixels, not {corners.shape}.")
    for name, values in (("labels", labels), ("scores", scores)):
        if values is not None and len(values) != len(corners):
            raise ValueError(f"there are {len(corners)} boxes but {len(values)} {name}: give one for each box.")
    if image is not None:
        show_image(ax, image)
    for i, box in enumerate(corners.tolist()):
        own = color or (PREDICTION if labels is None else class_color(labels[i]))
        rim = withStroke(linewidth=linewidth + 1.5, foreground="white", alpha=0.7)
        add_rectangle(ax, box, fill=False, edgecolor=own, linewidth=linewidth, path_effects=[rim])
        text = _caption(i, labels, scores, class_names)
        if text:
            _name_plate(ax, box[0], box[1], text, own)
    return ax


def add_rectangle(ax: Any, box: Sequence[float], **look: Any) -> Any:
    """Add the rectangle of a box, xyxy in data units, with what matplotlib's Rectangle takes; returns the patch."""
    from matplotlib.patches import Rectangle

    x1, y1, x2, y2 = box
    return ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, **look))


def draw_means(ax: Any, x: Any, values: Any, color: str, label: str, linestyle: str = "-") -> Any:
    """A line through the means of values (places, seeds) at x (places,), and a pale dot for each seed."""
    values = np.asarray(values)
    ax.plot(np.repeat(x, values.shape[1]), values.ravel(), "o", color=color, alpha=0.4, markersize=5)
    ax.plot(x, values.mean(axis=1), color=color, linestyle=linestyle, label=label)
    return ax


def draw_differences(ax: Any, found: Mapping[str, Any], color: str) -> Any:
    """Paired differences by their names, the first on top: a dot for each seed; below them mean and interval.

    found: values with `values`, `mean`, `low` and `high`, as `Result.difference` returns them.
    """
    for row, difference in enumerate(found.values()):
        ax.plot(difference.values, [row - 0.1] * len(difference.values), "o", color=color, markersize=5, alpha=0.8)
        draw_interval(ax, row + 0.15, difference.mean, difference.low, difference.high)
    ax.axvline(0, color="black", linewidth=0.8, linestyle=":")
    ax.set_yticks(range(len(found)), list(found))
    ax.set_ylim(len(found) - 0.5, -0.5)
    ax.grid(False, axis="y")
    return ax


def draw_interval(ax: Any, row: float, mean: float, low: float, high: float) -> Any:
    """A diamond at a mean, and a line as long as its interval, at the height `row`."""
    ax.plot([low, high], [row, row], color="black", linewidth=2)
    ax.plot([mean], [row], "D", color="black", markersize=5)
    return ax


def show_matrix(
    ax: Any,
    matrix: Any,
    title: str = "",
    number_format: str = "{:.2f}",
    limit: float | None = None,
    cmap: str | None = None,
    signed: bool | None = None,
) -> Any:
    """Show a small matrix (h, w) as colored cells with the number in each: a kernel, a cost matrix, IoUs.

    Colors run from -limit (blue) over 0 (white) to limit (red) where `signed` (default: something is negative), else
    from 0 to limit; give matrices that are compared the same `limit` and `signed`. Raises ValueError for more than 400
    cells or another number of axes.
    """
    values = as_array(matrix)
    if values.ndim != 2 or not 0 < values.size <= 400:
        raise ValueError(f"show_matrix needs a matrix of at most 400 cells, not an array of shape {values.shape}.")
    finite = np.abs(values[np.isfinite(values)].astype(float))
    top = float(limit if limit is not None else max(finite.max(initial=0.0), 1e-12))
    signed = bool((values < 0).any()) if signed is None else signed
    shown = ax.imshow(
        values.astype(float), cmap=cmap or ("RdBu_r" if signed else "Blues"), vmin=-top * signed, vmax=top
    )
    for (row, column), value in np.ndenumerate(values):
        ink = _ink(shown.cmap(shown.norm(float(value)))[:3])
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


def _caption(i: int, labels: Any, scores: Any, class_names: Sequence[str] | None) -> str:
    """Return the text on box i: its class name (or number) and score, as far as they are given."""
    parts = []
    if labels is not None:
        label = int(labels[i])
        parts.append(class_names[label] if class_names is not None else str(label))
    if scores is not None:
        parts.append(f"{float(scores[i]):.2f}")
    return " ".join(parts)


def _name_plate(ax: Any, x: float, y: float, text: str, color: str) -> None:
    """Write text on a plate of the box's color above its upper left corner, or inside where the image ends there."""
    import matplotlib.colors

    bottom, top = ax.get_ylim()
    shown_height = abs(ax.get_window_extent().height) / max(abs(bottom - top), 1e-9)
    inside = (y - min(bottom, top)) * shown_height < 14
    ax.annotate(
        text,
        (x, y),
        xytext=(2, -2 if inside else 2),
        textcoords="offset points",
        va="top" if inside else "bottom",
        fontsize=8.5,
        color=_ink(matplotlib.colors.to_rgb(color)),
        bbox={"boxstyle": "square,pad=0.15", "facecolor": color, "edgecolor": "none"},
    )


def _ink(rgb: Sequence[float]) -> str:
    """Return black or white, whichever reads better on this color (relative luminance, WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if luminance > 0.179 else "white"


def _picture_axes(ax: Any, title: str) -> Any:
    """Take grid, ticks and frame away: this is a picture, not a chart."""
    ax.grid(False)
    ax.set_xticks([])
    ax.set_yticks([])
    for side in ax.spines.values():
        side.set_visible(False)
    if title:
        ax.set_title(title)
    return ax


def as_array(values: Any) -> np.ndarray:
    """Return a NumPy array of a tensor on any device, with or without a gradient, of an array or of nested lists."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.numpy() if str(values.dtype) != "torch.bfloat16" else values.float().numpy()
    return np.asarray(values)


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
