"""One progress bar for everything that may take more than three seconds.

It shows itself only after those three seconds, disappears when done, and stays silent where YOLONAS_LAB_STATIC is
set, so that stored notebook outputs hold no clock times.
"""

import os
from collections.abc import Iterable
from typing import Any

SHOWN_AFTER = 3.0  # seconds


def progress(items: Iterable, description: str, unit: str = "it", total: int | None = None) -> Any:
    """Iterate over `items` behind a progress bar; `total` is needed only where the items have no length."""
    from tqdm.auto import tqdm

    return tqdm(items, **_settings(description, unit, total))


def progress_bar(total: int, description: str, unit: str = "it") -> Any:
    """A progress bar to move by hand: `with progress_bar(100, "drawing") as bar: … bar.update()`."""
    from tqdm.auto import tqdm

    return tqdm(**_settings(description, unit, total))


def _settings(description: str, unit: str, total: int | None) -> dict[str, Any]:
    silent = os.environ.get("YOLONAS_LAB_STATIC", "0") not in ("", "0")
    return {"desc": description, "unit": unit, "total": total, "delay": SHOWN_AFTER, "leave": False, "disable": silent}
