"""Generated scenes as a COCO-format folder, the fingerprint of such a folder, and sheets of scenes (notebook 00).

A set is built beside its destination and moved there in one step, so a crash leaves no half-written set.
"""

import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from yolonas_lab.common import progress, progress_bar, write_json
from yolonas_lab.data.coco import write_coco
from yolonas_lab.data.glyphs import require_characters, shape_mask
from yolonas_lab.data.scenes import (
    DEFAULT_DIFFICULTY,
    Difficulty,
    Domain,
    Scene,
    color,
    draw_scene,
    resolve_difficulty,
    resolve_domain,
)
from yolonas_lab.sources import load_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SETTINGS_FILE = "scenes.json"
_HUFFMAN_ONLY = 2  # zlib strategy: noisy pictures hold no repeats to look for, so this is faster and no larger
_DRAWING = 1  # raise when the same settings no longer give the same pixels
_GROUND = 250  # gray level between the pictures of a sheet


@dataclass(frozen=True)
class ScenesSummary:
    """What `make_scenes` made (or found): the folder, images and boxes per split, and the class names."""

    folder: Path
    images: dict[str, int]
    boxes: dict[str, int]
    class_names: tuple[str, ...]

    def images_dir(self, split: str) -> Path:
        """Folder with the PNG files of a split ("train", "val" or "unlabeled")."""
        return self.folder / "images" / split

    def annotations(self, split: str) -> Path:
        """COCO annotation file of a split."""
        return self.folder / "annotations" / f"instances_{split}.json"

    def __str__(self) -> str:
        parts = [f"{split} {self.images[split]} images ({self.boxes[split]} boxes)" for split in self.images]
        return f"{self.folder}: {', '.join(parts)}; classes: {', '.join(self.class_names)}"


def make_scenes(
    out_dir: str | os.PathLike,
    train: int = 2000,
    val: int = 300,
    unlabeled: int = 0,
    image_size: int = 96,
    seed: int = 0,
    domain: str | Domain = "scenes",
    difficulty: float | Difficulty = DEFAULT_DIFFICULTY,
    overwrite: bool = False,
) -> ScenesSummary:
    """Write `images/{train,val,unlabeled}/*.png` and `annotations/instances_{train,val,unlabeled}.json` under out_dir.

    Splits of 0 images are left out; the unlabeled split has images and categories but no annotations. The same
    settings found again at out_dir are returned at once. Raises ValueError for settings that cannot be drawn, and
    FileExistsError when out_dir holds something else (a set of scenes there is replaced if `overwrite`).
    """
    counts = {"train": train, "val": val, "unlabeled": unlabeled}
    for name, value in (counts | {"seed": seed}).items():
        if isinstance(value, bool) or not isinstance(value, int) or (name != "seed" and value < 0):
            raise ValueError(f"{name} is {value!r}: give a whole number{'' if name == 'seed' else ' of 0 or more'}.")
    if not any(counts.values()):
        raise ValueError("train, val and unlabeled are all 0: ask for at least one image.")
    domain, difficulty = resolve_domain(domain), resolve_difficulty(difficulty)
    require_characters("".join(glyph.character for glyph in domain.classes))
    draw_scene(0, image_size, seed, domain, "train", difficulty)  # refuses settings that cannot be drawn
    settings = {"drawing": _DRAWING, "counts": counts, "image_size": image_size, "seed": seed}
    settings |= {"domain": asdict(domain), "difficulty": asdict(difficulty)}
    folder = Path(out_dir)
    images = {split: count for split, count in counts.items() if count}
    if (boxes := _boxes_there(folder, images, settings)) is None:
        _refuse_occupied(folder, overwrite)
        target = folder.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        workshop = {"prefix": f".{target.name}.", "suffix": ".partial", "dir": target.parent}
        with tempfile.TemporaryDirectory(**workshop, ignore_cleanup_errors=True) as place:
            built = Path(place, "set")
            boxes = {
                split: _write_split(built, split, count, image_size, seed, domain, difficulty)
                for split, count in images.items()
            }
            write_json(built / _SETTINGS_FILE, {"settings": settings, "boxes": boxes})
            _move_into_place(built, target, Path(place, "replaced"))
    return ScenesSummary(folder, images, boxes, tuple(domain.class_names))


def _boxes_there(folder: Path, images: dict[str, int], settings: dict) -> dict[str, int] | None:
    """The number of boxes of each split at `folder` if all is there and was made with these settings."""
    try:
        stored = json.loads((folder / _SETTINGS_FILE).read_text(encoding="utf-8"))
        if stored["settings"] != json.loads(json.dumps(settings)):  # as it reads back: lists for tuples
            return None
        for split, count in images.items():
            files = sorted(os.listdir(folder / "images" / split))
            annotations = folder / "annotations" / f"instances_{split}.json"
            if files != [_file_name(index) for index in range(count)] or not annotations.is_file():
                return None
        return stored["boxes"]
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _refuse_occupied(folder: Path, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file: give a folder for the scenes.")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / _SETTINGS_FILE).is_file():
        raise FileExistsError(f"{folder} is not empty and holds no generated scenes: give another folder.")
    if not overwrite:
        raise FileExistsError(
            f"{folder} holds scenes that are incomplete or made with other settings: "
            "give another folder, or overwrite=True to replace them."
        )


def _move_into_place(built: Path, target: Path, replaced: Path) -> None:
    """Rename `built` to `target`; scenes that were there go to `replaced`, and come back if that fails."""
    if (target / _SETTINGS_FILE).is_file():
        os.replace(target, replaced)
    elif target.exists():
        target.rmdir()  # refuses if anything has been put there meanwhile
    try:
        os.replace(built, target)
    except BaseException:
        if replaced.exists():
            os.replace(replaced, target)
        raise


def _file_name(index: int) -> str:
    return f"{index:06d}.png"


def _write_split(
    folder: Path, split: str, count: int, image_size: int, seed: int, domain: Domain, difficulty: Difficulty
) -> int:
    """Draw and write the images and the annotation file of a split; returns its number of boxes."""
    from PIL import Image

    pictures, annotations_dir = folder / "images" / split, folder / "annotations"
    pictures.mkdir(parents=True)
    annotations_dir.mkdir(exist_ok=True)
    images, annotations = [], []
    with progress_bar(count, f"drawing {split} scenes", "image") as bar:
        for index in range(count):
            scene = draw_scene(index, image_size, seed, domain, split, difficulty)
            path = pictures / _file_name(index)
            Image.fromarray(scene.image).save(path, compress_level=1, compress_type=_HUFFMAN_ONLY)
            images.append({"id": index + 1, "file_name": path.name, "width": image_size, "height": image_size})
            if split != "unlabeled":
                annotations += _annotations(scene, index + 1, len(annotations) + 1)
            bar.update()
    names = enumerate(domain.class_names, start=1)
    categories = [{"id": number, "name": name, "supercategory": domain.name} for number, name in names]
    write_coco(annotations_dir / f"instances_{split}.json", images, annotations, categories)
    return len(annotations)


def _annotations(scene: Scene, image_id: int, first_id: int) -> list[dict]:
    """COCO annotations of one image; area is the box's, since there is no outline to measure."""
    rows = []
    for (x1, y1, x2, y2), label in zip(scene.boxes.astype(int).tolist(), scene.labels.tolist(), strict=True):
        box = [x1, y1, x2 - x1, y2 - y1]
        row = {"id": first_id + len(rows), "image_id": image_id, "category_id": label + 1, "bbox": box}
        rows.append(row | {"area": box[2] * box[3], "iscrowd": 0})
    return rows


def digest(folder: str | os.PathLike) -> str:
    """Fingerprint (sha256, 64 hex digits) of every image's pixels and every annotation file under a folder.

    It takes decoded pixels, so it does not depend on how a library compresses PNG files. Raises FileNotFoundError
    for a folder that does not exist and ValueError for one without images, or with a broken one.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder: give the folder of a data set.")
    pictures = sorted(p for p in root.rglob("*") if p.suffix.lower() in {".png", ".jpg", ".jpeg"})
    if not pictures:
        raise ValueError(f"{root} has no .png or .jpg images: give the folder of a data set.")
    total = hashlib.sha256()
    for path in progress(pictures, "reading pixels", "image"):
        pixels = load_image(path)
        total.update(f"{path.relative_to(root).as_posix()} {pixels.shape}\n".encode())
        total.update(pixels.tobytes())
    for path in sorted((root / "annotations").glob("*.json")):
        content = json.dumps(json.loads(path.read_text(encoding="utf-8")), sort_keys=True)
        total.update(f"{path.name} {content}\n".encode())
    return total.hexdigest()


def class_sheet(ax: "Axes | None" = None, domain: str | Domain = "scenes", columns: int = 6) -> "Axes":
    """Draw every class of a domain once, large and in its typical hue, with its name below; returns `ax`."""
    domain = resolve_domain(domain)
    side, rows = 120, -(-len(domain.classes) // columns)
    sheet = np.full((rows * side, columns * side, 3), _GROUND, dtype=np.uint8)
    ax = ax or _new_axes(columns * 1.4, rows * 1.4)
    for position, glyph in enumerate(domain.classes):
        row, column = divmod(position, columns)
        mask = shape_mask(glyph.character, 72)
        height, width = mask.shape
        y, x = row * side + 48 - height // 2, column * side + side // 2 - width // 2
        part = sheet[y : y + height, x : x + width]
        part[:] = np.round(part + (np.array(color(glyph.hue, 0.9, 0.52)) - part) * (mask[:, :, None] / 255))
        ax.text((column + 0.5) * side, row * side + 106, glyph.name, ha="center", va="center", fontsize=9)
    ax.imshow(sheet, interpolation="nearest")
    ax.set_axis_off()
    return ax


def contact_sheet(
    ax: "Axes | None" = None,
    domain: str | Domain = "scenes",
    rows: int = 3,
    columns: int = 6,
    difficulty: float | Difficulty = DEFAULT_DIFFICULTY,
) -> "Axes":
    """Draw the first rows x columns training scenes of a domain, each box with its class name; returns `ax`."""
    image_size = 96
    domain = resolve_domain(domain)
    gap = max(2, image_size // 24)
    step = image_size + gap
    sheet = np.full((rows * step + gap, columns * step + gap, 3), _GROUND, dtype=np.uint8)
    ax = ax or _new_axes(columns * 1.9, rows * 1.9)
    for index in range(rows * columns):
        scene = draw_scene(index, image_size, domain=domain, difficulty=difficulty)
        y, x = gap + index // columns * step, gap + index % columns * step
        sheet[y : y + image_size, x : x + image_size] = scene.image
        for box, label in zip(scene.boxes, scene.labels, strict=True):
            _mark(ax, box, domain.class_names[label], x, y, image_size)
    ax.imshow(sheet, interpolation="nearest")
    ax.set_axis_off()
    return ax


def _mark(ax: "Axes", box: np.ndarray, name: str, x: int, y: int, side: int) -> None:
    """Outline a box of the scene at (x, y) and write its name above it, or inside where there is no room."""
    from matplotlib.patches import Rectangle

    x1, y1, x2, y2 = box
    corner = (x + x1 - 0.5, y + y1 - 0.5)
    ax.add_patch(Rectangle(corner, x2 - x1, y2 - y1, fill=False, edgecolor="white", linewidth=0.9))
    above = y1 > 0.09 * side
    place = x + min(x1, 0.72 * side), y + (y1 - 0.01 * side if above else y1 + 0.015 * side)
    plate = {"boxstyle": "square,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
    ax.text(*place, name, color="black", fontsize=6, va="bottom" if above else "top", bbox=plate)


def _new_axes(width: float, height: float) -> "Axes":
    """New axes of this size in inches."""
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained")[1]
