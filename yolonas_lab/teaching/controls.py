"""What a reader can move: from (min, max), a list or True to a start value and an ipywidget.

Part of `explore`, which every notebook uses.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any


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
