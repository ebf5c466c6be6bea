"""Large files from a server that breaks off, lies, changes its mind or is not there; and archives that are damaged."""

import hashlib
import json

import numpy as np
import pytest
from archives import tar_of, zip_of
from file_server import running_server

from yolonas_lab.data.download import ATTEMPTS, RECORD, download, read_member, read_texts, unpack_images

CONTENT = np.random.default_rng(0).integers(0, 256, 50_000, dtype=np.uint8).tobytes()
OTHER = CONTENT[::-1]
MD5, SHA256 = hashlib.md5(CONTENT).hexdigest(), hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    with running_server() as files:
        files.files["/a.zip"] = CONTENT
        yield files


def fetch(server, path, digest=None, url="/a.zip"):
    return download(server.url + url, path, digest, pause=0.001)


def left_overs(folder):
    return sorted(p.name for p in folder.iterdir() if p.name not in ("a.zip", RECORD))


def test_a_file_is_fetched_once_and_only_checked_after_that(server, tmp_path):
    path = tmp_path / "new" / "a.zip"
    assert fetch(server, path, f"md5:{MD5}") == path
    assert path.read_bytes() == CONTENT and server.requests == [("/a.zip", None)]
    assert left_overs(path.parent) == [] and not (path.parent / RECORD).exists()
    assert fetch(server, path, f"sha256:{SHA256.upper()}") == path
    assert len(server.requests) == 1
    path.write_bytes(OTHER)  # damaged: reported, and left to its owner
    with pytest.raises(ValueError, match=r"delete it if it is still there, and run this again"):
        fetch(server, path, f"md5:{MD5}")
    assert path.read_bytes() == OTHER and len(server.requests) == 1


def test_a_connection_that_breaks_off_is_taken_up_where_it_was(server, tmp_path):
    server.break_after["/a.zip"] = [10_000, 15_000]
    path = fetch(server, tmp_path / "a.zip", f"md5:{MD5}")
    assert path.read_bytes() == CONTENT and left_overs(tmp_path) == []
    assert [asked for _, asked in server.requests] == [None, "bytes=10000-", "bytes=25000-"]


def break_at(server, path, count, digest=None):
    server.break_after["/a.zip"] = [count] + [0] * ATTEMPTS
    with pytest.raises(ConnectionError, match=r"a.zip cannot be fetched .* are kept: check the network") as caught:
        fetch(server, path, digest)
    assert not path.exists() and "\n" not in str(caught.value)
    server.break_after.clear()
    server.requests.clear()


KEPT = [("a.zip", CONTENT, "bytes=20000-"), ("a.zip", OTHER, "bytes=20000-"), ("mirror.zip", OTHER, None)]


@pytest.mark.parametrize(("name", "content", "asked"), KEPT)
def test_what_is_kept_after_giving_up_is_used_but_not_glued_to_another_file(server, tmp_path, name, content, asked):
    break_at(server, tmp_path / "a.zip", 20_000)
    assert (tmp_path / "a.zip.partial").stat().st_size == 20_000
    server.files[f"/{name}"] = content
    assert fetch(server, tmp_path / "a.zip", url=f"/{name}").read_bytes() == content
    assert server.requests == [(f"/{name}", asked)] and left_overs(tmp_path) == []


@pytest.mark.parametrize(("digest", "asked"), [(None, None), (f"md5:{MD5}", "bytes=20000-")])
def test_without_a_way_to_tell_the_versions_apart_only_a_digest_lets_it_go_on(server, tmp_path, digest, asked):
    server.sends_etags = False
    break_at(server, tmp_path / "a.zip", 20_000, digest)
    assert fetch(server, tmp_path / "a.zip", digest).read_bytes() == CONTENT
    assert server.requests == [("/a.zip", asked)]


def test_a_server_that_knows_no_ranges_or_lengths_sends_all_again(server, tmp_path):
    server.knows_ranges = False
    break_at(server, tmp_path / "a.zip", 20_000)
    server.sends_length = False
    assert fetch(server, tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_partial_file_that_is_complete_is_moved_and_one_that_is_too_long_dropped(server, tmp_path):
    for partial, asked in ((CONTENT, ["bytes=50000-"]), (CONTENT + b"more", ["bytes=50004-", None])):
        (tmp_path / "a.zip").unlink(missing_ok=True)
        break_at(server, tmp_path / "a.zip", 20_000)
        (tmp_path / "a.zip.partial").write_bytes(partial)
        assert fetch(server, tmp_path / "a.zip").read_bytes() == CONTENT
        assert [header for _, header in server.requests] == asked


def test_a_damaged_file_is_refused_removed_and_fetched_anew(server, tmp_path):
    server.files["/a.zip"] = CONTENT[:-1] + b"?"
    with pytest.raises(ValueError, match=rf"a.zip from http.*/a.zip is damaged.* MD5 is .*, expected {MD5[:12]}…"):
        fetch(server, tmp_path / "a.zip", f"md5:{MD5}")
    assert list(tmp_path.iterdir()) == []
    server.files["/a.zip"] = CONTENT
    assert fetch(server, tmp_path / "a.zip", f"md5:{MD5}").read_bytes() == CONTENT


def test_without_a_published_digest_the_first_download_decides(server, tmp_path):
    fetch(server, tmp_path / "a.zip")
    assert json.loads((tmp_path / RECORD).read_text()) == {"a.zip": f"sha256:{SHA256}"}
    (tmp_path / "a.zip").unlink()
    server.files["/a.zip"] = OTHER
    with pytest.raises(ValueError, match=rf"SHA256 is .*, expected {SHA256[:12]}…"):
        fetch(server, tmp_path / "a.zip")
    fetch(server, tmp_path / "b.zip")
    assert set(json.loads((tmp_path / RECORD).read_text())) == {"a.zip", "b.zip"}


def test_a_file_that_is_not_there_is_not_asked_for_again_but_a_busy_server_is(server, tmp_path):
    server.refuse_with["/a.zip"] = [404]
    with pytest.raises(ConnectionError, match=r"the server answered 404 .*the file may have moved"):
        fetch(server, tmp_path / "a.zip")
    assert len(server.requests) == 1
    server.refuse_with["/a.zip"] = [503] * ATTEMPTS
    with pytest.raises(ConnectionError, match=r"the server answered 503"):
        fetch(server, tmp_path / "a.zip")
    server.refuse_with["/a.zip"] = [503, 429]
    assert fetch(server, tmp_path / "a.zip").read_bytes() == CONTENT


def test_nobody_there_and_no_address(tmp_path):
    with pytest.raises(ConnectionError, match=r"127.0.0.1:9/a.zip cannot be fetched \(.*refused"):
        download("http://127.0.0.1:9/a.zip", tmp_path / "a.zip", pause=0.001)
    with pytest.raises(ValueError, match=r"unknown url type: 'a.zip'"):
        download("a.zip", tmp_path / "a.zip")
    assert list(tmp_path.iterdir()) == []


# archives

IMAGES = {"one.jpg": b"1" * 5000, "two.JPG": b"2" * 700, "three.png": b"3" * 9000}
MEMBERS = {f"set/deep/{name}" if name == "three.png" else f"set/{name}": data for name, data in IMAGES.items()}
MEMBERS |= {"set/notes.txt": b"text", "__MACOSX/set/._one.jpg": b"rubbish"}


@pytest.fixture(params=["a.zip", "a.tar", "a.tar.gz"])
def archive(request, tmp_path):
    path = tmp_path / request.param
    path.write_bytes(zip_of(MEMBERS) if path.suffix == ".zip" else tar_of(MEMBERS, gzip=path.suffix == ".gz"))
    return path


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_all_images_come_into_one_folder(archive, tmp_path):
    unfinished = tmp_path / "images" / ".set.partial"  # of a call that was interrupted
    unfinished.mkdir(parents=True)
    (unfinished / "one.jpg").write_bytes(b"1" * 4999)
    unpack_images([archive], tmp_path / "images" / "set")
    assert contents(tmp_path / "images" / "set") == IMAGES
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["set"]
    archive.unlink()  # a folder that is there is complete
    unpack_images([archive], tmp_path / "images" / "set")


def test_only_wanted_images_and_single_files(archive, tmp_path):
    unpack_images([archive], tmp_path / "set", lambda member: "deep" in member)
    assert set(contents(tmp_path / "set")) == {"three.png"}
    assert read_member(archive, "notes.txt") == read_member(archive, "set/notes.txt") == b"text"
    assert read_texts(archive, lambda member: member.endswith(".txt")) == {"set/notes.txt": b"text"}
    with pytest.raises(ValueError, match=r"a\..* holds no otes.txt: is it the right file"):
        read_member(archive, "otes.txt")
    with pytest.raises(ValueError, match=r"a\..* holds none of the images looked for"):
        unpack_images([archive], tmp_path / "none", lambda member: False)


def test_a_damaged_archive_is_named_and_leaves_no_folder(archive, tmp_path):
    content = archive.read_bytes()
    damaged = {"cut": content[: len(content) // 2], "text": b"<html>not found</html>"}
    if archive.suffix != ".tar":  # a plain one has no checksum of its contents
        damaged["zeros inside"] = content[:60] + bytes(30) + content[90:]
    if archive.suffix == ".zip":
        damaged["encrypted"] = content.replace(b"PK\1\2\x14\3\x14\0\0\0", b"PK\1\2\x14\3\x14\0\1\0")
    for name, bytes_left in damaged.items():
        archive.write_bytes(bytes_left)
        with pytest.raises(ValueError, match=r"a\.(zip|tar|tar.gz) is damaged \(.+\): delete it") as caught:
            unpack_images([archive], tmp_path / "set")
        assert "\n" not in str(caught.value), name
        assert not (tmp_path / "set").exists(), name


def test_an_archive_cannot_write_elsewhere(tmp_path):
    evil = {"../../evil.jpg": b"x", "/tmp/absolute.jpg": b"y", "ok/fine.jpg": b"z"}
    for number, content in enumerate((zip_of(evil), tar_of(evil))):
        (tmp_path / "evil").write_bytes(content)
        unpack_images([tmp_path / "evil"], tmp_path / f"images{number}" / "set")
        assert set(contents(tmp_path / f"images{number}" / "set")) == {"evil.jpg", "absolute.jpg", "fine.jpg"}
        assert not (tmp_path / "evil.jpg").exists() and not (tmp_path.parent / "evil.jpg").exists()


def test_two_images_of_one_name_are_not_written_over_each_other(tmp_path):
    (tmp_path / "a.zip").write_bytes(zip_of({"x/one.jpg": b"1", "y/one.jpg": b"2"}))
    with pytest.raises(ValueError, match=r"a.zip has an image one.jpg, of which there is another"):
        unpack_images([tmp_path / "a.zip"], tmp_path / "set")
