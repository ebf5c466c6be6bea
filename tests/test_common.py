"""Files that are whole or not there."""

import os

import pytest

from yolonas_lab import common as files
from yolonas_lab.common import write_atomically


def test_bytes_and_text_are_written_and_the_path_returned(tmp_path):
    path = tmp_path / "a.bin"
    assert write_atomically(path, lambda file: file.write(b"\r\n")) == path
    assert path.read_bytes() == b"\r\n"
    write_atomically(path, lambda file: file.write("é\n"), text=True)
    assert path.read_bytes().decode() == "é\n"  # newlines as given on every system
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failure_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a.bin"
    path.write_bytes(b"before")

    def fail(file):
        file.write(b"half")
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, fail)
    assert path.read_bytes() == b"before" and os.listdir(tmp_path) == ["a.bin"]


def test_the_old_content_is_there_until_all_of_the_new_is_on_the_disk(tmp_path, monkeypatch):
    path, order = tmp_path / "a.bin", []
    path.write_bytes(b"before")
    fsync, replace = os.fsync, os.replace

    def sync(descriptor):
        order.append(("sync", path.read_bytes()))
        fsync(descriptor)

    def rename(source, target):
        order.append(("rename", path.read_bytes()))
        assert source.read_bytes() == b"after"
        replace(source, target)

    monkeypatch.setattr(files.os, "fsync", sync)
    monkeypatch.setattr(files.os, "replace", rename)
    write_atomically(path, lambda file: file.write(b"after"))
    assert order[:2] == [("sync", b"before"), ("rename", b"before")]
    assert os.name == "nt" or order[2:] == [("sync", b"after")]  # the folder


def test_leftovers_of_a_killed_process_are_overwritten(tmp_path):
    (tmp_path / "a.bin.partial").write_bytes(b"a longer leftover")
    write_atomically(tmp_path / "a.bin", lambda file: file.write(b"new"))
    assert (tmp_path / "a.bin").read_bytes() == b"new" and os.listdir(tmp_path) == ["a.bin"]


def test_a_missing_folder_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "nowhere" / "a.bin", lambda file: file.write(b""))
