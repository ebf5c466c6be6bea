"""Reading any common image file as upright RGB bytes, for prediction (notebook 00) and for data sets.

Phones store a photograph as the sensor saw it plus an EXIF tag that says how to turn it. Viewers turn it; the COCO
tools do not, so for a data set the annotated width and height decide (`load_annotated_image`).
"""

import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

_ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 exchange width and height


def load_image(path: str | os.PathLike) -> np.ndarray:
    """Read an image file as uint8 RGB (h, w, 3), turned upright as an image viewer does.

    Gray, palette, CMYK and 16-bit images are converted; transparency is ignored; of an animation the first frame is
    read. Raises FileNotFoundError for a missing file and ValueError for one that is not a complete image.
    """
    from PIL import ImageOps

    return _to_rgb(ImageOps.exif_transpose(_open(Path(path))), Path(path))


def load_annotated_image(path: str | os.PathLike, width: int, height: int) -> np.ndarray:
    """Read an image file as uint8 RGB (height, width, 3) in the orientation in which it was annotated.

    The stored pixels are used if they have that size (as the COCO tools do); if only the upright picture that the EXIF
    tag asks for has it, that one. Raises ValueError if neither has, and otherwise as `load_image`.
    """
    from PIL import ImageOps

    path = Path(path)
    image = _open(path)
    if image.size != (width, height):
        stored = image.size
        if image.size == (height, width) and image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8):
            image = ImageOps.exif_transpose(image)
        if image.size != (width, height):
            raise ValueError(
                f"{path} is {stored[0]} x {stored[1]} pixels but its annotations are for {width} x {height}: "
                "correct the annotation file or put the original image back."
            )
    return _to_rgb(image, path)


def _open(path: Path) -> "Image.Image":
    """The decoded image; every way in which a file can be broken ends in one clear error."""
    from PIL import Image, UnidentifiedImageError

    if not path.exists():
        raise FileNotFoundError(f"There is no image {path}: check the path.")
    if not path.is_file():
        raise ValueError(f"{path} is not a file: give the path of an image.")
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except UnidentifiedImageError:
        raise ValueError(f"{path} is not an image in a format that Pillow reads: convert it to PNG or JPEG.") from None
    except Image.DecompressionBombError:
        raise ValueError(f"{path} is too large to read safely: scale it down first.") from None
    except (OSError, SyntaxError, ValueError, EOFError, TypeError, KeyError, IndexError, struct.error) as error:
        # these are what Pillow's decoders raise on damaged bytes
        raise ValueError(f"{path} is broken or cut off ({error}): replace the file.") from error


def _to_rgb(image: "Image.Image", path: Path) -> np.ndarray:
    if image.mode.startswith("I"):  # 16-bit gray, whole-number pixels: scale 0..65535 to 0..255
        gray = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        gray = ((gray * 255 + 32767) // 65535).astype(np.uint8)  # (h, w)
        return np.repeat(gray[:, :, None], 3, axis=2)  # (h, w, 3)
    if image.mode == "F":
        raise ValueError(f"{path} has floating-point pixels, whose range is unknown: convert it to 8 bits.")
    return np.array(image.convert("RGB"))  # (h, w, 3), writable
