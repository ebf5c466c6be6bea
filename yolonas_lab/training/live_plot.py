"""The curves of a training, redrawn in the notebook while it runs."""

import os
import sys
import time
from typing import Any

from yolonas_lab.training.history import History

SHARE = 0.03  # of the training's time that drawing may take
SHORTEST_PAUSE = 2.0  # seconds


class LivePlot:
    """One figure below the cell, redrawn now and then; does nothing outside a live notebook."""

    def __init__(self, wanted: bool):
        self.wanted = wanted and in_live_notebook()
        self._display: Any = None
        self._next = time.perf_counter() + SHORTEST_PAUSE

    def update(self, history: History, now: bool = False) -> None:
        """Redraw if it is time for it (or `now`, and it has been drawn before)."""
        if not self.wanted or not history.steps:
            return
        began = time.perf_counter()
        if began < self._next and not (now and self._display):
            return
        self._draw(history)
        took = time.perf_counter() - began
        self._next = time.perf_counter() + max(SHORTEST_PAUSE, took / SHARE)

    def _draw(self, history: History) -> None:
        import matplotlib.pyplot as plt
        from IPython.display import display

        figure, ax = plt.subplots(figsize=(7, 3))
        try:
            history.plot(ax)
            if self._display is None:
                self._display = display(figure, display_id=True)
            else:
                self._display.update(figure)
        finally:
            plt.close(figure)


def in_live_notebook() -> bool:
    """True in a Jupyter kernel, unless YOLONAS_LAB_STATIC is set: stored outputs must not depend on the clock."""
    if os.environ.get("YOLONAS_LAB_STATIC", "0") not in ("", "0") or "IPython" not in sys.modules:
        return False
    from IPython.core.getipython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None
