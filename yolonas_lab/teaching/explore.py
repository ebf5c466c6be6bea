"""Sliders beside a figure: `explore(draw, threshold=(0.0, 1.0))` redraws while the reader moves a control.

Live in Jupyter; one plain figure where YOLONAS_LAB_STATIC is set (stored outputs, tests) or no notebook is there.
Every notebook uses it. Built on ipywidgets.
"""

import inspect
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

# What a reader can move: from (min, max), a list or True to a start value and an ipywidget.
#
# Part of `explore`, which every notebook uses.


def start_values(draw: Callable[..., Any], controls: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value that each control starts at; checks that draw takes exactly these arguments."""
    if not callable(draw):
        raise TypeError(f"explore needs a function that draws a figure first, not {draw!r}.")
    parameters = inspect.signature(draw).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = {n: p for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    function = getattr(draw, "__name__", "draw")
    for name in controls:
        if name not in named and not takes_any:
            raise ValueError(f"{function} has no argument {name!r}; its arguments are: {names_of(named)}.")
    for name, parameter in parameters.items():
        optional = parameter.default is not parameter.empty or parameter.kind in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        )
        if name not in controls and not optional:
            raise ValueError(f"{function} needs a value for {name!r}: give it a control, such as {name}=(0, 10).")
    empty = inspect.Parameter.empty
    return {n: _start_value(n, c, named[n].default if n in named else empty) for n, c in controls.items()}


def _start_value(name: str, control: Any, default: Any) -> Any:
    """Return one control's first value; `default` is that of draw's argument, or inspect.Parameter.empty."""
    given = default is not inspect.Parameter.empty
    if _is_widget(control):
        return control.value
    if isinstance(control, bool):
        return control
    if isinstance(control, list):
        if not control:
            raise ValueError(f"{name}=[] leaves nothing to choose from: list at least one value.")
        if given and default not in control:
            raise ValueError(f"{name} starts at {default!r}, which is not among its choices {control!r}.")
        return default if given else control[0]
    if isinstance(control, tuple):
        low, high, step = _range(name, control, default)
        if not given:
            middle = low + step * math.floor((high - low) / step / 2 + 1e-9)
            return middle if isinstance(middle, int) else round(middle, 10)
        if not isinstance(default, int | float) or not low <= default <= high:
            raise ValueError(f"{name} starts at {default!r}, which is outside its range {low} to {high}.")
        return default
    raise TypeError(
        f"{name}={control!r} is no control: use (min, max) or (min, max, step), a list of choices, True or False, "
        f"or an ipywidget."
    )


def _range(name: str, control: tuple, start: Any) -> tuple[Any, Any, Any]:
    """Return (min, max, step) of a tuple control: integers step by 1, floats (or a float start) finely."""
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in control)
    if len(control) not in (2, 3) or not numbers:
        raise ValueError(f"{name}={control!r} must be (min, max) or (min, max, step), all finite numbers.")
    low, high = control[:2]
    if low >= high:
        raise ValueError(f"{name}={control!r} has min {low} not below max {high}: swap or widen them.")
    whole = all(isinstance(v, int) for v in control) and not isinstance(start, float)
    step = control[2] if len(control) == 3 else (1 if whole else _round_down_to_1_2_5((high - low) / 100))
    if not 0 < step <= high - low:
        raise ValueError(f"{name}={control!r} has step {step}: it must be above 0 and at most {high - low}.")
    return (low, high, step) if whole else (float(low), float(high), float(step))


def _round_down_to_1_2_5(size: float) -> float:
    """Return the largest 1, 2 or 5 times a power of ten up to `size`: sliders should stop at round numbers."""
    power = 10.0 ** math.floor(math.log10(size))
    return max(round(m * power, 12) for m in (1, 2, 5) if m * power <= size * (1 + 1e-9))


def make_widget(label: str, label_width: str, control: Any, value: Any, follow: bool) -> Any:
    """Return the ipywidget for one control, starting at `value`; `follow`: report values while it is dragged."""
    import ipywidgets

    if _is_widget(control):
        return control
    look = {"description": label, "style": {"description_width": label_width}}
    wide = {**look, "layout": ipywidgets.Layout(width="520px", max_width="100%"), "continuous_update": follow}
    if isinstance(control, bool):
        return ipywidgets.Checkbox(value=value, **look)
    if isinstance(control, list):
        if all(isinstance(v, int | float) and not isinstance(v, bool) for v in control):
            return ipywidgets.SelectionSlider(options=control, value=value, **wide)
        return ipywidgets.Dropdown(options=control, value=value, **look)
    low, high, step = _range(label, control, value)
    if isinstance(step, int):
        return ipywidgets.IntSlider(value=value, min=low, max=high, step=step, **wide)
    decimals = max(0, min(6, math.ceil(-math.log10(step) - 1e-9)))
    return ipywidgets.FloatSlider(value=value, min=low, max=high, step=step, readout_format=f".{decimals}f", **wide)


def label_of(name: str) -> str:
    """Return an argument's name as a person would write it: iou_threshold -> IoU threshold."""
    shorts = {"iou": "IoU", "giou": "GIoU", "nms": "NMS", "dfl": "DFL", "ap": "AP", "ema": "EMA", "bn": "BN"}
    words = [shorts.get(word, word) for word in name.split("_") if word]
    text = " ".join(words)
    return text[:1].upper() + text[1:]


def _is_widget(control: Any) -> bool:
    return hasattr(control, "observe") and hasattr(control, "value")


def names_of(mapping: Any) -> str:
    """Return names as they are listed in a message."""
    return ", ".join(mapping) or "(none)"


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
