"""Smaller pictures in notebooks: figures are stored as PNG with a palette of 256 colors, a third to a quarter in size.

A palette is enough for curves and box drawings, and for photographs shown at a few hundred pixels. `setup_notebook`
switches it on.
"""

from binascii import b2a_base64
from io import BytesIO
from typing import Any

COLORS = 256


def palette_png(figure: Any) -> bytes:
    """Render a matplotlib figure at its own dpi as a PNG with a palette."""
    from PIL import Image

    drawn = BytesIO()
    figure.savefig(drawn, format="png", dpi=figure.dpi, metadata={"Software": None})
    picture = Image.open(drawn).convert("RGB")
    stored = BytesIO()
    reduced = picture.quantize(COLORS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    reduced.putpalette([255 if value > 250 else value for value in reduced.getpalette() or []])  # white stays white
    reduced.save(stored, "PNG", optimize=True)
    return stored.getvalue()


def use_palette_png() -> None:
    """Let this notebook display figures by `palette_png`; outside a notebook it does nothing.

    `setup_notebook` calls it after it has chosen the format of figures.
    """
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:  # plain Python without Jupyter
        return
    shell: Any = get_ipython()
    if shell is not None:
        from matplotlib.figure import Figure

        shell.display_formatter.formatters["image/png"].for_type(Figure, _as_text)


def _as_text(figure: Any) -> str:
    """The picture in base64: widgets keep outputs as JSON, which holds no bytes."""
    return b2a_base64(palette_png(figure), newline=False).decode("ascii")
