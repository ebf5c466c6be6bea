"""Files that are either whole or not there: a process killed while writing leaves the previous version intact."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[Any], object], text: bool = False) -> Path:
    """Call write(file) on a file beside `path`, flush it to the disk, and only then give it its name.

    The file beside it always has the same name, so that killed processes leave at most one. Raises OSError, with the
    unfinished file removed and what was at `path` before untouched.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with open(partial, "w" if text else "wb", newline="" if text else None) as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return path


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a power cut; Windows knows no such call for folders."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
