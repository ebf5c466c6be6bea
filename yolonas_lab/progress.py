"""One progress bar for everything that may take more than three seconds.

It shows itself only after those three seconds, disappears when done, and stays silent where YOLONAS_LAB_STATIC is
set, so that stored notebook outputs hold no clock times.
"""

import os
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
SHOWN_AFTER = 3.0  # seconds


def progress(items: Iterable[T], description: str, unit: str = "it", total: int | None = None) -> Iterator[T]:
    """Iterate over `items` behind a progress bar; `total` is needed only where the items have no length."""
    from tqdm.auto import tqdm

    silent = os.environ.get("YOLONAS_LAB_STATIC", "0") not in ("", "0")
    if silent:
        return iter(items)
    return iter(tqdm(items, desc=description, unit=unit, total=total, delay=SHOWN_AFTER, leave=False))
