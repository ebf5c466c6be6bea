import importlib.util
import json
from pathlib import Path

import pytest
from sample_notebooks import write_sample

from yolonas_lab.teaching import student
from yolonas_lab.teaching.notebooks import read_notebook, run_notebook
from yolonas_lab.teaching.student import blanked, main, student_version

BLANK_CELL = "def double(x):\n    # YOUR CODE HERE\n    raise NotImplementedError()"
nbgrader_only = pytest.mark.skipif(not importlib.util.find_spec("nbgrader"), reason="nbgrader is not installed here")


@pytest.fixture
def without_nbgrader(monkeypatch):
    monkeypatch.setattr(student, "has_nbgrader", lambda: False)


def spoil_outputs(path: Path) -> Path:
    """Store an output, a count and a stamp, as an executed notebook has them."""
    content = json.loads(path.read_text())
    content["cells"][4].update(execution_count=4, outputs=[{"output_type": "stream", "name": "stdout", "text": "✓"}])
    content["metadata"]["yolonas_lab"] = {"source": "0" * 64}
    path.write_text(json.dumps(content))
    return path


def check_student_notebook(path: Path) -> None:
    cells = read_notebook(path).cells
    assert cells[3].source == BLANK_CELL
    assert cells[3].metadata.nbgrader.solution and not cells[3].metadata.nbgrader.grade
    assert cells[4].metadata.nbgrader.grade and cells[4].metadata.nbgrader.points == 1
    assert "nbgrader" not in cells[5].metadata  # a check that is meant to fail
    assert "nbgrader" not in cells[1].metadata and "nbgrader" not in cells[0].metadata
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells[1:])
    assert "source" not in read_notebook(path).metadata["yolonas_lab"]


def test_blanks_are_written_without_nbgrader_and_it_is_said(tmp_path, capsys, without_nbgrader):
    source = spoil_outputs(write_sample(tmp_path / "sample.ipynb"))
    before = source.read_bytes()
    assert main([str(tmp_path / "out"), str(source)]) == 0
    said = capsys.readouterr().out
    assert "1 notebook with blanks written" in said and "pip install 'yolonas-lab[classroom]'" in said
    check_student_notebook(tmp_path / "out" / "sample.ipynb")
    assert source.read_bytes() == before


@nbgrader_only
def test_nbgrader_locks_and_checksums_the_graded_cells(tmp_path, capsys):
    source = spoil_outputs(write_sample(tmp_path / "sample.ipynb"))
    assert main([str(tmp_path / "out"), str(source)]) == 0
    assert "classroom" not in capsys.readouterr().out
    check_student_notebook(tmp_path / "out" / "sample.ipynb")
    solution, check = read_notebook(tmp_path / "out" / "sample.ipynb").cells[3:5]
    assert check.metadata.editable is False and check.metadata.deletable is False and check.metadata.nbgrader.checksum
    assert solution.metadata.deletable is False and "editable" not in solution.metadata


@nbgrader_only
def test_own_blanks_are_those_of_nbgrader(tmp_path, monkeypatch):
    notebooks = []
    for available in (True, False):
        monkeypatch.setattr(student, "has_nbgrader", lambda available=available: available)
        path = write_sample(tmp_path / f"{available}.ipynb", double="if x:\n        return 2 * x\n    return x")
        notebooks.append(student_version(read_notebook(path), path.name))
    assert [cell.source for cell in notebooks[0].cells] == [cell.source for cell in notebooks[1].cells]


def test_blanks_keep_the_indent_and_what_stands_around_them():
    source = (
        "a = 1\nif a:\n    ### BEGIN SOLUTION\n    b = 2\n\n    ### END SOLUTION\n    c = 3\n"
        "### BEGIN SOLUTION\nd\n### END SOLUTION"
    )
    assert blanked(source, "x") == (
        "a = 1\nif a:\n    # YOUR CODE HERE\n    raise NotImplementedError()\n    c = 3\n"
        "# YOUR CODE HERE\nraise NotImplementedError()"
    )
    assert blanked("plain\n", "x") == "plain\n"


@pytest.mark.parametrize(
    "source",
    [
        "### BEGIN SOLUTION\n1",
        "1\n### END SOLUTION",
        "### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION",
    ],
)
def test_solutions_without_a_partner_are_refused_and_nothing_is_written(tmp_path, capsys, source):
    with pytest.raises(ValueError, match="x, cell 1 has a BEGIN"):
        blanked(source, "x, cell 1")
    path = write_sample(tmp_path / "bad.ipynb", double=source.replace("\n", "\n    "))
    good = write_sample(tmp_path / "a.ipynb")
    assert main([str(tmp_path / "out"), str(good), str(path)]) == 2
    assert f"error: {path}, cell 4 has a BEGIN" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_answers_that_are_there_are_not_overwritten(tmp_path, capsys):
    path = write_sample(tmp_path / "sample.ipynb")
    before = path.read_bytes()
    assert main([str(tmp_path), str(path)]) == 2
    assert "sample.ipynb is there already: delete it or choose another folder" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_metadata_of_the_author_is_kept(tmp_path, without_nbgrader):
    notebook = read_notebook(write_sample(tmp_path / "sample.ipynb"))
    notebook.cells[4].metadata["nbgrader"] = {"grade": True, "grade_id": "mine", "points": 5}
    student.mark_exercises(notebook)
    assert notebook.cells[4].metadata["nbgrader"]["points"] == 5


@pytest.mark.slow
def test_own_copies_are_never_overwritten_and_run_on_past_open_exercises(tmp_path):
    first, second = (write_sample(tmp_path / f"{name}.ipynb") for name in ("first", "second"))
    own = tmp_path / "own"
    assert main([str(own), str(first), "--own"]) == 0
    copy = own / "first.ipynb"
    cells = read_notebook(copy).cells
    assert cells[3].source == BLANK_CELL and "raises-exception" in cells[4].metadata.tags
    assert not any("nbgrader" in cell.metadata for cell in cells)
    copy.write_text(copy.read_text().replace("# YOUR CODE HERE", "# mine"))
    mine = copy.read_bytes()
    assert main([str(own), str(first), str(second), "--own"]) == 0
    assert copy.read_bytes() == mine and (own / "second.ipynb").exists()
    assert run_notebook(copy).error == ""
    ran = read_notebook(copy).cells
    assert "is not written yet" in str(ran[4].outputs) and ran[-1].execution_count == 5
