"""Reading images from everywhere: files, folders, Pillow images, arrays, tensors, a local web server, videos."""

import builtins
import socket
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pytest
import torch
from file_server import running_server
from known_detector import KnownDetector, always
from PIL import Image

from yolonas_lab.detect import predict
from yolonas_lab.sources import fetch, is_single, is_video, list_items, read_image, video_frames

PICTURE = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
PICTURE[0, 0], PICTURE[0, 1] = 0, 255


def png():
    buffer = BytesIO()
    Image.fromarray(PICTURE).save(buffer, format="PNG")
    return buffer.getvalue()


def test_arrays_of_each_shape_and_a_tensor():
    gray = PICTURE[:, :, 0]
    alpha = np.dstack([PICTURE, np.zeros((6, 9), dtype=np.uint8)])
    assert np.array_equal(read_image(PICTURE).image, PICTURE)
    assert np.array_equal(read_image(alpha).image, PICTURE)
    for array in (gray, gray[:, :, None]):
        assert np.array_equal(read_image(array).image, np.stack([gray] * 3, axis=2))
    assert np.array_equal(read_image(torch.from_numpy(PICTURE).permute(2, 0, 1)).image, PICTURE)
    turned = read_image(PICTURE[::-1, ::-1]).image  # negative strides, which torch refuses
    assert np.array_equal(turned, PICTURE[::-1, ::-1]) and turned.flags.c_contiguous


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "1", "I;16", "I", "YCbCr"])
def test_pillow_images_of_each_mode(mode):
    gray = PICTURE[:, :, 0]
    if mode in ("I;16", "I"):
        image = Image.fromarray(gray.astype(np.uint16 if mode == "I;16" else np.int32) * 257)
        expected = np.array(Image.fromarray(gray).convert("RGB"))
    else:
        image = Image.fromarray(PICTURE).convert(mode)
        expected = np.array(image.convert("RGB"))
    assert image.mode == mode
    assert np.array_equal(read_image(image).image, expected)


def test_an_image_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    path = tmp_path / "turned.png"
    Image.fromarray(PICTURE).save(path, exif=exif)
    with Image.open(path) as image:
        for source in (image, path, str(path)):
            assert np.array_equal(read_image(source).image, np.rot90(PICTURE, -1))
    assert read_image(path).name == str(path)


def test_what_is_one_image_a_folder_or_a_video(tmp_path):
    for name in ("b.png", "a.JPG", "c.txt", "d.webp"):
        (tmp_path / name).write_bytes(b"")
    assert not is_single(tmp_path)
    assert [path.name for path in list_items(tmp_path)] == ["a.JPG", "b.png", "d.webp"]
    assert is_single(PICTURE) and is_single("http://host/folder/") and is_single("missing.png")
    assert is_single("HTTPS://host/a.mp4") and is_single("https.png")
    assert not is_single([PICTURE]) and not is_single(()) and not is_single("film.MP4")
    assert is_video("film.MP4") and not is_video("http://host/film.mp4") and not is_video(PICTURE)


# the web


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with running_server() as server:
        yield server


@pytest.mark.parametrize(
    ("asked", "sent"), [("/picture", "/picture"), ("/Straße 1?size=9&x=%20", "/Stra%C3%9Fe%201?size=9&x=%20")]
)
def test_an_image_from_the_web(server, asked, sent):
    server.files[sent] = png()
    found = read_image(server.url + asked)
    assert np.array_equal(found.image, PICTURE) and found.name == server.url + asked


def test_what_the_web_may_answer_instead(server):
    server.files |= {"/text": b"<html>hello</html>", "/cut.png": png()[:100], "/large": bytes(5000)}
    for page, error, message in [
        ("/missing", ConnectionError, "/missing cannot be fetched .*404"),
        ("/text", ValueError, "/text is not an image"),
        ("/cut.png", ValueError, "/cut.png is broken or cut off"),
    ]:
        with pytest.raises(error, match=message):
            read_image(server.url + page)
    with pytest.raises(ValueError, match=r"/large is larger than .* MiB"):
        fetch(server.url + "/large", max_bytes=4096)
    assert len(fetch(server.url + "/large", max_bytes=5000)) == 5000


def test_a_server_that_never_answers_or_is_not_there(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(ConnectionError, match="timed out"):
            fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout=0.2)
    for address in ("http://127.0.0.1:9/", "http://"):
        with pytest.raises(ConnectionError, match=rf"{address} cannot be fetched"):
            fetch(address)


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


def test_frames_of_a_video_are_read_and_predicted_one_by_one(film):
    frames = list(video_frames(film))
    assert [frame.image.shape for frame in frames] == [(48, 64, 3)] * 4
    assert [frame.image.mean() for frame in frames] == pytest.approx([0, 80, 160, 240], abs=6)
    assert frames[2].name == f"frame 2 of {film}"
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
    with pytest.raises(FileNotFoundError, match=r"missing.mp4"):
        next(video_frames(tmp_path / "missing.mp4"))


def test_without_av_the_message_says_what_to_install(monkeypatch):
    original = builtins.__import__

    def without_av(name, *arguments, **options):
        if name == "av":
            raise ImportError("No module named 'av'")
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_av)
    with pytest.raises(ImportError, match=r'pip install "yolonas-lab\[video\]"'):
        next(video_frames("film.mp4"))


# bad input


def test_missing_and_broken_files_are_named(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty").mkdir()
    for call, error, message in [
        (lambda: read_image(tmp_path / "nowhere.png"), FileNotFoundError, "nowhere.png"),
        (lambda: read_image(str(tmp_path / "text.png")), ValueError, "text.png"),
        (lambda: list_items(tmp_path / "empty"), ValueError, r"empty holds no images \(files ending in .bmp, "),
        (lambda: list_items([PICTURE, tmp_path / "empty"]), ValueError, "item 1 of the list is .*empty"),
    ]:
        with pytest.raises(error, match=message):
            call()


BAD = [
    (PICTURE / 255, r"image 3 .* float64.*\(255 \* image\)"),
    (PICTURE > 100, "image 3 .* bool"),
    (PICTURE[None], r"image 3 .*\(1, 6, 9, 3\).*list\(batch\)"),
    (PICTURE[:, :, :2], r"image 3 .*\(6, 9, 2\)"),
    (PICTURE[:0], r"image 3 .*\(0, 9, 3\)"),
    (torch.zeros(3, 4, 4), r"image 3 .* torch.float32 .*\(3, 4, 4\)"),
    (torch.zeros(4, 4, 3, dtype=torch.uint8), r"image 3 .*\(4, 4, 3\)"),
    (Image.fromarray(np.zeros((4, 4), dtype=np.float32)), "image 3 .* floating-point"),
    (None, "image 3 .* NoneType"),
]


@pytest.mark.parametrize(("item", "message"), BAD)
def test_bad_images_are_named(item, message):
    with pytest.raises(ValueError, match=message):
        read_image(item, index=3)
