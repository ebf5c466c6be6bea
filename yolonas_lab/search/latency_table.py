"""Milliseconds by operation: measured here once and kept in a file, or brought from another machine. Notebook 09.

A table says on which machine, with which engine and at which image size it was measured, and is refused elsewhere.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yolonas_lab.search.layer_times import ENGINES, machine_for, time_layers
from yolonas_lab.search.layers import KINDS, Layer, parse_layer
from yolonas_lab.suggest import unknown_name
from yolonas_lab.training.files import write_atomically


@dataclass(frozen=True)
class LatencyTable:
    """Milliseconds of operations, with where and how they were measured.

    `kinds` are the kinds of operations that the table counts. A GPU's compiler leaves hardly anything of the others:
    its table holds convolutions alone.
    """

    machine: str
    engine: str
    image_size: int  # px, of the networks that the operations come from
    layers: Mapping[Layer, float]
    kinds: tuple[str, ...] = KINDS

    def total_ms(self, layers: Iterable[Layer]) -> float:
        """The sum over operations, of the kinds that count. Raises ValueError naming one that the table lacks."""
        counted = [layer for layer in layers if layer.kind in self.kinds]
        if missing := [layer for layer in dict.fromkeys(counted) if layer not in self.layers]:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise ValueError(
                f"The latency table lacks '{missing[0]}'{more}: measure the operations of the whole space "
                "(space_layers) at this image size and number of classes."
            )
        return sum(self.layers[layer] for layer in counted)


def measure_table(
    layers: Iterable[Layer], image_size: int, engine: str = "torch", folder: str | Path | None = None, rounds: int = 15
) -> LatencyTable:
    """Time operations on this machine, see `time_layers`; with a folder they are kept there, and only those that the
    folder has not yet from this machine, engine and image_size are timed.

    Raises ValueError as `time_layers` does and for an unreadable file, FileNotFoundError for a missing folder.
    """
    table = LatencyTable(machine_for(engine), engine, image_size, {})
    path = None
    if folder is not None:
        path = table_path(folder, table)
        table = load_table(path) if path.is_file() else table
    wanted = list(dict.fromkeys(layers))
    if missing := [layer for layer in wanted if layer not in table.layers]:
        table = replace(table, layers={**table.layers, **time_layers(missing, engine, rounds)})
        if path is not None:
            save_table(table, path)
    return table


def table_path(folder: str | Path, table: LatencyTable) -> Path:
    """The file for a table in a folder of tables; every machine, engine and image size has its own."""
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"There is no folder {folder} to keep latencies in: make it first.")
    key = hashlib.sha256(f"{table.machine}, {table.engine}".encode()).hexdigest()[:8]
    return Path(folder) / f"latency_{table.engine.replace(' ', '_')}_{table.image_size}px_{key}.json"


def save_table(table: LatencyTable, path: str | Path) -> Path:
    """Write a table as JSON, {"machine": …, "engine": …, "image_size": …, "kinds": […], "layers": {"conv 16→24 3×3/2
    at 32 px": ms, …}}, atomically; returns the path.
    """
    text = json.dumps(table_content(table), indent=1, ensure_ascii=False) + "\n"
    return write_atomically(Path(path), lambda file: file.write(text.encode()))


def load_table(path: str | Path, machine: str | None = None) -> LatencyTable:
    """Read a table of this machine, or of the machine that is named as the file says it.

    Raises ValueError naming the file for one of another machine, and for what is not such a table.
    """
    content = read_json(path)
    try:
        table = table_of(content)
    except ValueError as error:
        raise ValueError(f"{path} is not a latency table: {error}") from error
    check_machine(table, path, machine)
    return table


def check_machine(table: LatencyTable, path: str | Path, machine: str | None) -> None:
    """Raise ValueError naming the file unless its table is of the machine named, by default this one."""
    if machine is None and table.engine not in ENGINES:
        raise ValueError(f"{path} was measured on '{table.machine}': to search for it, give machine='{table.machine}'.")
    expected = machine_for(table.engine) if machine is None else machine
    if table.machine != expected:
        raise ValueError(
            f"{path} was measured on '{table.machine}', and the search is for '{expected}': measure there, or give "
            "machine as the file says it."
        )


def merge_tables(tables: Iterable[LatencyTable]) -> LatencyTable:
    """All operations of several tables, the mean where several have one: profiles of some networks make a table for
    many. Raises ValueError for no tables, and for tables of different machines, engines, image sizes or kinds.
    """
    tables = list(tables)
    if not tables:
        raise ValueError("There are no tables to merge: give at least one.")
    times: dict[Layer, list[float]] = {}
    for table in tables:
        if replace(table, layers={}) != replace(tables[0], layers={}):
            raise ValueError(
                f"Tables of '{tables[0].machine}' and '{table.machine}' do not go together: machine, engine, "
                "image_size and kinds must be the same."
            )
        for layer, ms in table.layers.items():
            times.setdefault(layer, []).append(ms)
    return replace(tables[0], layers={layer: math.fsum(values) / len(values) for layer, values in times.items()})


def read_json(path: str | Path) -> Any:
    """What a JSON file holds. Raises ValueError naming the file where it is not readable."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not readable as JSON ({error}).") from error


def table_content(table: LatencyTable) -> dict[str, Any]:
    """A table as what JSON can hold."""
    layers = {str(layer): ms for layer, ms in table.layers.items()}
    about = {"machine": table.machine, "engine": table.engine, "image_size": table.image_size}
    return {**about, "kinds": list(table.kinds), "layers": layers}


def table_of(content: Any) -> LatencyTable:
    """The table that `table_content` wrote. Raises ValueError naming the entry that is wrong."""
    keys = ("machine", "engine", "image_size", "layers")
    if not isinstance(content, dict) or any(key not in content for key in keys):
        raise ValueError(f"it needs the entries {', '.join(keys)}.")
    kinds = tuple(content.get("kinds", KINDS))
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(unknown_name("kind", kind, KINDS))
    if not isinstance(content["layers"], dict):
        raise ValueError(f"layers is a {type(content['layers']).__name__}: give operations with their milliseconds.")
    if not isinstance(content["image_size"], int):
        raise ValueError(f"image_size is {content['image_size']!r}: give the side of the images in px.")
    layers = {}
    for name, ms in content["layers"].items():
        if not isinstance(ms, (int, float)) or isinstance(ms, bool) or not 0 < ms < math.inf:
            raise ValueError(f"the time of '{name}' is {ms!r}: give a positive number of milliseconds.")
        layers[parse_layer(name)] = float(ms)
    return LatencyTable(str(content["machine"]), str(content["engine"]), content["image_size"], layers, kinds)
