"""Where images come from: a file, a URL, a folder, a Pillow image, an array, a list of these, or a video.

Everything becomes an array (h, w, 3) uint8 RGB with a name for error messages, one at a time, when it is needed
(notebook 00). Phones store a photograph as the sensor saw it plus an EXIF tag that says how to turn it. Viewers turn
it; the COCO tools do not, so for a data set the annotated width and height decide (`load_annotated_image`).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import numpy as np
import torch

if TYPE_CHECKING:
    from PIL import Image

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
VIDEO_SUFFIXES = {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"}
URL_PREFIXES = ("http://", "https://")
URL_SAFE = "%/:=&?~#+!$,;'@()*[]"  # characters with a meaning in an address; others (a space, ß) are escaped
URL_TIMEOUT = 20.0  # seconds without an answer
URL_MAX_BYTES = 64 * 2**20
EXIF_ORIENTATION = 0x0112  # 5 to 8 exchange width and height


@dataclass(frozen=True)
class NamedImage:
    """One image (h, w, 3) uint8 RGB and what to call it in a message."""

    name: str
    image: np.ndarray


def is_video(source: Any) -> bool:
    """Whether source is the path of a video file, by its suffix."""
    return _is_path(source) and Path(source).suffix.lower() in VIDEO_SUFFIXES


def is_single(source: Any) -> bool:
    """Whether source is one image rather than a list, a folder, or a video."""
    is_folder = _is_path(source) and Path(source).is_dir()
    return not (isinstance(source, (list, tuple)) or is_folder or is_video(source))


def list_items(source: Any) -> Sequence[Any]:
    """The images of a source that is not a video, not yet read: itself, a list's items, or a folder's files by name.

    A folder's files without the suffix of an image are passed over. Raises ValueError for a folder without images.
    """
    if isinstance(source, (list, tuple)):
        for index, item in enumerate(source):
            if not is_single(item):
                raise ValueError(f"item {index} of the list is {item!r}, but a list may hold single images only.")
        return source
    if is_single(source):
        return [source]
    folder = Path(source)
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise ValueError(f"the folder {folder} holds no images (files ending in {', '.join(sorted(IMAGE_SUFFIXES))}).")
    return files


def read_image(item: Any, index: int = 0) -> NamedImage:
    """Read one image: a path, URL, Pillow image, uint8 array (h, w[, 1 | 3 | 4]) RGB, or uint8 tensor (3, h, w) RGB.

    index is its place in the source, for the name of an image without a file. Raises ValueError for something that is
    no such image, FileNotFoundError for a missing file, ConnectionError where a URL cannot be fetched.

    >>> read_image(np.zeros((4, 6), np.uint8)).image.shape  # gray becomes RGB
    (4, 6, 3)
    """
    from PIL import Image, ImageOps

    if _is_url(item):
        return NamedImage(item, _to_rgb(ImageOps.exif_transpose(_decoded(BytesIO(fetch(item)), item)), item))
    if _is_path(item):
        return NamedImage(str(item), load_image(item))
    name = f"image {index}"
    if isinstance(item, Image.Image):
        return NamedImage(name, _to_rgb(ImageOps.exif_transpose(item), name))
    if isinstance(item, torch.Tensor):
        if item.ndim != 3 or item.shape[0] != 3 or item.dtype != torch.uint8:
            what = f"a {item.dtype} tensor of shape {tuple(item.shape)}"
            raise ValueError(f"{name} is {what}, but must be uint8 of shape (3, h, w).")
        return NamedImage(name, _from_array(item.permute(1, 2, 0).cpu().numpy(), name))
    if isinstance(item, np.ndarray):
        return NamedImage(name, _from_array(item, name))
    raise ValueError(
        f"{name} is a {type(item).__name__}, but must be a path, a URL, a Pillow image, or a uint8 array or tensor."
    )


def load_image(path: str | os.PathLike) -> np.ndarray:
    """Read an image file as uint8 RGB (h, w, 3), turned upright as an image viewer does.

    Gray, palette, CMYK and 16-bit images are converted; transparency is ignored; of an animation the first frame is
    read. Raises FileNotFoundError for a missing file and ValueError for one that is not a complete image.
    """
    from PIL import ImageOps

    return _to_rgb(ImageOps.exif_transpose(_decoded(Path(path))), path)


def load_annotated_image(path: str | os.PathLike, width: int, height: int) -> np.ndarray:
    """Read an image file as uint8 RGB (height, width, 3) in the orientation in which it was annotated.

    The stored pixels are used if they have that size (as the COCO tools do); if only the upright picture that the EXIF
    tag asks for has it, that one. Raises ValueError if neither has, and otherwise as `load_image`.
    """
    from PIL import ImageOps

    image = stored = _decoded(Path(path))
    turned = image.size == (height, width) != (width, height)
    if turned and image.getexif().get(EXIF_ORIENTATION, 1) in (5, 6, 7, 8):
        image = ImageOps.exif_transpose(image)
    if image.size != (width, height):
        raise ValueError(
            f"{path} is {stored.width} x {stored.height} pixels but its annotations are for {width} x {height}: "
            "correct the annotation file or put the original image back."
        )
    return _to_rgb(image, path)


def fetch(url: str, timeout: float = URL_TIMEOUT, max_bytes: int = URL_MAX_BYTES) -> bytes:
    """Download url (http or https) of at most max_bytes; ConnectionError if that fails, ValueError if it is larger."""
    request = Request(quote(url, safe=URL_SAFE), headers={"User-Agent": "yolonas_lab"})
    try:
        with urlopen(request, timeout=timeout) as answer:
            content = answer.read(max_bytes + 1)
    except (OSError, HTTPException) as error:  # HTTPError, URLError and TimeoutError are OSErrors
        reason = getattr(error, "reason", error)
        reason = f"the server answered {error.code} {reason}" if isinstance(error, HTTPError) else reason
        raise ConnectionError(f"{url} cannot be fetched ({reason}); check the address and the network.") from error
    if len(content) > max_bytes:
        raise ValueError(f"{url} is larger than {max_bytes / 2**20:g} MiB; download it and pass its path.")
    return content


def video_frames(path: str | Path) -> Iterator[NamedImage]:
    """The frames of a video file, one at a time; needs the optional package av.

    Raises ImportError without av, FileNotFoundError for a missing file, ValueError for a file that is no video.
    """
    try:
        import av
        from av.error import FFmpegError
    except ImportError as error:
        raise ImportError('reading a video needs the package av: pip install "yolonas-lab[video]".') from error
    if not Path(path).is_file():
        raise FileNotFoundError(f"the video {path} does not exist.")
    try:
        container = av.open(str(path))
    except FFmpegError as error:
        raise ValueError(f"{path} cannot be read as a video: {error.strerror}.") from error
    with container:
        if not container.streams.video:
            raise ValueError(f"{path} has no video stream.")
        for index, frame in enumerate(container.decode(video=0)):
            yield NamedImage(f"frame {index} of {path}", frame.to_ndarray(format="rgb24"))


def _is_url(source: Any) -> bool:
    return isinstance(source, str) and source.lower().startswith(URL_PREFIXES)


def _is_path(source: Any) -> bool:
    return isinstance(source, (str, Path)) and not _is_url(source)


def _decoded(file: Path | BytesIO, name: str | Path = "") -> Image.Image:
    """A decoded image file; every way in which it can be broken ends in one clear error."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(file, Path):
        name = file
        if not file.exists():
            raise FileNotFoundError(f"There is no image {file}: check the path.")
        if not file.is_file():
            raise ValueError(f"{file} is not a file: give the path of an image.")
    try:
        with Image.open(file) as image:
            image.load()
            return image
    except UnidentifiedImageError:
        raise ValueError(f"{name} is not an image in a format that Pillow reads: convert it to PNG or JPEG.") from None
    except Image.DecompressionBombError:
        raise ValueError(f"{name} is too large to read safely: scale it down first.") from None
    except (OSError, SyntaxError, ValueError, EOFError, TypeError, KeyError, IndexError, struct.error) as error:
        # these are what Pillow's decoders raise on damaged bytes
        raise ValueError(f"{name} is broken or cut off ({error}): replace the file.") from error


def _to_rgb(image: Image.Image, name: str | os.PathLike) -> np.ndarray:
    """The pixels (h, w, 3) uint8 RGB of an upright image; transparency is ignored."""
    if image.mode == "F":
        raise ValueError(f"{name} has floating-point pixels, whose range is unknown: convert it to 8 bits.")
    if image.mode.startswith("I"):  # 16-bit gray, whole-number pixels: scale 0 … 65535 to 0 … 255
        gray = np.asarray(image).astype(np.int64).clip(0, 65535)
        return _from_array(((gray * 255 + 32767) // 65535).astype(np.uint8), str(name))
    return np.array(image.convert("RGB"))  # (h, w, 3), writable


def _from_array(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype != np.uint8:
        raise ValueError(
            f"{name} is an array of {array.dtype}, but must be uint8 with values 0 … 255; "
            f"for floats in [0, 1] pass (255 * image).round().astype(np.uint8)."
        )
    if array.ndim == 2:
        array = array[:, :, None]  # (h, w, 1)
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or array.size == 0:
        raise ValueError(
            f"{name} has shape {array.shape}, but must be (h, w), (h, w, 1), (h, w, 3) or (h, w, 4); "
            f"for a batch pass list(batch)."
        )
    return np.repeat(array, 3, axis=2) if array.shape[2] == 1 else np.ascontiguousarray(array[:, :, :3])  # (h, w, 3)
