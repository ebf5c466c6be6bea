"""Taking images and single files out of .zip and .tar archives, however often it is interrupted. Used by data_scripts/.

A member's own path is never used for writing, only its last part, so an archive cannot write outside the folder.
"""

import gzip
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from yolonas_lab.progress import progress_bar

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
_DAMAGES = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError)

Read = Callable[[], bytes]


def unpack_images(
    archives: Sequence[Path], folder: str | os.PathLike, wanted: Callable[[str], bool] = lambda name: True
) -> int:
    """Put all images of the archives whose path in the archive is `wanted` into one folder; returns how many it holds.

    The folder appears when everything is in it; a folder that is there already is taken as complete, and what an
    interrupted call wrote is used. Raises ValueError for a damaged archive, for two images of one name, and where
    there is no image at all.
    """
    folder = Path(folder)
    if folder.is_dir():
        return sum(1 for _ in folder.iterdir())
    unfinished = folder.with_name(f".{folder.name}.partial")
    unfinished.mkdir(parents=True, exist_ok=True)
    names: set[str] = set()
    with progress_bar(0, f"unpacking {folder.name}", "image") as bar:
        for archive in archives:
            for member, size, read in _members(archive):
                name = member.rsplit("/", 1)[-1]
                if not name.lower().endswith(IMAGE_SUFFIXES) or name.startswith(".") or not wanted(member):
                    continue
                if name in names:
                    raise ValueError(
                        f"{archive} has an image {name}, and so has this or another archive: unpack apart."
                    )
                names.add(name)
                _write(unfinished / name, size, read)
                bar.update()
    if not names:
        raise ValueError(f"{', '.join(map(str, archives))} holds none of the images looked for: is it the right file?")
    for left_over in {path.name for path in unfinished.iterdir()} - names:
        (unfinished / left_over).unlink()
    os.replace(unfinished, folder)
    return len(names)


def read_member(archive: str | os.PathLike, name: str) -> bytes:
    """The content of the file whose path in the archive is, or ends with, `name`; ValueError if there is none."""
    for member, _, read in _members(Path(archive)):
        if member == name or member.endswith(f"/{name}"):
            return read()
    raise ValueError(f"{archive} holds no {name}: is it the right file?")


def read_texts(archive: str | os.PathLike, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """The contents of all files whose path in the archive is `wanted`, by that path."""
    return {member: read() for member, _, read in _members(Path(archive)) if wanted(member)}


def _write(path: Path, size: int, read: Read) -> None:
    if path.is_file() and path.stat().st_size == size:
        return
    content = read()
    path.write_bytes(content)  # cut short by a crash, it has another size and is written again


def _members(archive: Path) -> Iterator[tuple[str, int, Read]]:
    """Path, size in bytes and content of every plain file of an archive."""
    with _damage_named(archive):
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                for info in file.infolist():
                    if not info.is_dir():
                        yield info.filename, info.file_size, lambda f=file, i=info: _read(archive, lambda: f.read(i))
        else:
            with tarfile.open(archive) as file:
                for member in file:
                    if member.isfile():
                        yield member.name, member.size, lambda f=file, m=member: _read(archive, lambda: _whole(f, m))


def _whole(file: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content: IO[bytes] | None = file.extractfile(member)
    return b"" if content is None else content.read()


def _read(archive: Path, read: Read) -> bytes:
    with _damage_named(archive):
        return read()


@contextmanager
def _damage_named(archive: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGES as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(":")
        raise ValueError(f"{archive} is damaged ({reason}): delete it and run this again to fetch it anew.") from error
