"""Every notebook, used as a reader does: opened in a real JupyterLab, run, its first slider moved, a check pressed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser_tools
import pytest
from sample_notebooks import SAMPLE, write_sample

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
STREAMS = ("stream",)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not browser_tools.CHROMIUM, reason="no Chromium here (Debian: apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser_tools.Lab]:
    """One JupyterLab for all notebooks, over a copy of them without outputs, and the sample notebook."""
    folder = tmp_path_factory.mktemp("notebooks")
    if NOTEBOOKS:
        browser_tools.copy_without_outputs(NOTEBOOKS[0].parent, folder)
    write_sample(folder / SAMPLE)
    with browser_tools.jupyterlab(folder) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install playwright")
    with playwright.sync_playwright() as api:
        opened = api.chromium.launch(executable_path=browser_tools.CHROMIUM, args=browser_tools.CHROMIUM_FLAGS)
        yield opened
        opened.close()


@pytest.mark.parametrize("name", [SAMPLE, *(path.name for path in NOTEBOOKS)])
def test_notebook_works_in_jupyterlab(lab: browser_tools.Lab, browser: Any, name: str):
    with browser_tools.open_notebook(browser, lab, name) as notebook:
        cells = notebook.run_all()
        assert not unexpected_errors(cells)
        assert figure_follows_slider(notebook), "the figure did not change when its slider was moved"
        press_check(notebook, cells)
        assert not notebook.errors
    assert not lab.kernel_errors()


def test_a_failing_cell_is_noticed(lab: browser_tools.Lab, browser: Any):
    """The test above can fail: an error in a cell ends the waiting and is reported."""
    write_sample(lab.folder / "broken.ipynb", double="return 3 * x")
    with browser_tools.open_notebook(browser, lab, "broken.ipynb") as notebook:
        found = unexpected_errors(notebook.run_all(timeout_s=60))
    assert len(found) == 1 and "CheckFailed" in found[0]


def unexpected_errors(cells: list[dict]) -> list[str]:
    """Return the errors of all cells that are not tagged as raising one."""
    return [
        f"code cell {cell['count']}: {output['ename']}: {output['evalue']}"
        for cell in cells
        if "raises-exception" not in cell["tags"]
        for output in cell["outputs"]
        if output["output_type"] == "error"
    ]


def figure_follows_slider(notebook: browser_tools.OpenNotebook) -> bool:
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


def press_check(notebook: browser_tools.OpenNotebook, cells: list[dict]) -> None:
    """Run the first cell that printed a ✓ once more, as a reader does after editing; it must pass again."""
    passed = [i for i, cell in enumerate(cells) if "✓" in printed(cell)]
    assert passed, "no self-check of this notebook passes"
    index = passed[0]
    notebook.run_cell(index)
    notebook.page.wait_for_function(
        "([index, count]) => window.jupyterapp.shell.currentWidget.content.widgets[index].model.executionCount > count",
        arg=[index, max(cell["count"] or 0 for cell in cells)],
        timeout=60_000,
        polling=browser_tools.POLL_MS,
    )
    notebook.wait_until_idle()
    assert "✓" in printed(notebook.cells()[index])


def printed(cell: dict) -> str:
    """Return what a cell printed."""
    return "".join("".join(output["text"]) for output in cell["outputs"] if output["output_type"] in STREAMS)
