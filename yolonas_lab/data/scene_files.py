"""Generated scenes as a COCO-format folder, the fingerprint of such a folder, and sheets of scenes (notebook 00).

A set is built beside its destination and moved there in one step, so a crash leaves no half-written set.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from yolonas_lab.common import progress, write_json
from yolonas_lab.data.coco import write_coco
from yolonas_lab.data.glyphs import shape_mask
from yolonas_lab.data.scenes import (
    DEFAULT_DIFFICULTY,
    Difficulty,
    Domain,
    color,
    difficulty_settings,
    draw_scene,
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
    if min(counts.values()) < 0 or not any(counts.values()):
        raise ValueError(f"train, val and unlabeled are {train}, {val} and {unlabeled}: ask for at least one image.")
    domain, difficulty = resolve_domain(domain), difficulty_settings(difficulty)
    draw_scene(0, image_size, seed, domain, "train", difficulty)  # refuses settings that cannot be drawn
    settings = {"drawing": _DRAWING, "counts": counts, "image_size": image_size, "seed": seed}
    settings |= {"domain": asdict(domain), "difficulty": asdict(difficulty)}
    folder = Path(out_dir)
    images = {split: count for split, count in counts.items() if count}
    if (boxes := _boxes_there(folder, images, settings)) is None:
        is_free = not folder.exists() or (folder.is_dir() and not os.listdir(folder))
        if not is_free and not (overwrite and (folder / _SETTINGS_FILE).is_file()):
            raise FileExistsError(
                f"{folder} holds other things than these scenes, or not all of them: give another folder, or "
                "overwrite=True to replace generated scenes."
            )
        target = folder.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", suffix=".partial", dir=target.parent) as place:
            built = Path(place, "set")
            boxes = {
                split: _write_split(built, split, count, image_size, seed, domain, difficulty)
                for split, count in images.items()
            }
            write_json(built / _SETTINGS_FILE, {"settings": settings, "boxes": boxes})
            if (target / _SETTINGS_FILE).is_file():
                shutil.rmtree(target)
            elif target.exists():
                target.rmdir()  # refuses if anything has been put there meanwhile
            os.replace(built, target)
    return ScenesSummary(folder, images, boxes, tuple(domain.class_names))


def _boxes_there(folder: Path, images: dict[str, int], settings: dict) -> dict[str, int] | None:
    """The number of boxes of each split at `folder` if all is there and was made with these settings."""
    try:
        stored = json.loads((folder / _SETTINGS_FILE).read_text(encoding="utf-8"))
        complete = all(len(os.listdir(folder / "images" / split)) == count for split, count in images.items())
    except OSError:
        return None
    same = stored.get("settings") == json.loads(json.dumps(settings))  # as it reads back: lists for tuples
    return stored["boxes"] if same and complete else None


def _write_split(
    folder: Path, split: str, count: int, image_size: int, seed: int, domain: Domain, difficulty: Difficulty
) -> int:
    """Draw and write the images and the annotation file of a split; returns its number of boxes."""
    from PIL import Image

    pictures, annotations_dir = folder / "images" / split, folder / "annotations"
    pictures.mkdir(parents=True)
    annotations_dir.mkdir(exist_ok=True)
    images, annotations = [], []
    for index in progress(range(count), f"drawing {split} scenes", "image"):
        scene = draw_scene(index, image_size, seed, domain, split, difficulty)
        path = pictures / f"{index:06d}.png"
        Image.fromarray(scene.image).save(path, compress_level=1, compress_type=_HUFFMAN_ONLY)
        images.append({"id": index + 1, "file_name": path.name, "width": image_size, "height": image_size})
        if split != "unlabeled":
            for (x1, y1, x2, y2), label in zip(scene.boxes.astype(int).tolist(), scene.labels.tolist(), strict=True):
                width, height = x2 - x1, y2 - y1
                row = {"id": len(annotations) + 1, "image_id": index + 1, "category_id": label + 1}
                row |= {"bbox": [x1, y1, width, height], "area": width * height, "iscrowd": 0}
                annotations.append(row)
    names = enumerate(domain.class_names, start=1)
    categories = [{"id": number, "name": name, "supercategory": domain.name} for number, name in names]
    write_coco(annotations_dir / f"instances_{split}.json", images, annotations, categories)
    return len(annotations)


def digest(folder: str | os.PathLike) -> str:
    """Fingerprint (sha256, 64 hex digits) of every image's pixels and every annotation file under a folder.

    It takes decoded pixels, so it does not depend on how a library compresses PNG files. Raises FileNotFoundError
    where there are no images and ValueError for a broken one.
    """
    root = Path(folder)
    pictures = sorted(p for p in root.rglob("*") if p.suffix.lower() in {".png", ".jpg", ".jpeg"})
    if not pictures:
        raise FileNotFoundError(f"There are no .png or .jpg images in {root}: give the folder of a data set.")
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
    side, classes = 120, resolve_domain(domain).classes
    pictures = np.full((len(classes), side, side, 3), _GROUND, dtype=np.uint8)
    for picture, glyph in zip(pictures, classes):
        mask = shape_mask(glyph.character, 72)
        height, width = mask.shape
        y, x = 48 - height // 2, side // 2 - width // 2
        part = picture[y : y + height, x : x + width]
        part[:] = np.round(part + (np.array(color(glyph.hue, 0.9, 0.52)) - part) * (mask[:, :, None] / 255))
    ax, corners = _show(ax, pictures, columns, gap=0, inches=1.4)
    for (x, y), glyph in zip(corners, classes):
        ax.text(x + side / 2, y + 106, glyph.name, ha="center", va="center", fontsize=9)
    return ax


def contact_sheet(
    ax: "Axes | None" = None,
    domain: str | Domain = "scenes",
    rows: int = 3,
    columns: int = 6,
    difficulty: float | Difficulty = DEFAULT_DIFFICULTY,
) -> "Axes":
    """Draw the first rows x columns training scenes of a domain, each box with its class name; returns `ax`."""
    names = resolve_domain(domain).class_names
    scenes = [draw_scene(index, domain=domain, difficulty=difficulty) for index in range(rows * columns)]
    ax, corners = _show(ax, [scene.image for scene in scenes], columns, gap=4, inches=1.9)
    for corner, scene in zip(corners, scenes):
        for box, label in zip(scene.boxes, scene.labels):
            _mark(ax, box, names[label], *corner, side=len(scene.image))
    return ax


def _show(
    ax: "Axes | None", pictures: Sequence[np.ndarray] | np.ndarray, columns: int, gap: int, inches: float
) -> tuple["Axes", list[tuple[int, int]]]:
    """Show square pictures (s, s, 3) uint8 in rows, gap px apart and each some inches wide if `ax` is new; returns the
    axes and the left top corner (x, y) px of each.
    """
    import matplotlib.pyplot as plt

    rows, side = -(-len(pictures) // columns), len(pictures[0])
    step = side + gap
    sheet = np.full((rows * step + gap, columns * step + gap, 3), _GROUND, dtype=np.uint8)
    corners = [(gap + number % columns * step, gap + number // columns * step) for number in range(len(pictures))]
    for (x, y), picture in zip(corners, pictures):
        sheet[y : y + side, x : x + side] = picture
    ax = ax or plt.subplots(figsize=(columns * inches, rows * inches), layout="constrained")[1]
    ax.imshow(sheet, interpolation="nearest")
    ax.set_axis_off()
    return ax, corners


def _mark(ax: "Axes", box: np.ndarray, name: str, x: int, y: int, side: int) -> None:
    """Outline a box of the scene at (x, y) and write its name above it, or inside where there is no room."""
    from matplotlib.patches import Rectangle

    x1, y1, x2, y2 = box
    corner = x + x1 - 0.5, y + y1 - 0.5
    ax.add_patch(Rectangle(corner, x2 - x1, y2 - y1, fill=False, edgecolor="white", linewidth=0.9))
    above = y1 > 0.09 * side
    place = x + min(x1, 0.72 * side), y + (y1 - 0.01 * side if above else y1 + 0.015 * side)
    plate = {"boxstyle": "square,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
    ax.text(*place, name, color="black", fontsize=6, va="bottom" if above else "top", bbox=plate)
