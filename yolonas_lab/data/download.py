"""Fetching large files and unpacking archives: both go on where they broke off, check, and appear whole or not at all.

An unfinished file is kept as NAME.partial, with NAME.partial.json beside it, which says what it is a part of, so that a
file that has changed on the server meanwhile is not glued to the old beginning. Of a member's path in an archive only
the last part is used for writing, so an archive cannot write outside its folder.
"""

import contextlib
import gzip
import hashlib
import json
import math
import os
import shutil
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from yolonas_lab.common import progress_bar, write_json

RECORD = "checksums.json"  # beside the files: the SHA-256 of those whose publisher gives no digest, from the first time
ATTEMPTS = 6
_TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 2**20
_MEGABYTE = 10**6
_TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)  # answers of a server that may do better in a moment
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
# what Python's readers of archives raise on damaged bytes, on encrypted members and on unknown compressions
_DAMAGES = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, RuntimeError)


class _BrokenOff(Exception):
    """The connection ended early, or there was none; another attempt may go on."""


def download(url: str, path: str | os.PathLike, digest: str | None = None, pause: float = 1.0) -> Path:
    """Fetch url (http or https) to path, with a progress bar; a complete file that is there already is only checked.

    digest is "md5:…" or "sha256:…" in hex. Without one, the SHA-256 of the first download is recorded beside the file,
    and every later one must have it too. A connection that breaks off is taken up again after growing pauses (seconds),
    until ATTEMPTS in a row bring nothing, and by the next call. Raises ConnectionError where the file cannot be had,
    ValueError for a file with another digest, OSError for a full disk.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    expected = digest or _records(path).get(path.name)
    if path.is_file():
        _check_digest(path, path, expected, url)
        return path
    partial = path.with_name(f"{path.name}.partial")
    failures = 0
    while True:
        before = _size(partial)
        try:
            _fetch_rest(url, partial, expected is not None)
            break
        except _BrokenOff as problem:
            failures = 1 if _size(partial) > before else failures + 1
            if failures == ATTEMPTS:
                raise ConnectionError(
                    f"{url} cannot be fetched ({problem}); {_size(partial) / _MEGABYTE:.1f} MB are kept: "
                    "check the network and run this again to go on from there."
                ) from None
            time.sleep(pause * 2 ** (failures - 1))
    try:
        found = _check_digest(partial, path, expected, url)
    except ValueError:
        _discard(partial)
        raise
    os.replace(partial, path)
    _discard(partial)
    if expected is None:
        write_json(path.with_name(RECORD), _records(path) | {path.name: found})
    return path


def _fetch_rest(url: str, partial: Path, has_digest: bool) -> None:
    """One attempt: append to `partial` what is missing. Raises _BrokenOff where it is worth trying again."""
    position, headers = _start(url, partial, has_digest)
    try:
        answer = urlopen(Request(url, headers={"User-Agent": "yolonas_lab", **headers}), timeout=_TIMEOUT)
    except HTTPError as error:
        if error.code == 416 and position:  # nothing lies beyond: the file is complete, or it is another one
            if error.headers.get("Content-Range", "").rpartition("/")[2] == str(position):
                return
            _discard(partial)
            raise _BrokenOff("the partial file did not fit and was dropped") from error
        reason = f"the server answered {error.code} {error.reason}"
        if error.code in _TRY_AGAIN:
            raise _BrokenOff(reason) from error
        raise ConnectionError(f"{url} cannot be fetched: {reason}; the file may have moved.") from error
    except ValueError as error:
        raise ValueError(f"{url} is no address: give one that begins with http:// or https://.") from error
    except (OSError, HTTPException) as error:  # URLError and TimeoutError are OSErrors
        raise _BrokenOff(str(getattr(error, "reason", error)) or type(error).__name__) from error
    with answer:
        if answer.status != 206:  # the server sends all of it
            position = 0
        elif not (sent := answer.headers.get("Content-Range", "")).startswith(f"bytes {position}-"):
            raise _BrokenOff(f"the server sent '{sent}' when asked for what follows byte {position}")
        length = answer.headers.get("Content-Length")
        total = position + int(length) if length is not None else None
        if total is not None and total - position > (free := shutil.disk_usage(partial.parent).free):
            raise OSError(
                f"{partial.parent} has {free / 1e9:.1f} GB of free space, but {(total - position) / 1e9:.1f} GB more "
                "are needed: make room or choose another folder."
            )
        etag = answer.headers.get("ETag")
        strong = etag and not etag.startswith("W/")
        validator = etag if strong else answer.headers.get("Last-Modified")  # what identifies this version of the file
        write_json(_origin_file(partial), {"url": url, "validator": validator})
        _copy(answer, partial, position, total)


def _start(url: str, partial: Path, has_digest: bool) -> tuple[int, dict[str, str]]:
    """How many bytes can be kept, and the headers that ask for the rest.

    The partial file is kept if the server can say that it is still a part of the same file, or a digest will.
    """
    position = _size(partial)
    try:
        origin = json.loads(_origin_file(partial).read_text(encoding="utf-8"))
        validator = origin["validator"] if origin["url"] == url else None
    except (OSError, ValueError, KeyError, TypeError):
        validator = None
    if position == 0 or (validator is None and not has_digest):
        return 0, {}
    return position, {"Range": f"bytes={position}-"} | ({} if validator is None else {"If-Range": validator})


def _copy(answer: Any, partial: Path, position: int, total: int | None) -> None:
    description = f"fetching {partial.name.removesuffix('.partial')}"
    with open(partial, "ab") as file, progress_bar(math.ceil((total or 0) / _MEGABYTE), description, "MB") as bar:
        file.truncate(position)
        while True:
            bar.update(position // _MEGABYTE - bar.n)
            try:
                chunk = answer.read(_CHUNK)
            except (OSError, HTTPException) as error:
                raise _BrokenOff(f"the connection broke off: {error or type(error).__name__}") from error
            if not chunk:
                break
            file.write(chunk)
            position += len(chunk)
    if total is not None and position < total:
        raise _BrokenOff(f"the connection broke off after {position:,} of {total:,} bytes")


def _check_digest(file: Path, name: Path, expected: str | None, url: str) -> str:
    """The file's digest as "algorithm:hex"; ValueError if another one was expected."""
    algorithm, _, wanted = (expected or "sha256:").partition(":")
    found = file_digest(file, algorithm)
    if wanted and found != wanted.lower():
        raise ValueError(
            f"{name} from {url} is damaged, or not the file it should be: its {algorithm.upper()} is {found[:12]}…, "
            f"expected {wanted[:12]}…; delete it if it is still there, and run this again to fetch it anew."
        )
    return f"{algorithm}:{found}"


def file_digest(path: str | os.PathLike, algorithm: str = "sha256") -> str:
    """Hexadecimal digest of a file's bytes, by any algorithm that hashlib knows, with a progress bar."""
    path, total = Path(path), hashlib.new(algorithm)
    megabytes = math.ceil(path.stat().st_size / _MEGABYTE)
    with path.open("rb") as file, progress_bar(megabytes, f"checking {path.name}", "MB") as bar:
        while chunk := file.read(_CHUNK):
            total.update(chunk)
            bar.update(file.tell() // _MEGABYTE - bar.n)
    return total.hexdigest()


def _records(path: Path) -> dict[str, str]:
    """The recorded digests of the files beside `path`, by name."""
    record = path.with_name(RECORD)
    try:
        return dict(json.loads(record.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError):
        raise ValueError(f"{record} is not a list of checksums: delete it to record them anew.") from None


def _size(partial: Path) -> int:
    return partial.stat().st_size if partial.exists() else 0


def _origin_file(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def _discard(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _origin_file(partial).unlink(missing_ok=True)


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
            with _damage_named(archive):
                for member, size, read in _members(archive):
                    name = member.rsplit("/", 1)[-1]
                    if not name.lower().endswith(_IMAGE_SUFFIXES) or name.startswith(".") or not wanted(member):
                        continue
                    if name in names:
                        raise ValueError(
                            f"{archive} has an image {name}, and so has this or another archive: unpack apart."
                        )
                    names.add(name)
                    path = unfinished / name
                    if not path.is_file() or path.stat().st_size != size:  # cut short by a crash, it has another size
                        path.write_bytes(read())
                    bar.update()
    if not names:
        raise ValueError(f"{', '.join(map(str, archives))} holds none of the images looked for: is it the right file?")
    for left_over in {path.name for path in unfinished.iterdir()} - names:
        (unfinished / left_over).unlink()
    os.replace(unfinished, folder)
    return len(names)


def read_texts(archive: str | os.PathLike, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """The contents of all files whose path in the archive is `wanted`, by that path; ValueError if it is damaged."""
    with _damage_named(Path(archive)):
        return {member: read() for member, _, read in _members(Path(archive)) if wanted(member)}


def read_member(archive: str | os.PathLike, name: str) -> bytes:
    """The content of the file whose path in the archive is, or ends with, `name`; ValueError if there is none."""
    for content in read_texts(archive, lambda member: f"/{member}".endswith(f"/{name}")).values():
        return content
    raise ValueError(f"{archive} holds no {name}: is it the right file?")


def _members(archive: Path) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    """Path, size in bytes and content of every plain file of a .zip or .tar archive."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            for info in file.infolist():
                if not info.is_dir():
                    yield info.filename, info.file_size, lambda file=file, info=info: file.read(info)
    else:
        with tarfile.open(archive) as file:
            for member in file:
                content: IO[bytes] | None = file.extractfile(member) if member.isfile() else None
                if content is not None:
                    yield member.name, member.size, content.read


@contextlib.contextmanager
def _damage_named(archive: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGES as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(":")
        raise ValueError(f"{archive} is damaged ({reason}): delete it and run this again to fetch it anew.") from error
