"""Reading images from everywhere: files, folders, Pillow images, arrays, tensors, a local web server, videos."""

import socket
import sys
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
GRAY = PICTURE[:, :, 0]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (PICTURE, PICTURE),
        (np.dstack([PICTURE, np.zeros((6, 9), np.uint8)]), PICTURE),  # transparency is ignored
        (GRAY, np.stack([GRAY] * 3, axis=2)),
        (GRAY[:, :, None], np.stack([GRAY] * 3, axis=2)),
        (torch.from_numpy(PICTURE).permute(2, 0, 1), PICTURE),
        (PICTURE[::-1, ::-1], PICTURE[::-1, ::-1]),  # negative strides, which torch refuses
        *((Image.fromarray(GRAY.astype(kind) * 257), np.stack([GRAY] * 3, axis=2)) for kind in (np.uint16, np.int32)),
    ],
)
def test_arrays_of_each_shape_a_tensor_and_16_bits(source, expected):
    image = read_image(source).image
    assert np.array_equal(image, expected) and image.flags.c_contiguous


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "1", "YCbCr"])
def test_pillow_images_of_each_mode(mode):
    image = Image.fromarray(PICTURE).convert(mode)
    assert np.array_equal(read_image(image).image, np.array(image.convert("RGB")))


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
    assert [path.name for path in list_items(tmp_path)] == ["a.JPG", "b.png", "d.webp"]
    assert all(map(is_single, (PICTURE, "http://host/folder/", "missing.png", "HTTPS://host/a.mp4", "https.png")))
    assert not any(map(is_single, (tmp_path, [PICTURE], (), "film.MP4")))
    assert is_video("film.MP4") and not is_video("http://host/film.mp4") and not is_video(PICTURE)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with running_server() as server:
        yield server


def test_an_image_from_the_web_and_what_may_come_instead(server):
    Image.fromarray(PICTURE).save(buffer := BytesIO(), format="PNG")
    picture, strange = buffer.getvalue(), "/Stra%C3%9Fe%201?size=9&x=%20"
    server.files |= {"/picture": picture, strange: picture}
    server.files |= {"/text": b"<html>hello</html>", "/cut.png": picture[:100], "/large": bytes(5000)}
    for page in ("/picture", "/Straße 1?size=9&x=%20"):
        found = read_image(server.url + page)
        assert np.array_equal(found.image, PICTURE) and found.name == server.url + page
    for wrong in ("/missing cannot be fetched .*404", "/text is not an image", "/cut.png is broken or cut off"):
        with pytest.raises((ConnectionError, ValueError), match=wrong):
            read_image(server.url + wrong.split()[0])
    with pytest.raises(ValueError, match=r"/large is larger than .* MiB"):
        fetch(server.url + "/large", max_bytes=4999)
    assert len(fetch(server.url + "/large", max_bytes=5000)) == 5000
    for address in ("http://127.0.0.1:9/", "http://"):
        with pytest.raises(ConnectionError, match=rf"{address} cannot be fetched"):
            fetch(address)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(ConnectionError, match="timed out"):
            fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout=0.2)


def test_frames_of_a_video_are_read_and_predicted_one_by_one(tmp_path):
    av = pytest.importorskip("av", reason="the optional package av reads videos")
    film = tmp_path / "film.mp4"
    with av.open(str(film), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for value in (0, 80, 160, 240):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), value, dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frames = list(video_frames(film))
    assert [frame.image.shape for frame in frames] == [(48, 64, 3)] * 4
    assert [frame.image.mean() for frame in frames] == pytest.approx([0, 80, 160, 240], abs=6)
    assert frames[2].name == f"frame 2 of {film}"
    model = KnownDetector(always([[10.0, 20.0, 30.0, 40.0]], [[0.9]]))
    found = predict(model, film, batch_size=3)
    assert isinstance(found, Iterator) and model.inputs == []
    assert len(next(found)) == 1 and len(model.inputs) == 1 and len(list(found)) == 3
    (tmp_path / "text.mp4").write_text("no film")
    with pytest.raises(ValueError, match=r"text.mp4 cannot be read as a video"):
        next(video_frames(tmp_path / "text.mp4"))


def test_without_av_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r'pip install "yolonas-lab\[video\]"'):
        next(video_frames("film.mp4"))


BAD = [
    (PICTURE / 255, r"image 3 .* float64.*\(255 \* image\)"),
    (PICTURE[None], r"image 3 .*\(1, 6, 9, 3\).*list\(batch\)"),
    (torch.zeros(3, 4, 4), r"image 3 .* torch.float32 .*\(3, 4, 4\)"),
    (torch.zeros(4, 4, 3, dtype=torch.uint8), r"image 3 .*\(4, 4, 3\)"),
    (Image.fromarray(np.zeros((4, 4), dtype=np.float32)), "image 3 .* floating-point"),
    (None, "image 3 .* NoneType"),
    ("nowhere.png", "nowhere.png"),
    ("text.png", "text.png is not an image"),
]


@pytest.mark.parametrize(("item", "message"), BAD)
def test_bad_images_are_named(item, message, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_image(str(tmp_path / item) if isinstance(item, str) else item, index=3)


def test_bad_folders_and_lists_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"holds no images \(files ending in .bmp, "):
        list_items(tmp_path)
    with pytest.raises(ValueError, match=f"item 1 of the list is .*{tmp_path.name}"):
        list_items([PICTURE, tmp_path])
