"""Reading images from everywhere: files, folders, Pillow images, arrays, tensors, a local web server, videos."""

import builtins
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from yolonas_lab import sources
from yolonas_lab.sources import fetch, is_single, is_video, list_items, read_image, video_frames

PICTURE = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
PICTURE[0, 0], PICTURE[0, 1] = 0, 255


def png(array=PICTURE):
    buffer = BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def server():
    """http://127.0.0.1:port with a picture, a text, a lot of bytes, a redirect, and a page that never comes."""
    stop = threading.Event()

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self):
            pages = {"/picture": png(), "/text": b"<html>hello</html>", "/cut.png": png()[:100], "/large": bytes(5000)}
            pages["/Stra%C3%9Fe%201?size=9&x=%20"] = png()
            if self.path == "/slow":
                stop.wait(5)
            if self.path == "/redirect":
                self.send_response(302)
                self.send_header("Location", "/picture")
                self.end_headers()
            elif self.path in pages:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(pages[self.path])
            elif self.path not in ("/slow", "/nothing"):
                self.send_error(404)

        def log_message(self, format, *args):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}"
    stop.set()
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


# arrays, tensors, Pillow images


def test_arrays_of_each_shape():
    gray = PICTURE[:, :, 0]
    alpha = np.dstack([PICTURE, np.zeros((6, 9), dtype=np.uint8)])
    assert np.array_equal(read_image(PICTURE).image, PICTURE)
    assert np.array_equal(read_image(alpha).image, PICTURE)
    for array in (gray, gray[:, :, None]):
        assert np.array_equal(read_image(array).image, np.stack([gray] * 3, axis=2))
    turned = read_image(PICTURE[::-1, ::-1]).image  # negative strides, which torch refuses
    assert np.array_equal(turned, PICTURE[::-1, ::-1]) and turned.flags.c_contiguous


def test_tensors():
    assert np.array_equal(read_image(torch.from_numpy(PICTURE).permute(2, 0, 1)).image, PICTURE)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "1", "I;16", "I", "YCbCr"])
def test_pillow_images_of_each_mode(mode):
    gray = Image.fromarray(PICTURE[:, :, 0])
    if mode in ("I;16", "I"):
        image = Image.fromarray(PICTURE[:, :, 0].astype(np.int32) * 257)
        image = Image.fromarray(PICTURE[:, :, 0].astype(np.uint16) * 257) if mode == "I;16" else image
        expected = np.array(gray.convert("RGB"))
    else:
        image = Image.fromarray(PICTURE).convert(mode)
        expected = np.array(image.convert("RGB"))
    assert image.mode == mode
    assert np.array_equal(read_image(image).image, expected)


def test_a_pillow_image_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    path = tmp_path / "turned.png"
    Image.fromarray(PICTURE).save(path, exif=exif)
    with Image.open(path) as image:
        assert np.array_equal(read_image(image).image, np.rot90(PICTURE, -1))
    assert np.array_equal(read_image(path).image, np.rot90(PICTURE, -1))


# files and folders


def test_a_file_by_path_and_string(tmp_path):
    path = tmp_path / "a picture.png"
    path.write_bytes(png())
    for source in (path, str(path)):
        assert is_single(source)
        assert read_image(source).name == str(path)
        assert np.array_equal(read_image(source).image, PICTURE)


def test_a_folder_lists_its_images_by_name(tmp_path):
    for name in ("b.png", "a.JPG", "c.txt", "d.webp"):
        (tmp_path / name).write_bytes(b"")
    assert not is_single(tmp_path)
    assert [path.name for path in list_items(tmp_path)] == ["a.JPG", "b.png", "d.webp"]


def test_what_is_one_image_and_what_a_video():
    assert is_single(PICTURE) and is_single("http://host/folder/") and is_single("missing.png")
    assert not is_single([PICTURE]) and not is_single(()) and not is_single("film.MP4")
    assert is_video("film.MP4") and not is_video("http://host/film.mp4") and not is_video(PICTURE)


# the web


def test_an_image_from_the_web(server):
    for page in ("/picture", "/redirect", "/Straße 1?size=9&x=%20"):
        found = read_image(server + page)
        assert np.array_equal(found.image, PICTURE) and found.name == server + page


def test_what_the_web_may_answer_instead(server):
    with pytest.raises(ConnectionError, match=r"/missing cannot be fetched: the server answered 404"):
        read_image(server + "/missing")
    with pytest.raises(ValueError, match=r"/text is not an image"):
        read_image(server + "/text")
    with pytest.raises(ValueError, match=r"/cut.png is broken or cut off"):
        read_image(server + "/cut.png")
    with pytest.raises(ValueError, match=r"/large is larger than 0.00390625 MiB; download it"):
        fetch(server + "/large", max_bytes=4096)
    assert len(fetch(server + "/large", max_bytes=5000)) == 5000
    with pytest.raises(ConnectionError, match=r"/slow cannot be fetched: no answer for 0.2 seconds"):
        fetch(server + "/slow", timeout=0.2)
    with pytest.raises(ConnectionError, match=r"127.0.0.1:9/ cannot be fetched \(.*refused.*\); check the address"):
        fetch("http://127.0.0.1:9/")
    with pytest.raises(ConnectionError, match=r"/nothing cannot be fetched \(.*closed.*\); check the address"):
        fetch(server + "/nothing")
    with pytest.raises(ConnectionError, match=r"http:// cannot be fetched"):
        fetch("http://")


# videos


@pytest.fixture
def film(tmp_path):
    av = pytest.importorskip("av", reason="the optional package av reads videos")
    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for value in (0, 80, 160, 240):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), value, dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_frames_of_a_video(film):
    frames = list(video_frames(film))
    assert [frame.image.shape for frame in frames] == [(48, 64, 3)] * 4
    assert [frame.image.mean() for frame in frames] == pytest.approx([0, 80, 160, 240], abs=6)
    assert frames[2].name == f"frame 2 of {film}"


def test_prediction_of_a_video_comes_frame_by_frame(film):
    from known_detector import KnownDetector, always

    from yolonas_lab.detect import predict

    model = KnownDetector(always([[10.0, 20.0, 30.0, 40.0]], [[0.9]]))
    found = predict(model, film, batch_size=3)
    assert isinstance(found, Iterator) and model.inputs == []
    assert len(next(found)) == 1 and len(model.inputs) == 1
    assert len(list(found)) == 3


def test_a_file_that_is_no_video(tmp_path):
    pytest.importorskip("av", reason="the optional package av reads videos")
    (tmp_path / "text.mp4").write_text("no film")
    with pytest.raises(ValueError, match=r"text.mp4 cannot be read as a video"):
        next(video_frames(tmp_path / "text.mp4"))
    with pytest.raises(FileNotFoundError, match=r"the video .*missing.mp4 does not exist"):
        next(video_frames(tmp_path / "missing.mp4"))


def test_without_av_the_message_says_what_to_install(monkeypatch):
    original = builtins.__import__

    def without_av(name, *arguments, **options):
        if name == "av":
            raise ImportError("No module named 'av'")
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_av)
    with pytest.raises(ImportError, match=r'needs the package av: pip install "yolonas-lab\[video\]"'):
        next(video_frames("film.mp4"))


# bad input


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.png"):
        read_image(tmp_path / "nowhere.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match=r"text.png"):
        read_image(str(tmp_path / "text.png"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"the folder .*empty holds no images \(files ending in .bmp, "):
        list_items(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"item 1 of the list is .*empty.*single images only"):
        list_items([PICTURE, tmp_path / "empty"])


BAD = [
    (PICTURE / 255, r"image 3 is an array of float64, but must be uint8 .* \(255 \* image\)"),
    (PICTURE.astype(np.int64), r"image 3 is an array of int64, but must be uint8"),
    (PICTURE > 100, r"image 3 is an array of bool, but must be uint8"),
    (PICTURE[None], r"image 3 has shape \(1, 6, 9, 3\).*pass list\(batch\)"),
    (PICTURE[:, :, :2], r"image 3 has shape \(6, 9, 2\)"),
    (PICTURE[:, 0, 0], r"image 3 has shape \(6,\)"),
    (PICTURE[:0], r"image 3 has shape \(0, 9, 3\)"),
    (torch.zeros(3, 4, 4), r"image 3 is a torch.float32 tensor of shape \(3, 4, 4\), but must be uint8"),
    (torch.zeros(4, 4, 3, dtype=torch.uint8), r"image 3 is a torch.uint8 tensor of shape \(4, 4, 3\)"),
    (Image.fromarray(np.zeros((4, 4), dtype=np.float32)), r"image 3 has floating-point pixels"),
    (None, r"image 3 is a NoneType, but must be a path, a URL"),
    (7, r"image 3 is a int, but must be a path"),
    (b"bytes", r"image 3 is a bytes, but must be a path"),
]


@pytest.mark.parametrize(("item", "message"), BAD)
def test_bad_images_are_named(item, message):
    with pytest.raises(ValueError, match=message):
        read_image(item, index=3)


def test_urls_are_told_from_paths_in_any_case():
    assert sources._is_url("HTTPS://host/a.png") and not sources._is_url("https.png")
