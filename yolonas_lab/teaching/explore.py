"""Sliders beside a figure: `explore(draw, threshold=(0.0, 1.0))` redraws while the reader moves a control.

Live in Jupyter; one plain figure where YOLONAS_LAB_STATIC is set (stored outputs, tests) or no notebook is there.
"""

import inspect
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

FAST_DRAW_SECONDS = 0.15  # a faster figure follows the slider while it moves; a slower one is drawn when it is let go
Controls = dict[str, tuple[str, dict[str, Any]]]  # by name: an ipywidget's name and its settings


def explore(draw: Callable[..., Any], labels: Mapping[str, str] | None = None, /, **controls: Any) -> None:
    """Show the figure that `draw(**values)` makes, with one control for each keyword argument.

    A control is a tuple (min, max) or (min, max, step) of numbers, a list of choices, or True or False. It starts at
    draw's own default for that argument, else in the middle of its range or at its first choice. `labels` gives other
    names to controls: explore(draw, {"iou": "IoU threshold"}, iou=(0.0, 1.0)).
    Raises ValueError for a control that draw cannot take or that has no values.
    """
    read = read_controls(draw, controls)
    values = {name: settings["value"] for name, (_, settings) in read.items()}
    if is_live():
        _explore_live(draw, labels or {}, read)
    elif _in_kernel():
        _draw_and_display(draw, values)
    else:
        draw(**values)  # left open for plt.show()


def is_live() -> bool:
    """Tell whether sliders can work: in a Jupyter kernel, with YOLONAS_LAB_STATIC unset (or 0)."""
    return os.environ.get("YOLONAS_LAB_STATIC", "0") in ("", "0") and _in_kernel()


def _in_kernel() -> bool:
    if "IPython" not in sys.modules:
        return False
    from IPython.core.getipython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None


# --- What a reader can move ---


def read_controls(draw: Callable[..., Any], controls: Mapping[str, Any]) -> Controls:
    """Return for each control the name of its ipywidget and that widget's settings, of which "value" is where it
    starts. Checks that draw takes exactly these arguments.
    """
    defaults = {name: parameter.default for name, parameter in inspect.signature(draw).parameters.items()}
    for name in controls:
        if name not in defaults:
            raise ValueError(f"draw has no argument {name!r}; its arguments are: {', '.join(defaults)}.")
    for name, default in defaults.items():
        if name not in controls and default is inspect.Parameter.empty:
            raise ValueError(f"draw needs a value for {name!r}: give it a control, such as {name}=(0, 10).")
    starts = {name: () if defaults[name] is inspect.Parameter.empty else (defaults[name],) for name in controls}
    return {name: _read_control(name, control, starts[name]) for name, control in controls.items()}


def _read_control(name: str, control: Any, start: tuple) -> tuple[str, dict[str, Any]]:
    """Read one control; `start` holds the default of draw's argument, if it has one."""
    if isinstance(control, bool):
        return "Checkbox", {"value": control}
    if isinstance(control, list) and control:
        value = (*start, control[0])[0]
        if value not in control:
            raise ValueError(f"{name} starts at {value!r}, which is not among its choices {control!r}.")
        kind = "SelectionSlider" if all(map(_is_number, control)) else "Dropdown"
        return kind, {"options": control, "value": value}
    if isinstance(control, tuple) and len(control) in (2, 3) and all(map(_is_number, control)):
        return _read_range(name, control, start)
    raise ValueError(f"{name}={control!r} is no control: use (min, max) or (min, max, step), choices, True or False.")


def _read_range(name: str, control: tuple, start: tuple) -> tuple[str, dict[str, Any]]:
    """Read (min, max) or (min, max, step): integers step by 1, floats (or a float to start at) finely."""
    low, high = control[:2]
    whole = all(isinstance(value, int) for value in (*control, *start))
    if not low < high < math.inf:
        raise ValueError(f"{name}={control!r} has min {low} not below max {high}: swap or widen them.")
    step = control[2] if len(control) == 3 else (1 if whole else _round_down_to_1_2_5((high - low) / 100))
    if not 0 < step <= high - low:
        raise ValueError(f"{name}={control!r} has step {step}: it must be above 0 and at most {high - low}.")
    if not whole:
        low, high, step = float(low), float(high), float(step)
    middle = low + step * math.floor((high - low) / step / 2 + 1e-9)
    value = start[0] if start else middle if whole else round(middle, 10)
    if not low <= value <= high:
        raise ValueError(f"{name} starts at {value!r}, which is outside its range {low} to {high}.")
    settings = {"value": value, "min": low, "max": high, "step": step}
    if whole:
        return "IntSlider", settings
    decimals = max(0, min(6, math.ceil(-math.log10(step) - 1e-9)))
    return "FloatSlider", settings | {"readout_format": f".{decimals}f"}


def _round_down_to_1_2_5(size: float) -> float:
    """Return the largest 1, 2 or 5 times a power of ten up to `size`: sliders should stop at round numbers."""
    power = 10.0 ** math.floor(math.log10(size))
    return max(round(m * power, 12) for m in (1, 2, 5) if m * power <= size * (1 + 1e-9))


def make_widget(kind: str, settings: dict[str, Any], label: str, label_width: str, follow: bool) -> Any:
    """Return the ipywidget of a control; `follow`: a slider reports values while it is dragged."""
    import ipywidgets

    look: dict[str, Any] = {"description": label, "style": {"description_width": label_width}}
    if kind.endswith("Slider"):
        look |= {"layout": ipywidgets.Layout(width="520px", max_width="100%"), "continuous_update": follow}
    return getattr(ipywidgets, kind)(**settings, **look)


def _label_of(name: str) -> str:
    """Return an argument's name as a person would write it: iou_threshold -> IoU threshold."""
    text = " ".join("IoU" if word == "iou" else word for word in name.split("_"))
    return text[:1].upper() + text[1:]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# --- Drawing ---


def _draw_and_display(draw: Callable[..., Any], values: dict[str, Any]) -> None:
    """Call draw, display each figure it made exactly once, and close it so that none piles up in memory."""
    import matplotlib.pyplot as plt
    from IPython.display import display

    before = set(plt.get_fignums())
    try:
        with plt.ioff():  # else Jupyter, which flushes open figures at every message, may take a half-drawn one away
            draw(**values)
        for number in sorted(set(plt.get_fignums()) - before):
            display(plt.figure(number))
    finally:
        for number in set(plt.get_fignums()) - before:
            plt.close(number)


def _explore_live(draw: Callable[..., Any], labels: Mapping[str, str], read: Controls) -> None:
    """Show the controls above an output area whose content is replaced as a whole at each change (no flicker)."""
    import asyncio

    import ipywidgets
    from IPython.display import display

    began = time.perf_counter()
    values = {name: settings["value"] for name, (_, settings) in read.items()}
    first = _outputs_of(draw, values, errors_shown=False)  # an error in the first drawing fails the cell, as it should
    follow = time.perf_counter() - began < FAST_DRAW_SECONDS
    texts = {name: labels.get(name, _label_of(name)) for name in read}
    width = f"{7 * max(map(len, texts.values())) + 12}px"
    widgets = {name: make_widget(*control, texts[name], width, follow) for name, control in read.items()}
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
