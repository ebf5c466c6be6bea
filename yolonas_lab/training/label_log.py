"""What a labeling that was stopped had done: one line per image, so that hours of a teacher's work are never lost."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any


class LabelLog:
    """A file that grows by a line per image; its first line says what it is made with.

    Opened as a context manager. `entries` are the images that are done, by name, those of an earlier call included.
    Raises ValueError for a file that was made with something else.
    """

    def __init__(self, path: Path, made: Mapping[str, Any]) -> None:
        self.path, self.made = path, made
        self.entries: dict[str, dict[str, Any]] = {}
        self._file: IO[str] | None = None
        self._whole = 0  # bytes of complete lines
        if path.is_file():
            self._read()

    def _read(self) -> None:
        lines = self.path.read_bytes().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()  # stopped in the middle of a line
        for number, line in enumerate(lines):
            try:
                content = json.loads(line)
            except ValueError:
                raise ValueError(
                    f"Line {number + 1} of {self.path} is damaged: delete the file to start anew."
                ) from None
            if number:
                self.entries[content.pop("file_name")] = content
            elif found := different(content, self.made):
                raise ValueError(
                    f"{self.path} was begun with another {', '.join(found)}: delete it, or give another out_json."
                )
            self._whole += len(line)

    def __enter__(self) -> "LabelLog":
        self._file = open(self.path, "a", encoding="utf-8", newline="\n")
        self._file.truncate(self._whole)
        if not self._whole:
            self._write(dict(self.made))
        return self

    def __exit__(self, *_: object) -> None:
        assert self._file is not None
        self._file.close()

    def add(self, file_name: str, entry: Mapping[str, Any]) -> None:
        """Note what was found in an image."""
        self.entries[file_name] = dict(entry)
        self._write({"file_name": file_name, **entry})

    def delete(self) -> None:
        """The work is done and written elsewhere."""
        self.path.unlink(missing_ok=True)

    def _write(self, content: dict[str, Any]) -> None:
        assert self._file is not None
        self._file.write(json.dumps(content) + "\n")
        self._file.flush()


def different(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """The names of the settings in which two descriptions differ."""
    return sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
