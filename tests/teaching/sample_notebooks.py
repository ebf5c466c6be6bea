"""A small notebook with all that the tools deal with: a widget, an exercise, its check, an error that is meant."""

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

SAMPLE = "sample.ipynb"
HEADER = "# A sample\n\n**Goals**: see a wave. **Prerequisites**: none. **Time**: 5 minutes."
SET_UP = """import matplotlib.pyplot as plt
import numpy as np

from yolonas_lab.teaching import explore, figures, setup_notebook
from yolonas_lab.teaching.exercises import Case, Exercise

setup_notebook()


def double(x):
    return 2 * x


check_double = Exercise(double, ("Add.", "Add x to itself.", "x + x"), [Case((1,)), Case((2,))]).check
_ = plt.plot([1, 3, 2])"""
WIDGET = """def draw(frequency=2.0, kind="sine"):
    fig, ax = plt.subplots(figsize=(6, 2.5))
    x = np.linspace(0, 6, 200)
    ax.plot(x, {"sine": np.sin, "cosine": np.cos}[kind](frequency * x), color=figures.FP32)
    ax.set_title(f"frequency {frequency:.2f}")


explore(draw, frequency=(0.5, 4.0), kind=["sine", "cosine"])"""
EXERCISE = """def double(x):
    ### BEGIN SOLUTION
    {body}
    ### END SOLUTION"""
CHECK = "check_double(double)"
MEANT_ERROR = "check_double(lambda x: 3)"


def write_sample(path: Path, double: str = "return 2 * x") -> Path:
    """Write the sample notebook, not executed; `double` is the body of its exercise's solution."""
    cells = [
        new_markdown_cell(HEADER, id="header"),
        new_code_cell(SET_UP, id="set-up"),
        new_code_cell(WIDGET, id="widget"),
        new_code_cell(EXERCISE.format(body=double), id="exercise"),
        new_code_cell(CHECK, id="check"),
        new_code_cell(MEANT_ERROR, id="meant-error", metadata={"tags": ["raises-exception"]}),
    ]
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), str(path))
    return path
