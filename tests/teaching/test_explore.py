import asyncio
import json
import threading
from types import SimpleNamespace

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolonas_lab.teaching import explore
from yolonas_lab.teaching.explore import _outputs_of, _round_down_to_1_2_5, is_live, make_widget, read_controls


def draw(x=2.0, n=3, kind="a", thick=False):
    plt.subplots()


def start_values(draw, controls):
    return {name: settings["value"] for name, (_, settings) in read_controls(draw, controls).items()}


def test_a_control_starts_at_the_default_of_draw_else_in_the_middle():
    controls = {"x": (0.0, 1.0), "n": (0, 10, 5), "k": [3, 1], "flag": True}
    assert start_values(lambda x, n, k, flag: None, controls) == {"x": 0.5, "n": 5, "k": 3, "flag": True}
    assert start_values(draw, {"x": (0, 9), "kind": ["b", "a"]}) == {"x": 2.0, "kind": "a"}


@given(st.integers(-1000, 1000), st.integers(1, 1000), st.data())
def test_the_middle_of_whole_numbers_lies_on_the_sliders_grid(low, width, data):
    step = data.draw(st.integers(1, width))
    middle = start_values(lambda x: None, {"x": (low, low + width, step)})["x"]
    assert isinstance(middle, int) and low <= middle <= low + width and (middle - low) % step == 0
    assert 0 <= low + width / 2 - middle < step


@given(st.floats(1e-6, 1e6))
def test_steps_are_round_numbers_just_below_the_wish(size):
    step = _round_down_to_1_2_5(size)
    assert step <= size * (1 + 1e-6) and size < 2.5 * step * (1 + 1e-6)
    assert f"{step:e}"[0] in "125" and float(f"{step:.0e}") == step


BAD_CONTROLS = [
    ({"nme": (0, 1)}, "draw has no argument 'nme'; its arguments are: x, n, kind, thick"),
    ({"x": (1, 1)}, "min 1 not below max 1"),
    ({"x": (0,)}, "is no control: use"),
    ({"x": (0.0, float("inf"))}, "min 0.0 not below max inf"),
    ({"x": (0, 5, 0)}, "step 0"),
    ({"x": (0, 5, 9)}, "step 9.* at most 5"),
    ({"x": (3, 9)}, "starts at 2.0, which is outside its range 3.0 to 9.0"),
    ({"kind": []}, "is no control: use"),
    ({"kind": ["b", "c"]}, "starts at 'a', which is not among its choices"),
    ({"x": "0-1"}, "is no control: use"),
]


@pytest.mark.parametrize(("controls", "message"), BAD_CONTROLS)
def test_bad_controls_are_refused_in_a_sentence(controls, message):
    with pytest.raises(ValueError, match=message):
        explore(draw, **controls)


def test_an_argument_without_a_control_is_named():
    with pytest.raises(ValueError, match="needs a value for 'y': give it a control"):
        explore(lambda x, y: None, x=(0, 1))


def test_without_a_notebook_the_figure_is_drawn_once_and_left_open():
    plt.close("all")
    calls = []

    def remember(labels, draw):
        calls.append({"labels": labels, "draw": draw})
        plt.figure()

    explore(remember, labels=(0, 4), draw=[1, 2])  # names of explore's own parameters are free for controls
    assert calls == [{"labels": 2, "draw": 1}] and len(plt.get_fignums()) == 1
    plt.close("all")


@pytest.mark.parametrize(("setting", "live"), [("1", False), ("yes", False), ("0", True), ("", True)])
def test_static_setting_wins_over_a_live_kernel(monkeypatch, setting, live):
    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setenv("YOLONAS_LAB_STATIC", setting)
    assert is_live() is live


@pytest.fixture
def shell(monkeypatch):
    """An IPython shell with the inline formats switched on, as a notebook's kernel has it."""
    from ipykernel.zmqshell import ZMQDisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.core.pylabtools import select_figure_formats
    from jupyter_client.session import Session

    shell = InteractiveShell.instance()
    shell.display_pub = ZMQDisplayPublisher(parent=shell, session=Session())
    select_figure_formats(shell, {"png"}, bbox_inches=None)
    monkeypatch.setattr(shell, "kernel", object(), raising=False)
    yield shell
    InteractiveShell.clear_instance()


def test_a_live_drawing_gives_one_picture_and_leaves_no_figure_open(shell):
    kept = plt.figure()
    (output,) = _outputs_of(draw, {"x": 1.0}, errors_shown=True)
    assert output["output_type"] == "display_data" and output["data"]["image/png"].startswith("iVBOR")
    json.dumps(output)  # it travels to the browser as JSON
    assert plt.get_fignums() == [kept.number]  # one that was open before is not touched
    plt.close("all")


def test_what_draw_displays_itself_is_shown_below_the_controls_too(shell):
    from IPython.display import HTML, display

    outputs = _outputs_of(lambda: (display(HTML("<b>hello</b>")), plt.subplots()), {}, errors_shown=True)
    assert ["text/html" in outputs[0]["data"], "image/png" in outputs[1]["data"], len(outputs)] == [True, True, 2]


def test_an_error_in_draw_is_shown_from_the_readers_code_on_and_leaves_no_figure(shell):
    def fail():
        plt.figure()
        raise ValueError("too high")

    (output,) = _outputs_of(fail, {}, errors_shown=True)
    text = "\n".join(output["traceback"])
    assert output["output_type"] == "error" and output["evalue"] == "too high"
    assert "in fail" in text and 'explore.py"' not in text.replace("test_explore.py", "")
    assert plt.get_fignums() == []
    with pytest.raises(ValueError, match="too high"):
        _outputs_of(fail, {}, errors_shown=False)


def live_children(monkeypatch, draw, *labels, **controls):
    """Call explore in a running loop, as a cell does; returns the loop and the widgets that it displays."""
    monkeypatch.delenv("YOLONAS_LAB_STATIC", raising=False)
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    explore(draw, *labels, **controls)
    return shown[0].children


def test_live_controls_redraw_and_say_what_they_are(shell, monkeypatch):
    seen = []

    def watch(iou_threshold=0.5, n=1):
        seen.append((iou_threshold, n))

    async def move():
        controls = {"iou_threshold": (0, 1), "n": [1, 2, 4]}
        slider, choice, output = live_children(monkeypatch, watch, {"n": "Number of boxes"}, **controls)
        assert (slider.description, choice.description) == ("IoU threshold", "Number of boxes")
        slider.value = 0.7
        await asyncio.sleep(0)
        slider.value = 0.9
        choice.value = 4
        await asyncio.sleep(0)
        assert output.outputs == ()

    asyncio.run(move())
    assert seen == [(0.5, 1), (0.7, 1), (0.9, 4)]  # two changes that come together are drawn once


def test_a_change_reported_on_another_thread_is_drawn_on_the_thread_of_the_cells(shell, monkeypatch):
    """JupyterLab reports widget changes on a thread of their own, while a cell may be running."""
    threads = []

    async def move():
        slider, _ = live_children(monkeypatch, lambda n=1: threads.append(threading.get_ident()), n=(0, 9))
        await asyncio.to_thread(setattr, slider, "value", 5)
        await asyncio.sleep(0.01)

    asyncio.run(move())
    assert threads == [threading.get_ident()] * 2


def test_drawing_leaves_the_shells_publisher_in_its_place(shell):
    """The kernel hands each new message's header to it: swapping it, even for a moment, loses a cell's execution."""
    publisher, during = shell.display_pub, []
    _outputs_of(lambda: during.append(shell.display_pub), {}, errors_shown=True)
    assert during == [publisher] and shell.display_pub is publisher and publisher._hooks == []


@pytest.mark.parametrize(
    ("control", "value", "kind", "step"),
    [
        ((0, 10), 5, "IntSlider", 1), ((0, 1), 0.5, "FloatSlider", 0.01), ((0.5, 4.0), 2.0, "FloatSlider", 0.02),
        ((0.0, 1.0, 0.25), 0.5, "FloatSlider", 0.25), ([1, 2, 4], 2, "SelectionSlider", None),
        (["a", "b"], "b", "Dropdown", None), (True, True, "Checkbox", None),
    ],
)  # fmt: skip
def test_each_kind_of_control_becomes_its_widget(control, value, kind, step):
    read = read_controls(lambda name=value: None, {"name": control})["name"]
    widget = make_widget(*read, "Name", "60px", follow=True)
    assert type(widget).__name__ == kind and widget.value == value
    assert step is None or widget.step == step
