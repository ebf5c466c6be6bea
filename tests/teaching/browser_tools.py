"""A real JupyterLab in a real browser, for the tests that use notebooks as a reader does."""

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import symtable
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome") or ""
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
# Messages of the browser's console that are no fault of a notebook, each with the reason.
HARMLESS = {
    r"Failed to load resource.*\b404\b.*/api/contents/.*checkpoints": "JupyterLab asks for checkpoints of a new file",
    r"/lsp/status|/lsp/ws": "no language server is installed: JupyterLab asks for one and goes on without",
}
SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},  # else cells out of sight are not in the page
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
}
SLIDER = r"explore\([^)]*=[(\[][-\d]"  # a widget with a control of numbers, in a cell's source
KERNEL_TROUBLE = r"Traceback|^\[[EC] \d|kernel.* died|KernelRestarter"  # in the server's log
READ_CELLS = """() => window.jupyterapp.shell.currentWidget.content.widgets.map(cell => ({
    type: cell.model.type, count: cell.model.executionCount ?? null, state: cell.model.executionState ?? "",
    tags: cell.model.getMetadata("tags") ?? [], source: cell.model.sharedModel.source,
    outputs: cell.model.outputs ? cell.model.outputs.toJSON() : []}))"""

# Through JupyterLab itself: a mouse click can miss while figures above still change their height.
RUN_CELL = """([index, source]) => {
    const notebook = window.jupyterapp.shell.currentWidget.content;
    if (source !== null) notebook.widgets[index].model.sharedModel.setSource(source);
    notebook.deselectAll();
    notebook.activeCellIndex = index;
    return window.jupyterapp.commands.execute("notebook:run-cell");
}"""
CELL_RAN = """([index, count]) =>
    window.jupyterapp.shell.currentWidget.content.widgets[index].model.executionCount > count"""

# Every code cell has run, or one of them failed, after which JupyterLab runs no more.
# Asked many times while the kernel works, so it takes no copy of the outputs, which hold pictures.
ALL_RAN = """() => {
    const code = window.jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model)
        .filter(m => m.type === "code" && m.sharedModel.source.trim());
    const errors = m => Array.from({length: m.outputs.length}, (_, i) => m.outputs.get(i).type).includes("error");
    const failed = m => !(m.getMetadata("tags") ?? []).includes("raises-exception") && errors(m);
    return code.every(m => m.executionState !== "running")
        && (code.every(m => m.executionCount !== null) || code.some(failed));
}"""
POLL_MS = 200  # without it the page asks at every frame that it draws


@dataclass
class Lab:
    """A running JupyterLab: its address, token, the folder it serves and the file its log goes to."""

    url: str
    token: str
    folder: Path
    log: Path

    def address_of(self, name: str) -> str:
        """Return the address that opens one notebook alone in the window."""
        return f"{self.url}/doc/tree/{name}?token={self.token}"

    def kernel_errors(self) -> list[str]:
        """Return lines of the server's log that report a failure of a kernel or of the server."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return [line for line in lines if re.search(KERNEL_TROUBLE, line)]


@dataclass
class OpenNotebook:
    """A notebook open in the browser, and what went wrong in the page since it was opened."""

    page: Any
    errors: list[str] = field(default_factory=list)

    def cells(self) -> list[dict]:
        """Return type, execution count, state, tags, source and outputs of all cells as they are in the page."""
        return self.page.evaluate(READ_CELLS)

    def run_all(self, timeout_s: float = 600) -> list[dict]:
        """Choose Run All Cells in the menu, wait until every code cell has run, and return the cells."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_text("Run All Cells", exact=True).click()
        self.page.wait_for_function(ALL_RAN, timeout=timeout_s * 1000, polling=POLL_MS)
        self.wait_until_idle()
        return self.cells()

    def run_cell(self, index: int, source: str | None = None) -> str:
        """Carry out JupyterLab's own Run command on one cell, with this source if given; returns what it printed."""
        before = max(cell["count"] or 0 for cell in self.cells())
        self.page.evaluate(RUN_CELL, [index, source])
        arguments = {"arg": [index, before], "timeout": 60_000, "polling": POLL_MS}
        self.page.wait_for_function(CELL_RAN, **arguments)
        self.wait_until_idle()
        return text_of(self.cells()[index])

    def wait_until_idle(self, timeout_s: float = 90) -> None:
        """Wait until the status bar says that the kernel is idle."""
        self.page.get_by_text("| Idle").wait_for(timeout=timeout_s * 1000)


def text_of(cell: dict) -> str:
    """Return what a cell printed, or the words of its error."""
    parts = [output.get("text") or output.get("evalue", "") for output in cell["outputs"]]
    return "".join("".join(part) for part in parts)


def without_outputs(notebook: Path) -> dict:
    """Return a notebook's content as if it had never been executed."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
    return content


def first_widget_alone(notebook: Path) -> dict:
    """Return a notebook cut down to the cells that one of its widgets needs: the widget that needs the fewest."""
    content = without_outputs(notebook)
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    sources = ["".join(cell["source"]) for cell in code]
    uses = [names_in(source) for source in sources]
    sliders = [i for i, source in enumerate(sources) if re.search(SLIDER, source)]
    content["cells"] = min((_with_what_it_needs(i, code, uses) for i in sliders), key=len)
    return content


def _with_what_it_needs(last: int, code: list[dict], uses: list[tuple[set[str], set[str]]]) -> list[dict]:
    """Return cell `last` and those before it that bind a name which a cell after them reads."""
    kept, wanted = [code[last]], set(uses[last][1])
    for cell, (bound, read) in zip(reversed(code[:last]), reversed(uses[:last])):
        if bound & wanted or "setup_notebook" in read:
            kept, wanted = [cell, *kept], wanted | read
    return kept


def names_in(source: str) -> tuple[set[str], set[str]]:
    """Return the notebook's names that a cell binds, and those that it reads, also inside its functions."""
    top = symtable.symtable(source, "cell", "exec")
    bound = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    read, tables = {s.get_name() for s in top.get_symbols() if s.is_referenced()}, top.get_children()
    while tables:
        table = tables.pop()
        read |= {s.get_name() for s in table.get_symbols() if s.is_global()}
        tables += table.get_children()
    return bound, read


@contextlib.contextmanager
def jupyterlab(folder: Path) -> Iterator[Lab]:
    """Serve `folder` with a JupyterLab of this Python on a free loopback port, with settings and kernels of its own."""
    home = Path(tempfile.mkdtemp(prefix="lab-home-"))
    for name, values in SETTINGS.items():
        file = home / "settings" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values), encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if k not in ("YOLONAS_LAB_STATIC", "MPLBACKEND", "TQDM_DISABLE")}
    environment |= {
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
    }
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token, log = secrets.token_hex(16), home / "server.log"
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ServerApp.ip=127.0.0.1", "--allow-root"]
    command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}"]
    command += [f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True"]
    with open(log, "wb") as output:
        server = subprocess.Popen(command, env=environment, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
    lab = Lab(f"http://127.0.0.1:{port}", token, folder, log)
    try:
        _wait_for_server(lab, server)
        yield lab
    finally:
        server.terminate()  # shuts its kernels down
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def open_notebook(browser: Any, lab: Lab, name: str) -> Iterator[OpenNotebook]:
    """Open one notebook in a new page and wait until its kernel is idle (Run is dropped before that)."""
    page = browser.new_page(viewport={"width": 1200, "height": 1000})
    notebook = OpenNotebook(page)
    page.on("pageerror", lambda error: notebook.errors.append(f"page error: {error}"))

    def on_console(message: Any) -> None:
        text = f"{message.text} {message.location.get('url', '')}"
        if message.type == "error" and not any(re.search(pattern, text) for pattern in HARMLESS):
            notebook.errors.append(f"console: {text}")

    page.on("console", on_console)
    try:
        page.goto(lab.address_of(name))
        notebook.wait_until_idle()
        yield notebook
        shut = "() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()"
        page.evaluate(shut)
    finally:
        page.close()


def _wait_for_server(lab: Lab, server: subprocess.Popen, timeout_s: float = 60) -> None:
    """Wait until the server answers; RuntimeError with its log where it ends or stays silent."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{lab.url}/api?token={lab.token}", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start:\n{lab.log.read_text(encoding='utf-8', errors='replace')[-3000:]}")
