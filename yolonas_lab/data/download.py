"""Fetching large files, which goes on where it broke off, and unpacking archives; both appear whole or not at all.

An unfinished file is kept as NAME.partial, with NAME.partial.json beside it, which says what it is a part of, so that a
file that has changed on the server meanwhile is not glued to the old beginning. Of a member's path in an archive only
the last part is used for writing, so an archive cannot write outside its folder.
"""

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
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from yolonas_lab.common import progress, progress_bar, write_json

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
    ValueError for a file with another digest.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    record = path.with_name(RECORD)
    records = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    expected = digest or records.get(path.name)
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
        write_json(record, records | {path.name: found})
    return path


def _fetch_rest(url: str, partial: Path, has_digest: bool) -> None:
    """One attempt: append to `partial` what is missing. Raises _BrokenOff where it is worth trying again.

    What is there is kept if the server can say that it is still a part of the same file, or a digest will.
    """
    origin = _origin_file(partial)
    known = json.loads(origin.read_text(encoding="utf-8")) if origin.is_file() else {}
    validator = known.get("validator") if known.get("url") == url else None
    headers, position = {"User-Agent": "yolonas_lab"}, _size(partial) if validator or has_digest else 0
    if position:
        headers |= {"Range": f"bytes={position}-"} | ({"If-Range": validator} if validator else {})
    try:
        answer = urlopen(Request(url, headers=headers), timeout=_TIMEOUT)
    except HTTPError as error:
        if error.code == 416:  # nothing lies beyond: the file is complete, or it is another one
            if error.headers.get("Content-Range", "").rpartition("/")[2] == str(position):
                return
            _discard(partial)
            raise _BrokenOff("the partial file did not fit and was dropped") from error
        reason = f"the server answered {error.code} {error.reason}"
        if error.code in _TRY_AGAIN:
            raise _BrokenOff(reason) from error
        raise ConnectionError(f"{url} cannot be fetched: {reason}; the file may have moved.") from error
    except (OSError, HTTPException) as error:  # URLError and TimeoutError are OSErrors
        raise _BrokenOff(str(getattr(error, "reason", error)) or type(error).__name__) from error
    with answer:
        if answer.status != 206:  # the server sends all of it
            position = 0
        elif not (sent := answer.headers.get("Content-Range", "")).startswith(f"bytes {position}-"):
            raise _BrokenOff(f"the server sent '{sent}' when asked for what follows byte {position}")
        etag = answer.headers.get("ETag", "W/")
        validator = answer.headers.get("Last-Modified") if etag.startswith("W/") else etag  # a weak one names no bytes
        write_json(origin, {"url": url, "validator": validator})
        _append(answer, partial, position)


def _append(answer: Any, partial: Path, position: int) -> None:
    length = answer.headers.get("Content-Length")
    total = position + int(length or 0)
    description = f"fetching {partial.name.removesuffix('.partial')}"
    with open(partial, "ab") as file, progress_bar(math.ceil(total / _MEGABYTE), description, "MB") as bar:
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
    if length is not None and position < total:
        raise _BrokenOff(f"the connection broke off after {position:,} of {total:,} bytes")


def _check_digest(file: Path, name: Path, expected: str | None, url: str) -> str:
    """The file's digest as "algorithm:hex"; ValueError if another one was expected."""
    algorithm, _, wanted = (expected or "sha256:").partition(":")
    with file.open("rb") as content:
        found = hashlib.file_digest(content, algorithm).hexdigest()
    if wanted and found != wanted.lower():
        raise ValueError(
            f"{name} from {url} is damaged, or not the file it should be: its {algorithm.upper()} is {found[:12]}…, "
            f"expected {wanted[:12]}…; delete it if it is still there, and run this again to fetch it anew."
        )
    return f"{algorithm}:{found}"


def _size(partial: Path) -> int:
    return partial.stat().st_size if partial.exists() else 0


def _origin_file(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def _discard(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _origin_file(partial).unlink(missing_ok=True)


def unpack_images(
    archives: Sequence[Path], folder: str | os.PathLike, wanted: Callable[[str], bool] = lambda name: True
) -> None:
    """Put all images of the archives whose path in the archive is `wanted` into one folder.

    The folder appears when everything is in it; a folder that is there already is taken as complete. Raises ValueError
    for a damaged archive, for two images of one name, and where there is no image at all.
    """
    folder = Path(folder)
    if folder.is_dir():
        return
    unfinished = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for archive in archives:
        images = _members(archive, lambda member: member.lower().endswith(_IMAGE_SUFFIXES) and wanted(member))
        for member, content in progress(images, f"unpacking {archive.name}", "image"):
            path = unfinished / member.rsplit("/", 1)[-1]
            if path.exists():
                raise ValueError(f"{archive} has an image {path.name}, of which there is another: unpack them apart.")
            if not path.name.startswith("."):
                path.write_bytes(content)
    if not any(unfinished.iterdir()):
        raise ValueError(f"{', '.join(map(str, archives))} holds none of the images looked for: is it the right file?")
    os.replace(unfinished, folder)


def read_texts(archive: str | os.PathLike, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """The contents of all files whose path in the archive is `wanted`, by that path; ValueError if it is damaged."""
    return dict(_members(Path(archive), wanted))


def read_member(archive: str | os.PathLike, name: str) -> bytes:
    """The content of the file whose path in the archive is, or ends with, `name`; ValueError if there is none."""
    for content in read_texts(archive, lambda member: f"/{member}".endswith(f"/{name}")).values():
        return content
    raise ValueError(f"{archive} holds no {name}: is it the right file?")


def _members(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Path and content of every wanted plain file of a .zip or .tar archive."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                for info in file.infolist():
                    if not info.is_dir() and wanted(info.filename):
                        yield info.filename, file.read(info)
        else:
            with tarfile.open(archive) as file:
                for member in file:
                    content = file.extractfile(member) if member.isfile() and wanted(member.name) else None
                    if content is not None:
                        yield member.name, content.read()
    except _DAMAGES as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(":")
        raise ValueError(f"{archive} is damaged ({reason}): delete it and run this again to fetch it anew.") from error
