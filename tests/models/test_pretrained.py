import functools
import hashlib
import http.server
import threading

import pytest
import torch

import yolonas_lab as yl
from yolonas_lab.models.get import ACCEPT_VARIABLE, RemoteWeights, fetch_coco_weights


@pytest.fixture
def server(tmp_path):
    """A loopback web server over tmp_path/www; yields the folder and its address."""
    folder = tmp_path / "www"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *args: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.delenv(ACCEPT_VARIABLE, raising=False)


def test_the_licence_is_named_before_anything_is_fetched():
    with pytest.raises(PermissionError, match=r"non-commercial.*accept_license=True"):
        yl.models.get("yolo_nas_s", pretrained_weights="coco")


def test_lab_sizes_have_no_coco_weights():
    with pytest.raises(ValueError, match="'yolo_nas_pico' has no COCO weights"):
        yl.models.get("yolo_nas_pico", pretrained_weights="coco", accept_license=True)


def test_fetched_once_checked_and_cached(server, monkeypatch):
    folder, address = server
    content = b"weights" * 1000
    (folder / "s.pth").write_bytes(content)
    remote = RemoteWeights(f"{address}/s.pth", hashlib.sha256(content).hexdigest(), len(content))
    monkeypatch.setenv(ACCEPT_VARIABLE, "1")
    path = fetch_coco_weights("yolo_nas_s", weights=remote)
    assert path.read_bytes() == content
    (folder / "s.pth").unlink()  # the second time comes from the cache
    assert fetch_coco_weights("yolo_nas_s", weights=remote) == path


def test_wrong_size_and_wrong_digest_are_refused(server):
    folder, address = server
    (folder / "s.pth").write_bytes(b"tampered")
    with pytest.raises(ValueError, match="8 bytes where 9 were expected"):
        fetch_coco_weights("yolo_nas_s", True, RemoteWeights(f"{address}/s.pth", None, 9))
    with pytest.raises(ValueError, match="SHA-256"):
        fetch_coco_weights("yolo_nas_s", True, RemoteWeights(f"{address}/s.pth", "0" * 64, 8))


def test_offline_and_moved_files_give_one_clear_sentence(server, tmp_path):
    _, address = server
    with pytest.raises(ConnectionError, match="answered 404; the weights may have moved"):
        fetch_coco_weights("yolo_nas_s", True, RemoteWeights(f"{address}/gone.pth"))
    with pytest.raises(ConnectionError, match="connect to the internet, or put the file at"):
        fetch_coco_weights("yolo_nas_s", True, RemoteWeights("http://127.0.0.1:9/s.pth"))
    assert not list((tmp_path / "hub").rglob("*.pth")) and not list((tmp_path / "hub").rglob("*partial*"))
