"""Every TensorRT name and argument that the library uses, checked by pyright against the type stubs of TensorRT 10.

The stubs leave an empty `tensorrt` behind where TensorRT is not installed, so they want an environment of their own,
which `make stubs` makes; TENSORRT_STUBS_VENV names another place for it. Without one these tests are skipped.
"""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
VENV = Path(os.environ.get("TENSORRT_STUBS_VENV", ROOT / ".venv-stubs"))
PYRIGHT = VENV / "bin" / "pyright"
MODULES = ("tensorrt", "detectors")

pytestmark = pytest.mark.skipif(
    not PYRIGHT.exists(),
    reason=f"there is no {VENV} with tensorrt-stubs and pyright: make it with `make stubs`",
)


TYPES = {"builder": "Builder", "network": "INetworkDefinition", "config": "IBuilderConfig", "engine": "ICudaEngine"}
TYPES |= {"parser": "OnnxParser", "severity": "ILogger.Severity"}


def with_stubs(source: str) -> str:
    """The module with `trt` meaning TensorRT 10 itself, where the library takes whichever module is handed in.

    Parameters get TensorRT's types by their names; results that are Any are left to be inferred.
    """
    for name, type_name in TYPES.items():
        source = source.replace(f"{name}: Any", f"{name}: trt.{type_name}")
    source = source.replace("recorder(trt)", "recorder(None)")  # pyright holds modules for unhashable
    source = re.sub(r" -> (Any|tuple\[Any, Any\]):", ":", source)
    source = source.replace("trt: ModuleType", "module: ModuleType").replace("self._trt.", "trt.")
    source = re.sub(r"\n +trt = trt or find_tensorrt\(.*\)", "", source)
    future = "from __future__ import annotations\n"
    assert future in source
    return source.replace(future, f"{future}\nimport tensorrt as trt\n", 1)


def complaints(folder: Path, sources: dict[str, str]) -> list[str]:
    """What pyright has against these modules."""
    for name, source in sources.items():
        (folder / f"checked_{name}.py").write_text(source, encoding="utf-8")
    settings = {"reportMissingImports": False, "reportMissingModuleSource": False, "extraPaths": [str(ROOT)]}
    (folder / "pyrightconfig.json").write_text(json.dumps({**settings, "pythonVersion": "3.11"}))
    command = [str(PYRIGHT), "--outputjson", "--pythonpath", str(VENV / "bin" / "python"), "-p", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    rows = json.loads(result.stdout)["generalDiagnostics"]
    return [row["message"] for row in rows if row["severity"] == "error"]


def test_every_name_exists_and_one_that_does_not_is_seen(tmp_path):
    folder = ROOT / "yolonas_lab" / "deployment"
    sources = {name: with_stubs((folder / f"{name}.py").read_text(encoding="utf-8")) for name in MODULES}
    assert complaints(tmp_path, sources) == []
    assert "execute_async_v3(" in sources["detectors"]
    sources["detectors"] = sources["detectors"].replace("execute_async_v3(", "execute_async_v4(")
    [found] = complaints(tmp_path, sources)
    assert "execute_async_v4" in found
