"""The order of the rooms: a module imports from rooms before its own, never from later ones; the import is light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import yolonas_lab as yl

PACKAGE = Path(__file__).parents[1] / "yolonas_lab"
ORDER = (
    "common | boxes | detections | models data sources | losses | detect evaluate latency | training | quantization | "
    "deployment | search | experiments | teaching | cli cli_deploy __main__"
)
FLOOR = {room: floor for floor, rooms in enumerate(ORDER.split(" | ")) for room in rooms.split()}
LATE = {("models/yolo_nas.py", "detect")}  # model.predict is a method for the reader's convenience
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem != "__init__")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> set[str]:
    """Every module of the package that a file imports anywhere, also inside functions and for type checkers."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "yolonas_lab":
            inside = (node.module or "").split(".")[1:]
            found |= {".".join(inside)} if inside else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[2] for alias in node.names if alias.name.startswith("yolonas_lab")}
    return found - {""}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    here = FLOOR[room_of(path)]
    rooms = {module.split(".")[0] for module in imported_modules(path)}
    late = {room for room in rooms if FLOOR[room] > here and (path.relative_to(PACKAGE).as_posix(), room) not in LATE}
    assert not late, f"{path.name} stands before {', '.join(sorted(late))} in the order of rooms"


def test_no_file_is_a_hall_and_the_library_stays_small():
    lines = {path: len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert not {path.name: count for path, count in lines.items() if count > 450}
    parts = {"teaching": 8_000, "experiments": 2_600}
    for part, limit in parts.items():
        assert sum(count for path, count in lines.items() if room_of(path) == part) <= limit
    library = [count for path, count in lines.items() if room_of(path) not in parts]
    assert sum(library) <= 12_000 and len(library) <= 75


def test_import_loads_none_of_the_heavy_packages():
    code = "import sys, yolonas_lab; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"torch", "matplotlib", "pycocotools", "ipywidgets", "IPython", "onnx", "onnxruntime", "optuna", "nbclient"}
    assert heavy.isdisjoint(loaded)


def test_rooms_are_found_and_unknown_ones_named():
    assert yl.boxes.__name__ == "yolonas_lab.boxes" and "models" in dir(yl)
    with pytest.raises(AttributeError, match="has no 'modles'"):
        yl.modles  # noqa: B018
