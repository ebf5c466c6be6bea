"""The first cell of every notebook: fixed seeds, a fixed thread count and one figure style.

Stored outputs must come out the same on every machine, so nothing here prints. All notebooks call it.
"""

import random
import warnings
from types import MappingProxyType

FIGURE_STYLE = MappingProxyType(
    {
        "figure.dpi": 84,
        "figure.figsize": (7.0, 4.0),
        "figure.constrained_layout.use": True,
        "figure.facecolor": "white",
        "savefig.dpi": "figure",
        "font.size": 11,
        "axes.titlesize": 12,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelsize": 11,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "#555555",
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#e4e4e4",
        "grid.linewidth": 0.8,
        "lines.linewidth": 2.0,
        "legend.frameon": False,
        "image.interpolation": "nearest",
        "image.cmap": "viridis",
    }
)

# Warnings that say nothing to a reader and carry a path of the machine into the stored output.
QUIET_WARNINGS = (
    r".*IProgress not found.*",  # tqdm, where ipywidgets is missing
    r".*does not have many workers.*",  # data loaders: one process is right on two cores
    r".*Can't initialize NVML.*",  # torch on a machine without a GPU driver
)


def setup_notebook(seed: int = 0, threads: int = 1) -> None:
    """Seed Python, NumPy and torch with `seed`, let torch use `threads` CPU threads, and set the figure style.

    Raises ValueError for a negative seed or fewer than one thread.
    """
    import numpy as np
    import torch

    from yolonas_lab.teaching.figures import CLASS_COLORS

    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be between 0 and 2**32 - 1, not {seed}.")
    if threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}.")
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (readers may use the old global generator)
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.set_printoptions(precision=4, sci_mode=False, linewidth=100)
    np.set_printoptions(precision=4, suppress=True, linewidth=100)
    for message in QUIET_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    _set_figure_style(CLASS_COLORS)


def _set_figure_style(cycle: tuple[str, ...]) -> None:
    """Apply FIGURE_STYLE; figures keep their full size, so that a slider does not make them jump."""
    import matplotlib.pyplot as plt  # also switches the inline backend on, which would otherwise reset its options
    from cycler import cycler

    from yolonas_lab.teaching.palette_png import use_palette_png

    plt.rcParams.update({**FIGURE_STYLE, "axes.prop_cycle": cycler(color=cycle)})  # pyright: ignore
    try:
        from IPython.core.getipython import get_ipython
        from IPython.core.pylabtools import select_figure_formats
        from matplotlib_inline.config import InlineBackend
    except ImportError:  # plain Python without Jupyter: the style alone is enough
        return
    shell = get_ipython()
    if shell is not None:
        options = {"bbox_inches": None, "metadata": {"Software": None}}  # no version number inside the picture
        InlineBackend.instance(parent=shell).set_trait("print_figure_kwargs", options)
        select_figure_formats(shell, {"png"}, **options)
        use_palette_png()
