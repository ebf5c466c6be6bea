"""The picture in the README: generated scenes with their true boxes beside the published frontier, as in notebook 00.

`python data_scripts/make_cover.py notebooks/images/cover.png` makes it anew.
"""

import sys
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from yolonas_lab.common import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_cover() -> "Figure":
    """Return the cover as a figure of 1200 px width; its boxes are the ground truth of the scenes, not detections."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from yolonas_lab import data
    from yolonas_lab.teaching.published import draw_frontier
    from yolonas_lab.teaching.setup import setup_notebook

    setup_notebook()
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.9), dpi=150, width_ratios=(1, 1.16))
    data.contact_sheet(left, rows=3, columns=3)
    left.set_title("Scenes drawn by code, with their true boxes", fontsize=10)
    draw_frontier(right)
    right.set_title("YOLO-NAS as published (T4 GPU)", fontsize=10)
    right.tick_params(labelsize=8)
    right.legend(loc="lower right", fontsize=9)
    right.xaxis.label.set_size(9)
    right.yaxis.label.set_size(9)
    return figure


def save_cover(path: str | Path) -> None:
    """Write the cover as a PNG of 256 colors, whole or not at all."""
    from PIL import Image

    buffer = BytesIO()
    draw_cover().savefig(buffer, format="png", dpi=150)
    picture = Image.open(buffer).convert("RGB").quantize(256, kmeans=2, dither=Image.Dither.NONE)
    write_atomically(Path(path), lambda file: picture.save(file, format="png", optimize=True))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python data_scripts/make_cover.py FILE.png")
    save_cover(sys.argv[1])
