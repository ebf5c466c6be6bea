"""Image files of every common kind become upright RGB bytes; broken ones are refused by name."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from yolonas_lab.sources import load_annotated_image, load_image

RAMP = np.arange(48, dtype=np.uint8).reshape(4, 12) * 5  # 4 high, 12 wide, all values different
COLOUR = np.stack([RAMP, RAMP[::-1], 255 - RAMP], axis=2)


def save(path, image, **options):
    image.save(path, **options)
    return path


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def test_lab_palette_and_animated_files_and_transparent_pixels_become_rgb(tmp_path):
    for mode in ("P", "LAB"):
        image = Image.new("LAB", (12, 4), (128, 128, 128)) if mode == "LAB" else Image.fromarray(COLOUR).convert(mode)
        pixels = load_image(save(tmp_path / "a.tif", image))
        assert pixels.shape == (4, 12, 3) and pixels.dtype == np.uint8
    frames = [Image.fromarray(RAMP), Image.fromarray(255 - RAMP)]
    pixels = load_image(save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:]))
    np.testing.assert_array_equal(pixels, np.repeat(RAMP[:, :, None], 3, axis=2))
    rgba = np.dstack([COLOUR, np.zeros((4, 12), np.uint8)])
    pixels = load_image(save(tmp_path / "a.png", Image.fromarray(rgba)))
    np.testing.assert_array_equal(pixels, COLOUR)
    assert pixels.dtype == np.uint8 and pixels.flags.writeable and pixels.flags.c_contiguous


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_are_scaled_to_8(tmp_path, suffix):
    deep = np.array([[0, 128, 257, 32768, 65535]], dtype=np.uint16)
    pixels = load_image(save(tmp_path / f"a{suffix}", Image.fromarray(deep)))
    assert pixels[0].tolist() == [[v, v, v] for v in (0, 0, 1, 128, 255)]


EXIF = [(1, 1, 1), (2, 1, -1), (3, -1, -1), (4, -1, 1), (5, 1, 1), (6, -1, 1), (7, -1, -1), (8, 1, -1)]


@pytest.mark.parametrize(("orientation", "down", "right"), EXIF)  # and from 5 on rows and columns change places
def test_photographs_are_turned_upright_for_prediction(tmp_path, orientation, down, right):
    path = save(tmp_path / "a.png", Image.fromarray(COLOUR), exif=exif(orientation))
    turned = COLOUR[::down, ::right]
    turned = turned if orientation <= 4 else turned.transpose(1, 0, 2)
    np.testing.assert_array_equal(load_image(path), turned)
    # for a data set the annotated size decides: 12 wide and 4 high are the stored pixels
    np.testing.assert_array_equal(load_annotated_image(path, 12, 4), COLOUR)
    if orientation >= 5:
        np.testing.assert_array_equal(load_annotated_image(path, 4, 12), turned)
    else:
        with pytest.raises(ValueError, match=r"a\.png is 12 x 4 pixels but its annotations are for 4 x 12"):
            load_annotated_image(path, 4, 12)


def test_what_is_no_image_is_refused_by_name(tmp_path, monkeypatch):
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.png").write_bytes(b"hello")
    save(tmp_path / "depth.tif", Image.fromarray(np.ones((2, 2), np.float32)))
    save(tmp_path / "large.png", Image.new("RGB", (100, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for name, error, message in [
        ("absent.png", FileNotFoundError, r"no image .*absent\.png"),
        ("empty.jpg", ValueError, r"empty\.jpg is not an image"),
        ("text.png", ValueError, r"text\.png is not an image"),
        (".", ValueError, "is not a file"),
        ("depth.tif", ValueError, r"depth\.tif has floating-point pixels"),
        ("large.png", ValueError, r"large\.png is too large"),
    ]:
        with pytest.raises(error, match=message):
            load_image(tmp_path / name)


def _encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, kind, exif=exif(6))
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's remarks about damaged tags
@given(kind=st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "GIF"]), seed=st.integers(0, 10**6))
@settings(max_examples=150, deadline=None)
def test_damaged_files_give_pixels_or_one_clear_error(tmp_path_factory, kind, seed):
    rng = np.random.default_rng(seed)
    data = bytearray(_encoded(kind))
    for position in rng.integers(0, min(len(data), 400), 6):
        data[position] = rng.integers(256)
    path = tmp_path_factory.getbasetemp() / "damaged.img"
    path.write_bytes(data)
    try:
        pixels = load_image(path)
    except ValueError as error:
        assert "damaged.img" in str(error)
    else:
        assert pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8
