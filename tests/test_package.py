import subprocess
import sys

import pytest

import yolonas_lab as yl


def test_import_loads_none_of_the_heavy_packages():
    code = "import sys, yolonas_lab; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"torch", "matplotlib", "pycocotools", "ipywidgets", "IPython", "onnx", "onnxruntime", "optuna", "nbclient"}
    assert heavy.isdisjoint(loaded)


def test_rooms_are_found_and_unknown_ones_named():
    assert yl.boxes.__name__ == "yolonas_lab.boxes" and "models" in dir(yl)
    with pytest.raises(AttributeError, match="has no 'modles'"):
        yl.modles  # noqa: B018
