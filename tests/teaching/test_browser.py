"""The notebooks in a real JupyterLab: what only a browser can show.

Every day: one reader's walk, and each notebook's first widget with no more of the notebook than it needs. As a proof:
every notebook from top to bottom.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser_tools
import pytest
from browser_tools import Lab, OpenNotebook, open_notebook, text_of
from sample_notebooks import write_sample

from yolonas_lab.teaching.student import write_own_notebooks

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
HEAVY = ("07_pseudo_labels.ipynb", "09_architecture_search.ipynb")  # their widgets need a training, or a search
SPEEDUP = "def speedup(ms_before, ms_after):\n    return {}"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not browser_tools.CHROMIUM, reason="no Chromium here (Debian: apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One JupyterLab for all tests, over a folder into which each writes its notebook."""
    with browser_tools.jupyterlab(tmp_path_factory.mktemp("notebooks")) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install playwright")
    with playwright.sync_playwright() as api:
        opened = api.chromium.launch(executable_path=browser_tools.CHROMIUM, args=browser_tools.CHROMIUM_FLAGS)
        yield opened
        opened.close()


def test_a_reader_walks_through_the_first_notebook(lab: Lab, browser: Any):
    """The reader's own copy, as `make lab` writes it: run, drag, fail a check, take a hint, answer."""
    write_own_notebooks(NOTEBOOKS[:1], lab.folder)
    with open_notebook(browser, lab, NOTEBOOKS[0].name) as notebook:
        cells = notebook.run_all()
        assert not unexpected_errors(cells) and all(cell["count"] for cell in cells if cell["type"] == "code")
        assert figure_follows_slider(notebook), "the figure did not change when its slider was moved"
        answer, check, hint = (
            next(i for i, cell in enumerate(cells) if cell["type"] == "code" and words in cell["source"])
            for words in ("def speedup(", "check_speedup(speedup)", 'hint("speedup"')
        )
        assert "not written yet" in text_of(cells[check])
        notebook.run_cell(answer, SPEEDUP.format("ms_after / ms_before"))
        assert "speedup, case 1 of" in notebook.run_cell(check)
        assert "Hint 1 of" in notebook.run_cell(hint)
        notebook.run_cell(answer, SPEEDUP.format("ms_before / ms_after"))
        assert "✓ speedup" in notebook.run_cell(check)
        assert not notebook.errors
    assert not lab.kernel_errors()


@pytest.mark.parametrize("name", [path.name for path in NOTEBOOKS[1:] if path.name not in HEAVY])
def test_a_widget_redraws_when_its_slider_moves(lab: Lab, browser: Any, name: str):
    content = browser_tools.first_widget_alone(FOLDER / name)
    (lab.folder / name).write_text(json.dumps(content), encoding="utf-8")
    with open_notebook(browser, lab, name) as notebook:
        assert not unexpected_errors(notebook.run_all())
        assert figure_follows_slider(notebook), "the figure did not change when its slider was moved"
        assert not notebook.errors
    assert not lab.kernel_errors()


def test_a_failing_cell_is_noticed(lab: Lab, browser: Any):
    """The tests around can fail: an error in a cell ends the waiting and is reported."""
    write_sample(lab.folder / "broken.ipynb", double="return 3 * x")
    with open_notebook(browser, lab, "broken.ipynb") as notebook:
        found = unexpected_errors(notebook.run_all(timeout_s=60))
    assert len(found) == 1 and "CheckFailed" in found[0]


@pytest.mark.proof
@pytest.mark.parametrize("name", [path.name for path in NOTEBOOKS])
def test_a_whole_notebook_runs_its_slider_moves_and_its_check_passes_again(lab: Lab, browser: Any, name: str):
    whole = f"whole_{name}"
    (lab.folder / whole).write_text(json.dumps(browser_tools.without_outputs(FOLDER / name)), encoding="utf-8")
    with open_notebook(browser, lab, whole) as notebook:
        cells = notebook.run_all()
        assert not unexpected_errors(cells)
        assert figure_follows_slider(notebook), "the figure did not change when its slider was moved"
        passed = [i for i, cell in enumerate(cells) if "✓" in text_of(cell) and "raises-exception" not in cell["tags"]]
        assert "✓" in notebook.run_cell(passed[0])
        assert not notebook.errors
    assert not lab.kernel_errors()


def unexpected_errors(cells: list[dict]) -> list[str]:
    """Return the errors of all cells that are not tagged as raising one."""
    return [
        f"code cell {cell['count']}: {output['ename']}: {output['evalue']}"
        for cell in cells
        if "raises-exception" not in cell["tags"]
        for output in cell["outputs"]
        if output["output_type"] == "error"
    ]


def figure_follows_slider(notebook: OpenNotebook) -> bool:
    """Move the first slider with the arrow keys, to the right and then far to the left, until its figure changes."""
    from playwright.sync_api import TimeoutError

    handle = notebook.page.locator(".noUi-handle").first
    handle.wait_for(timeout=20_000)
    widget = notebook.page.locator(".widget-vbox", has=handle).first
    figure = widget.locator("img").first
    figure.wait_for(timeout=20_000)
    before = figure.get_attribute("src")
    for key, presses in (("ArrowRight", 3), ("ArrowLeft", 20)):
        handle.focus()
        for _ in range(presses):
            notebook.page.keyboard.press(key)
        try:
            notebook.page.wait_for_function(
                "([image, before]) => image && image.src !== before || !image.isConnected",
                arg=[figure.element_handle(), before],
                timeout=15_000,
                polling=browser_tools.POLL_MS,
            )
        except TimeoutError:
            continue
        notebook.wait_until_idle()
        figure.wait_for(timeout=20_000)  # an error in the drawing would leave no picture
        if figure.get_attribute("src") != before:
            return True
    return False
