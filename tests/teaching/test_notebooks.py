import json
import os
import subprocess
import sys
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import nbformat
import pytest
from PIL import Image
from sample_notebooks import write_sample

from yolonas_lab.teaching.notebooks import (
    STATIC_ENVIRONMENT,
    check_notebook,
    find_notebooks,
    main,
    read_notebook,
    source_digest,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def kernels(monkeypatch):
    """Kernels find the package, and nothing around them decides what is stored."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.delenv("YOLONAS_LAB_STATIC", raising=False)  # `run` sets it itself
    monkeypatch.setenv("MPLBACKEND", "Agg")  # as a CI machine may have it: figures must be stored all the same


@pytest.fixture
def stored(tmp_path) -> Path:
    """The sample notebook as if it had been executed: counted, stamped and with the error that is meant."""
    path = write_sample(tmp_path / "sample.ipynb")
    content = json.loads(path.read_text(encoding="utf-8"))
    for number in range(1, 6):
        code_cell(content, number).update(execution_count=number)
    code_cell(content, 5).update(outputs=[{**ERROR, "ename": "CheckFailed"}])
    content["metadata"]["yolonas_lab"] = {"source": source_digest(content["cells"])}
    assert change(path, lambda c: c.update(content)) == []
    return path


def change(path: Path, spoil) -> list[str]:
    """Change the notebook's JSON with a function, and return what `check` then says."""
    content = json.loads(path.read_text(encoding="utf-8"))
    spoil(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    return check_notebook(path)


ERROR = {"output_type": "error", "ename": "ValueError", "evalue": "", "traceback": []}


def code_cell(content: dict, number: int) -> dict:
    return [cell for cell in content["cells"] if cell["cell_type"] == "code"][number - 1]


@pytest.mark.slow
def test_an_executed_notebook_is_fit_and_a_failing_one_is_named_and_left_alone(tmp_path, kernels, capsys):
    broken, good = write_sample(tmp_path / "broken.ipynb", double="return 3 * x"), write_sample(tmp_path / "good.ipynb")
    unrun = broken.read_bytes()
    assert main(["run", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert "broken.ipynb, code cell 4: CheckFailed: double, case 1 of 2" in captured.err
    assert [line.split()[3] for line in captured.out.splitlines()[1:3]] == ["NO", "yes"]
    assert broken.read_bytes() == unrun and sorted(p.name for p in tmp_path.iterdir()) == ["broken.ipynb", "good.ipynb"]
    assert main(["check", str(good)]) == 0
    assert capsys.readouterr().out == "1 notebook checked: all fit to be read\n"
    content = json.loads(good.read_text(encoding="utf-8"))
    plain, widget, check, meant = (code_cell(content, n)["outputs"] for n in (1, 2, 4, 5))
    assert [set(output["data"]) for output in plain + widget] == [{"image/png", "text/plain"}] * 2
    pictures = [b64decode(output["data"]["image/png"]) for output in plain + widget]
    assert all(Image.open(BytesIO(picture)).mode == "P" for picture in pictures)  # setup_notebook chose a palette
    assert check[0]["text"] == ["✓ double: all 2 cases pass\n"]
    assert meant[0]["ename"] == "CheckFailed" and "site-packages" not in meant[0]["traceback"][0]
    assert [cell["id"] for cell in content["cells"]] == [
        "header", "set-up", "widget", "exercise", "check", "meant-error",
    ]  # fmt: skip
    assert "execution" not in code_cell(content, 1)["metadata"]
    assert "version" not in content["metadata"]["language_info"]
    executed = good.read_bytes()
    assert main(["run", str(good)]) == 0 and good.read_bytes() == executed  # running it again changes no byte
    assert change(good, lambda content: content["metadata"].update(widgets={}))
    spoiled = good.read_bytes()
    assert main(["run", "--no-save", str(good)]) == 0 and good.read_bytes() == spoiled


@pytest.mark.slow
def test_a_kernel_that_dies_and_a_cell_that_hangs_are_reported(tmp_path, kernels, capsys):
    for name, source in (("dies", "import os; os._exit(1)"), ("hangs", "import time; time.sleep(60)")):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source, id="only")])
        notebook.cells[0].metadata["yolonas_lab"] = {"budget_s": 0.2}
        nbformat.write(notebook, str(tmp_path / f"{name}.ipynb"))
    assert main(["run", str(tmp_path)]) == 1
    errors = capsys.readouterr().err
    assert "dies.ipynb, code cell 1: Kernel died" in errors and "hangs.ipynb, code cell 1: A cell timed out" in errors


def set_source(number, source):
    return lambda content: code_cell(content, number).update(source=source)


def add_markdown(text, count=1):
    cell = {"cell_type": "markdown", "metadata": {}, "source": text}
    return lambda content: content["cells"].extend({**cell, "id": f"more-{i}"} for i in range(count))


def set_output(number, output):
    return lambda content: code_cell(content, number).update(outputs=[output])


def stream(text):
    return {"output_type": "stream", "name": "stdout", "text": [text]}


WIDGET_VIEW = {"output_type": "display_data", "metadata": {}, "data": {"application/vnd.jupyter.widget-view+json": {}}}
SPOILS = [
    (set_source(3, "def double(x):\n    return x + x"), "its code changed after its outputs were stored"),
    (lambda c: c["metadata"].pop("yolonas_lab"), "has no stamp of its code"),
    (lambda c: code_cell(c, 2).update(execution_count=7), "code cell 2 has execution count 7"),
    (lambda c: code_cell(c, 5).update(execution_count=None), "code cell 5 has execution count None"),
    (lambda c: [x.update(execution_count=None) for x in c["cells"] if x["cell_type"] == "code"], "was never run"),
    (lambda c: c["cells"].__delitem__(slice(1, None)), "has no code cell"),
    (set_source(3, " \n"), "code cell 3 is empty"),
    (set_output(1, ERROR), "code cell 1 stores an error: ValueError"),
    (set_output(5, stream("fine")), "code cell 5 is tagged raises-exception but stores no error"),
    (set_output(2, WIDGET_VIEW), "code cell 2 stores a live widget"),
    (lambda c: c["metadata"].update(widgets={}), "stores widget state"),
    (set_output(1, stream("/home/ada/lab.py:3: UserWarning")), "a trace of the machine in its output: '/home/'"),
    (set_output(1, stream("<function f at 0x7f3a2b1c>")), "a trace of the machine in its output: 'at 0x7f3a2b1c'"),
    (add_markdown("many words " * 1300), "words of text, more than 2,500"),
    (add_markdown("x", 60), "has 66 cells, more than 60"),
    (add_markdown("![p](data:image/png;base64," + "A" * 400_000 + ")"), "bytes, more than 400,000"),
    (lambda c: c["cells"][0].update(source="# Goals"), "says nothing of prerequisites and minutes"),
    (lambda c: c["cells"].pop(0), "says nothing of goals and prerequisites and minutes"),
    (lambda c: c["cells"][1].pop("id"), "cells without an id of their own"),
    (lambda c: c["cells"][1].update(id="widget"), "cells without an id of their own"),
    (set_source(3, "### BEGIN SOLUTION\n1"), "unequal numbers of BEGIN SOLUTION and END SOLUTION"),
    (set_source(3, "plt.plot([1]);"), "code cell 3 ends with ';'"),
    (lambda c: code_cell(c, 2)["metadata"].update(yolonas_lab={"budget_s": "5"}), "has budget_s '5'"),
]


@pytest.mark.parametrize(("spoil", "message"), SPOILS)
def test_each_defect_is_found(stored, capsys, spoil, message):
    findings = change(stored, spoil)
    assert any(message in finding for finding in findings), findings
    assert main(["check", str(stored)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(findings) and all(line.startswith(f"{stored}: ") for line in lines)


def test_links_tags_and_embedded_pictures_are_no_words(stored):
    assert change(stored, add_markdown("[a](http://x.org/b/c) <img src='d e f'> " * 1200)) == []


def test_the_digest_depends_on_code_and_its_order_alone():
    def cell(kind, source):
        return {"cell_type": kind, "source": source}

    a, b, text = cell("code", "a"), cell("code", "b"), cell("markdown", "t")
    assert source_digest([a, b]) == source_digest([text, a, cell("code", ["b"])])
    assert len({source_digest(c) for c in ([a, b], [b, a], [a], [cell("code", "ab")])}) == 4


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"cells": 3}', '{"cells": [1]}', '{"cells": [{"cell_type": "code"}]}']
)
def test_what_is_no_notebook_is_found(tmp_path, text):
    path = tmp_path / "bad.ipynb"
    path.write_text(text)
    assert check_notebook(path) == ["is not a Jupyter notebook of format 4: open it in JupyterLab and save it again"]
    with pytest.raises(ValueError, match=r"bad\.ipynb is not a Jupyter notebook"):
        read_notebook(path)
    assert main(["run", str(path)]) == 2


@pytest.mark.parametrize("name", ["missing.ipynb", "missing", "notes.txt"])
def test_files_that_are_no_notebooks_are_refused(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").touch()
    assert main(["check", name]) == 2
    assert f"error: there is no notebook {name}: name .ipynb files" in capsys.readouterr().err


def test_notebooks_of_a_folder_are_sorted(tmp_path):
    with pytest.raises(FileNotFoundError, match="no notebook in the folder"):
        find_notebooks([tmp_path])
    for name in "ba":
        (tmp_path / f"{name}.ipynb").touch()
    assert [path.stem for path in find_notebooks([tmp_path])] == ["a", "b"]


def test_cells_without_ids_get_the_same_ones_at_every_reading(stored):
    change(stored, lambda c: [cell.pop("id") for cell in c["cells"]])
    ids = [[cell.id for cell in read_notebook(stored).cells] for _ in range(2)]
    assert ids[0] == ids[1] == [f"cell-{i:02d}" for i in range(6)]


def add_to_cell_3(content: dict, code: str) -> None:
    """Lengthen a cell whose budget becomes half a second."""
    code_cell(content, 3)["source"] += f"\nimport time\n{code}"
    code_cell(content, 3)["metadata"]["yolonas_lab"] = {"budget_s": 0.5}


@pytest.mark.slow
def test_nbval_passes_what_run_stored_and_fails_what_differs_or_is_slow(tmp_path, kernels):
    """Both notebooks run as `make test` runs them, in a process each."""

    def spoil(content):
        code_cell(content, 4)["outputs"][0]["text"] = ["✓ double: all 3 cases pass\n"]
        add_to_cell_3(content, "until = time.process_time() + 0.6\nwhile time.process_time() < until:\n    pass")

    sample, good = write_sample(tmp_path / "sample.ipynb"), tmp_path / "good.ipynb"
    assert main(["run", str(sample)]) == 0
    good.write_bytes(sample.read_bytes())
    change(good, lambda content: add_to_cell_3(content, "time.sleep(0.6)"))  # as if another process had the processor
    change(sample, spoil)
    options = "-n 2 --dist loadfile --nbval --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg -v"
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", *options.split(), "--color=no"]
    environment = {k: v for k, v in os.environ.items() if k not in STATIC_ENVIRONMENT}
    result = subprocess.run([*command, tmp_path], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 1 and "2 failed, 8 passed" in result.stdout, result.stdout
    assert "[gw0]" in result.stdout and "[gw1]" in result.stdout
    assert "sample.ipynb, code cell 3 took 0." in result.stdout and "more than its budget of 0.5 s" in result.stdout
    assert "all 3 cases pass" in result.stdout
    assert not [line for line in result.stdout.splitlines() if "good.ipynb" in line and "FAILED" in line]
