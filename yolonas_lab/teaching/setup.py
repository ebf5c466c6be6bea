"""The first cell of every notebook: fixed seeds, a fixed thread count and one figure style.

Stored outputs must come out the same on every machine, so `setup_notebook` prints nothing. Notebook 00 also prints what
this machine has for the workbook (`nb00.check_setup()`): what is needed, and what is only good to have.
"""

import os
import random
import sys
import warnings
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from typing import Any

FIGURE_STYLE: dict[str, Any] = {
    "figure.dpi": 84, "figure.figsize": (7.0, 4.0), "figure.constrained_layout.use": True, "figure.facecolor": "white",
    "savefig.dpi": "figure", "font.size": 11, "lines.linewidth": 2.0, "legend.frameon": False,
    "axes.titlesize": 12, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.labelsize": 11,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#555555",
    "axes.grid": True, "axes.axisbelow": True, "grid.color": "#e4e4e4", "grid.linewidth": 0.8,
    "image.interpolation": "nearest", "image.cmap": "viridis",
}  # fmt: skip
# Warnings that say nothing to a reader and carry a path of the machine into the stored output.
QUIET_WARNINGS = (
    r".*IProgress not found.*",  # tqdm, where ipywidgets is missing
    r".*does not have many workers.*",  # data loaders: one process is right on two cores
    r".*Can't initialize NVML.*",  # torch on a machine without a GPU driver
)


def setup_notebook(seed: int = 0, threads: int = 1) -> None:
    """Seed Python, NumPy and torch with `seed`, let torch use `threads` CPU threads, and set the figure style."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (readers may use the old global generator)
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.set_printoptions(precision=4, sci_mode=False, linewidth=100)
    np.set_printoptions(precision=4, suppress=True, linewidth=100)
    for message in QUIET_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    _set_figure_style()


def _set_figure_style() -> None:
    """Apply FIGURE_STYLE; figures keep their full size, so that a slider does not make them jump."""
    import matplotlib.pyplot as plt  # also switches the inline backend on, which would otherwise reset its options
    from cycler import cycler

    from yolonas_lab.teaching.figures import CLASS_COLORS, use_palette_png

    plt.rcParams.update({**FIGURE_STYLE, "axes.prop_cycle": cycler(color=CLASS_COLORS)})  # pyright: ignore
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
        use_palette_png(shell)


INSTALL = "pip install -c constraints.txt -e ."


@dataclass(frozen=True)
class Finding:
    """One line of the report: `ok` is None for something optional that is absent and `advice` says what to do."""

    about: str
    found: str
    ok: bool | None
    advice: str = ""

    def __str__(self) -> str:
        mark = {True: "✓", False: "✗", None: "–"}[self.ok]
        return f"{mark} {self.about:<9} {self.found}" + (f"\n            {self.advice}" if self.advice else "")


def setup_report() -> list[Finding]:
    """Return the findings for this machine, the needed things first; nothing is changed or installed."""
    python = Finding("Python", ".".join(map(str, sys.version_info[:3])), True)
    torch = Finding("torch", _installed("torch") or "missing", _installed("torch") is not None)
    return [python, torch, _packages(), _symbols(), _sliders(), *_hardware(), _tensorrt()]


def _packages() -> Finding:
    """Compare what is installed with what the workbook's own package says it needs, extras left out."""
    from packaging.requirements import Requirement

    try:
        needed = list(map(Requirement, metadata.requires("yolonas-lab") or []))
    except metadata.PackageNotFoundError:
        advice = f"The workbook is not installed in this Python: run '{INSTALL}' beside pyproject.toml."
        return Finding("packages", "yolonas-lab was not found", False, advice)
    needed = [wanted for wanted in needed if wanted.marker is None or wanted.marker.evaluate({"extra": ""})]
    problems = []
    for wanted in needed:
        installed = _installed(wanted.name)
        if installed is None:
            problems.append(f"{wanted.name} is missing")
        elif not wanted.specifier.contains(installed, prereleases=True):
            problems.append(f"{wanted.name} is {installed}, not {wanted.specifier}")
    if problems:
        advice = f"Install again with '{INSTALL}' beside pyproject.toml."
        return Finding("packages", "; ".join(problems), False, advice)
    return Finding("packages", f"all {len(needed)} that the notebooks need are here and new enough", True)


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _symbols() -> Finding:
    from yolonas_lab.data.glyphs import require_characters
    from yolonas_lab.data.scenes import SCENES, SCENES_PRETRAIN

    characters = "".join(glyph.character for domain in (SCENES, SCENES_PRETRAIN) for glyph in domain.classes)
    try:
        require_characters(characters)
    except (ValueError, FileNotFoundError) as error:
        return Finding("symbols", "the font cannot draw the scenes", False, str(error))
    return Finding("symbols", f"the font has all {len(characters)} symbols of the generated scenes: {characters}", True)


def _sliders() -> Finding:
    from yolonas_lab.teaching.explore import is_live

    if is_live():
        return Finding("sliders", "live: move them and the figure follows", True)
    return Finding("sliders", "shown as fixed figures here (YOLONAS_LAB_STATIC is set, or this is not Jupyter)", None)


def _hardware() -> list[Finding]:
    import torch

    used, cores = torch.get_num_threads(), os.cpu_count() or 1
    threads = Finding("threads", f"torch uses {used} of {cores} cores (small networks gain nothing from more)", True)
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "Apple GPU"
        return [threads, Finding("GPU", f"{name}, not needed by any notebook", True)]
    return [threads, Finding("GPU", "none that torch can use, and no notebook needs one", None)]


def _tensorrt() -> Finding:
    for module, name in (("tensorrt", "TensorRT"), ("tensorrt_rtx", "TensorRT for RTX")):
        version = _installed(module.replace("_", "-"))
        if version and find_spec(module) is not None:
            return Finding("TensorRT", f"{name} {version}", True)
    return Finding("TensorRT", "not installed; needed only to build and run INT8 engines", None)
