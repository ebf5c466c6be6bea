"""Sliders beside a figure: `explore(draw, threshold=(0.0, 1.0))` redraws while the reader moves a control.

Live in Jupyter; one plain figure where YOLONAS_LAB_STATIC is set (stored outputs, tests) or no notebook is there.
Every notebook uses it. Built on ipywidgets.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from yolonas_lab.teaching.controls import label_of, make_widget, names_of, start_values

FAST_DRAW_SECONDS = 0.15  # a faster figure follows the slider while it moves; a slower one is drawn when it is let go


def explore(draw: Callable[..., Any], labels: Mapping[str, str] | None = None, /, **controls: Any) -> None:
    """Show the figure that `draw(**values)` makes, with one control for each keyword argument.

    A control is a tuple (min, max) or (min, max, step) of numbers, a list of choices, True or False, or an ipywidget.
    It starts at draw's own default for that argument, else in the middle of its range or at its first choice.
    `labels` gives other names to controls: explore(draw, {"iou": "IoU threshold"}, iou=(0.0, 1.0)).
    Raises ValueError or TypeError for a control that draw cannot take or that has no values.
    """
    values = start_values(draw, controls)
    for name in labels or {}:
        if name not in controls:
            raise ValueError(f"labels names {name!r}, which is no control; the controls are: {names_of(controls)}.")
    if is_live():
        _explore_live(draw, labels or {}, controls, values)
    else:
        _show_once(draw, values)


def is_live() -> bool:
    """Tell whether sliders can work: in a Jupyter kernel, with YOLONAS_LAB_STATIC unset (or 0)."""
    if os.environ.get("YOLONAS_LAB_STATIC", "0") not in ("", "0"):
        return False
    return _in_kernel()


def _show_once(draw: Callable[..., Any], values: dict[str, Any]) -> None:
    """Draw the figure once; in a notebook it is displayed and closed, elsewhere left open for plt.show()."""
    if _in_kernel():
        _draw_and_display(draw, values)
    else:
        draw(**values)


def _draw_and_display(draw: Callable[..., Any], values: dict[str, Any]) -> None:
    """Call draw, display each figure it made exactly once, and close it so that none piles up in memory."""
    import matplotlib.pyplot as plt
    from IPython.display import display
    from matplotlib.figure import Figure

    before = set(plt.get_fignums())
    try:
        with plt.ioff():  # else Jupyter, which flushes open figures at every message, may take a half-drawn one away
            result = draw(**values)
        returned = result if isinstance(result, Figure) else getattr(result, "figure", None)
        figures = [plt.figure(n) for n in plt.get_fignums() if n not in before]
        if isinstance(returned, Figure) and all(returned is not f for f in figures):
            figures.append(returned)
        for figure in figures:
            display(figure)
    finally:
        for number in set(plt.get_fignums()) - before:
            plt.close(number)


def _explore_live(draw: Callable[..., Any], labels: Mapping[str, str], controls: dict, values: dict[str, Any]) -> None:
    """Show the controls above an output area whose content is replaced as a whole at each change (no flicker)."""
    import asyncio

    import ipywidgets
    from IPython.display import display

    began = time.perf_counter()
    first = _outputs_of(draw, values, errors_shown=False)  # an error in the first drawing fails the cell, as it should
    follow = time.perf_counter() - began < FAST_DRAW_SECONDS
    texts = {name: labels.get(name, label_of(name)) for name in controls}
    label_width = f"{7 * max(map(len, texts.values()), default=0) + 12}px"
    widgets = {n: make_widget(texts[n], label_width, c, values[n], follow) for n, c in controls.items()}
    output = ipywidgets.Output()
    output.outputs = first
    loop = asyncio.get_running_loop()  # the loop of the thread that runs cells
    waiting: list[bool] = []

    def redraw() -> None:
        waiting.clear()
        output.outputs = _outputs_of(draw, {n: w.value for n, w in widgets.items()}, errors_shown=True)

    def redraw_soon(change: Any) -> None:
        # Jupyter may report a change on another thread, in which pyplot would meet a running cell: draw on the cells'
        # own thread, once for all changes that came meanwhile.
        if not waiting:
            waiting.append(True)
            loop.call_soon_threadsafe(redraw)

    for widget in widgets.values():
        widget.observe(redraw_soon, names="value")
    display(ipywidgets.VBox([*widgets.values(), output]))


def _outputs_of(draw: Callable[..., Any], values: dict[str, Any], *, errors_shown: bool) -> tuple[dict, ...]:
    """Return what draw displays as notebook outputs; an error becomes one too, or is raised."""
    from IPython.core.getipython import get_ipython

    outputs: list[dict] = []

    def take(message: dict) -> dict | None:
        if message["header"]["msg_type"] != "display_data":
            return message
        content = message["content"]
        outputs.append({"output_type": "display_data", "data": content["data"], "metadata": content["metadata"]})
        return None  # taken: it is not sent to the cell

    publisher: Any = getattr(get_ipython(), "display_pub")  # noqa: B009
    publisher.register_hook(take)
    try:
        _draw_and_display(draw, values)
    except Exception as error:  # whatever the drawing function raises is shown below its sliders
        if not errors_shown:
            raise
        outputs.append(_error_output(error))
    finally:
        publisher.unregister_hook(take)
    return tuple(outputs)


def _error_output(error: Exception) -> dict:
    """Return a notebook output that shows an error as Jupyter would below a cell."""
    import traceback

    short = getattr(error, "_render_traceback_", None)  # a failed check brings its own
    trace = error.__traceback__
    while trace and trace.tb_frame.f_code.co_filename == __file__ and trace.tb_next:
        trace = trace.tb_next  # begin at the reader's own code
    lines = short() if short else "".join(traceback.format_exception(type(error), error, trace)).splitlines()
    return {"output_type": "error", "ename": type(error).__name__, "evalue": str(error), "traceback": lines}


def _in_kernel() -> bool:
    if "IPython" not in sys.modules:
        return False
    from IPython.core.getipython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None
