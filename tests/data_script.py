"""The scripts of data_scripts/, which are no package, as modules that a test can call."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

SCRIPTS = Path(__file__).resolve().parent.parent / "data_scripts"


def load_script(name: str) -> ModuleType:
    """data_scripts/NAME.py as a module."""
    if str(SCRIPTS) not in sys.path:  # as Python does for a script that it runs
        sys.path.append(str(SCRIPTS))
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look it up there
    spec.loader.exec_module(module)
    return module
