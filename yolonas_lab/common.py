"""What every room needs: files written whole, fingerprints, progress bars, honest timing and clear refusals."""

import dataclasses
import difflib
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn


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


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Write a file whole or not at all, see `write_atomically`; returns the path."""
    return write_atomically(Path(path), lambda file: file.write(content))


def write_json(path: str | Path, content: Any) -> Path:
    """Write plain values as JSON for people and programs, whole or not at all; returns the path.

    Raises ValueError for NaN and infinity, which JSON does not know.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return write_bytes(path, text.encode())


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a power cut; Windows knows no such call for folders."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fingerprint(content: Any, digits: int = 64) -> str:
    """SHA-256 (its first hex digits) of plain values in whatever order of keys, or of a text or bytes as they are."""
    if not isinstance(content, (str, bytes)):
        content = json.dumps(content, sort_keys=True)
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:digits]


def decisive(settings: Any, first: Container[str], free: Container[str] = ()) -> dict[str, Any]:
    """What a fingerprint takes in of a dataclass of settings, as plain values by name: the fields `first`, which it had
    when fingerprints began to be stored, and of the others, but for the `free` ones, those that are not at their
    default. So a field that is added later changes no fingerprint of what was made before.
    """
    plain = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if field.name not in free and (field.name in first or value != default):
            plain[field.name] = value
    return plain


def changes(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """In which settings a file was made otherwise, such as "lr (0.005 there, 0.001 now)"; "" where in none."""

    def short(value: Any) -> str:
        text = repr(value)
        return text if len(text) <= 60 else text[:57] + "…"

    names = [name for name in {**wanted, **saved} if saved.get(name) != wanted.get(name)]
    return ", ".join(f"{name} ({short(saved.get(name))} there, {short(wanted.get(name))} now)" for name in names)


def weights_digest(model: nn.Module) -> str:
    """SHA-256 (64 hex digits) over names, types, shapes and bytes of everything in the model's state dict."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


SHOWN_AFTER = 3.0  # seconds; a progress bar for less would only flicker


def progress(items: Iterable, description: str, unit: str = "it", total: int | None = None) -> Any:
    """Iterate over `items` behind a progress bar; `total` is needed only where the items have no length.

    It shows itself after three seconds, disappears when done, and stays silent where YOLONAS_LAB_STATIC is set, so that
    stored notebook outputs hold no clock times.
    """
    from tqdm.auto import tqdm

    return tqdm(items, **_settings(description, unit, total))


def progress_bar(total: int, description: str, unit: str = "it") -> Any:
    """A progress bar to move by hand: `with progress_bar(100, "drawing") as bar: … bar.update()`."""
    from tqdm.auto import tqdm

    return tqdm(**_settings(description, unit, total))


def _settings(description: str, unit: str, total: int | None) -> dict[str, Any]:
    silent = os.environ.get("YOLONAS_LAB_STATIC", "0") not in ("", "0")
    return {"desc": description, "unit": unit, "total": total, "delay": SHOWN_AFTER, "leave": False, "disable": silent}


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one candidate over all rounds: the median, and the quartiles around it."""

    name: str
    median_ms: float
    low_ms: float
    high_ms: float

    def __str__(self) -> str:
        return f"{self.name}: {self.median_ms:.1f} ms (quartiles {self.low_ms:.1f} to {self.high_ms:.1f})"


def time_side_by_side(
    candidates: Mapping[str, Callable[[], object]],
    rounds: int = 15,
    warmup: int = 2,
    clock: Callable[[], float] | None = None,
    lead_in: int = 0,
) -> dict[str, Timing]:
    """Time every candidate once per round, in turn, and return its Timing by name.

    Absolute times on a shared machine are noise; ratios of runs that alternate in one loop are not (notebook 03).
    `warmup` rounds are run and thrown away. Right before it is timed, a candidate runs `lead_in` times untimed: then it
    finds its own data in the processor's caches, however many others take turns with it. The clock (seconds) defaults
    to the process's CPU time, which other programs on the machine disturb least; it counts all threads, so compare at
    one thread. Raises ValueError for no candidates or no rounds.
    """
    if not candidates or rounds < 1:
        raise ValueError(
            f"There is nothing to time: {len(candidates)} candidates, {rounds} rounds; give at least one of each."
        )
    clock = clock or time.process_time
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for round_index in progress(range(-warmup, rounds), "timing", "round"):
        for name, run in candidates.items():
            for _ in range(lead_in):
                run()
            start = clock()
            run()
            if round_index >= 0:
                seconds[name].append(clock() - start)
    return {name: _summary(name, values) for name, values in seconds.items()}


def _summary(name: str, seconds: list[float]) -> Timing:
    low, median, high = (torch.tensor(seconds, dtype=torch.float64).quantile(q).item() * 1e3 for q in (0.25, 0.5, 0.75))
    return Timing(name, median, low, high)


def machine_name() -> str:
    """The machine in words, to stand beside every number measured on it: processor, cores, threads in use, torch
    version.
    """
    cores = os.cpu_count()
    threads = torch.get_num_threads()
    return f"{_processor()}, {cores} cores, {threads} thread{'s' * (threads != 1)} used, torch {torch.__version__}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:  # not Linux
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def unknown_name(what: str, name: object, choices: Iterable[str]) -> str:
    """One sentence for an unknown name: what it was, the nearest match if there is one, and every valid choice."""
    choices = list(choices)
    close = difflib.get_close_matches(str(name), choices, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"Unknown {what} '{name}'; {hint}choose one of: {', '.join(choices)}."


def check_same_classes(names: Iterable[str], of: str, others: Iterable[str], of_others: str) -> None:
    """Raise ValueError, naming both lists and what has them, unless they are the same classes in the same order."""
    names, others = list(names), list(others)
    if names != others:
        raise ValueError(
            f"{of} has the classes {', '.join(names)} and {of_others} has {', '.join(others)}: they must be the same, "
            f"in the same order."
        )


def check_image_size(image_size: Any, name: str = "image_size") -> int:
    """The side of the network's square input in px. Raises ValueError unless it is a positive multiple of 32, the
    coarsest stride of the network.
    """
    if not isinstance(image_size, int) or isinstance(image_size, bool) or image_size < 32 or image_size % 32:
        raise ValueError(f"{name} is {image_size!r}: give a multiple of 32 px.")
    return image_size
