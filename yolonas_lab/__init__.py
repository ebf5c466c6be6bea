"""yolonas_lab: YOLO-NAS taught by building it, from boxes to an INT8 engine. Start with notebooks/00_start_here.ipynb.

The rooms are loaded when first used: `import yolonas_lab as yl`, then `yl.models.get("yolo_nas_s")`.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = [
    "boxes",
    "data",
    "deployment",
    "detect",
    "evaluate",
    "experiments",
    "losses",
    "models",
    "quantization",
    "search",
    "teaching",
    "training",
]

if TYPE_CHECKING:
    from yolonas_lab import (
        boxes,
        data,
        deployment,
        detect,
        evaluate,
        experiments,
        losses,
        models,
        quantization,
        search,
        teaching,
        training,
    )


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"yolonas_lab.{name}")
    raise AttributeError(f"yolonas_lab has no '{name}'; it has: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
