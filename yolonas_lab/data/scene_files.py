"""Writes generated scenes as a COCO-format folder (notebook 00), and takes the fingerprint of such a folder.

A set is built beside its destination and moved there in one step, so a crash leaves no half-written set.
"""

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from yolonas_lab.common import progress, progress_bar
from yolonas_lab.data.coco import write_coco
from yolonas_lab.data.glyphs import require_characters, shape_mask
from yolonas_lab.data.scenes import (
    DEFAULT_DIFFICULTY,
    Difficulty,
    Domain,
    color,
    draw_scene,
    resolve_difficulty,
    resolve_domain,
)
from yolonas_lab.sources import load_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes


SETTINGS_FILE = "scenes.json"
_HUFFMAN_ONLY = 2  # zlib strategy: noisy pictures hold no repeats to look for, so this is faster and no larger
_DRAWING = 1  # raise when the same settings no longer give the same pixels


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
    folder, counts = Path(out_dir), {"train": train, "val": val, "unlabeled": unlabeled}
    for split, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise ValueError(f"{split} is {count!r}: give the number of images, 0 or more.")
    if not any(counts.values()):
        raise ValueError("train, val and unlabeled are all 0: ask for at least one image.")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ValueError(f"seed is {seed!r}: give a whole number.")
    domain, difficulty = resolve_domain(domain), resolve_difficulty(difficulty)
    require_characters("".join(glyph.character for glyph in domain.classes))
    draw_scene(0, image_size, seed, domain, "train", difficulty)  # refuses settings that cannot be drawn
    wanted = {
        "drawing": _DRAWING,
        "counts": counts,
        "image_size": image_size,
        "seed": seed,
        "domain": asdict(domain),
        "difficulty": asdict(difficulty),
    }
    wanted = json.loads(json.dumps(wanted))  # as it reads back: lists for tuples
    if (found := _existing(folder, wanted, domain)) is not None:
        return found
    _refuse_occupied(folder, overwrite)
    target = folder.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    try:
        built = workshop / "set"
        boxes = _write_splits(built, counts, image_size, seed, domain, difficulty)
        (built / SETTINGS_FILE).write_text(json.dumps({"settings": wanted, "boxes": boxes}, indent=1, sort_keys=True))
        _move_into_place(built, target, workshop / "replaced")
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
    return ScenesSummary(folder, {s: n for s, n in counts.items() if n}, boxes, tuple(domain.class_names))


def _existing(folder: Path, wanted: dict, domain: Domain) -> ScenesSummary | None:
    """The set at `folder` if it is complete and was made with these settings."""
    settings_file = folder / SETTINGS_FILE
    if not settings_file.is_file():
        return None
    try:
        stored = json.loads(settings_file.read_text())
    except ValueError:
        return None
    if not isinstance(stored, dict) or stored.get("settings") != wanted or "boxes" not in stored:
        return None
    images = {split: count for split, count in wanted["counts"].items() if count}
    summary = ScenesSummary(folder, images, stored["boxes"], tuple(domain.class_names))
    for split, count in images.items():
        pictures = summary.images_dir(split)
        if not summary.annotations(split).is_file() or not pictures.is_dir():
            return None
        if sorted(os.listdir(pictures)) != [_file_name(index) for index in range(count)]:
            return None
    return summary


def _refuse_occupied(folder: Path, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FileExistsError(f"{folder} is a file: give a folder for the scenes.")
    if not any(folder.iterdir()):
        return
    if not (folder / SETTINGS_FILE).is_file():
        raise FileExistsError(f"{folder} is not empty and holds no generated scenes: give another folder.")
    if not overwrite:
        raise FileExistsError(
            f"{folder} holds scenes that are incomplete or made with other settings: "
            "give another folder, or overwrite=True to replace them."
        )


def _move_into_place(built: Path, target: Path, replaced: Path) -> None:
    """Rename `built` to `target`; scenes that were there go to `replaced`, and come back if that fails."""
    if (target / SETTINGS_FILE).is_file():
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


def _write_splits(
    folder: Path, counts: dict[str, int], image_size: int, seed: int, domain: Domain, difficulty: Difficulty
) -> dict[str, int]:
    """Write every split that has images; returns its number of boxes."""
    from PIL import Image

    categories = [
        {"id": label + 1, "name": name, "supercategory": domain.name} for label, name in enumerate(domain.class_names)
    ]
    boxes = {}
    with progress_bar(sum(counts.values()), "drawing scenes", "image") as bar:
        for split, count in counts.items():
            if count == 0:
                continue
            pictures = folder / "images" / split
            pictures.mkdir(parents=True)
            images, annotations = [], []
            for index in range(count):
                scene = draw_scene(index, image_size, seed, domain, split, difficulty)
                Image.fromarray(scene.image).save(
                    pictures / _file_name(index), compress_level=1, compress_type=_HUFFMAN_ONLY
                )
                images.append(
                    {"id": index + 1, "file_name": _file_name(index), "width": image_size, "height": image_size}
                )
                if split != "unlabeled":
                    annotations += _annotations(scene.boxes, scene.labels, index + 1, len(annotations) + 1)
                bar.update()
            (folder / "annotations").mkdir(exist_ok=True)
            write_coco(folder / "annotations" / f"instances_{split}.json", images, annotations, categories)
            boxes[split] = len(annotations)
    return boxes


def _annotations(boxes: np.ndarray, labels: np.ndarray, image_id: int, first_id: int) -> list[dict]:
    """COCO annotations of one image; area is the box's, since there is no outline to measure."""
    return [
        {
            "id": first_id + k,
            "image_id": image_id,
            "category_id": int(label) + 1,
            "bbox": [int(x1), int(y1), int(x2 - x1), int(y2 - y1)],
            "area": int((x2 - x1) * (y2 - y1)),
            "iscrowd": 0,
        }
        for k, ((x1, y1, x2, y2), label) in enumerate(zip(boxes, labels, strict=True))
    ]


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


# Pictures of generated scenes for the notebooks: a sheet of scenes with their boxes under a row of the classes.

_GROUND = 250  # gray level between the pictures


def class_sheet(ax: "Axes | None" = None, domain: str | Domain = "scenes", columns: int = 6) -> "Axes":
    """Draw every class of a domain once, large and in its typical hue, with its name below; returns `ax`."""
    domain = resolve_domain(domain)
    side, rows = 120, -(-len(domain.classes) // columns)
    sheet = np.full((rows * side, columns * side, 3), _GROUND, dtype=np.uint8)
    ax = _axes(ax, columns * 1.4, rows * 1.4)
    for position, glyph in enumerate(domain.classes):
        row, column = divmod(position, columns)
        mask = shape_mask(glyph.character, 72)
        alpha = mask[:, :, None] / 255
        y = row * side + 48 - mask.shape[0] // 2
        x = column * side + side // 2 - mask.shape[1] // 2
        part = sheet[y : y + mask.shape[0], x : x + mask.shape[1]]
        part[:] = np.round(part + (np.array(color(glyph.hue, 0.9, 0.52)) - part) * alpha)
        ax.text((column + 0.5) * side, row * side + 106, glyph.name, ha="center", va="center", fontsize=9)
    return _show(ax, sheet)


def contact_sheet(
    ax: "Axes | None" = None,
    domain: str | Domain = "scenes",
    rows: int = 3,
    columns: int = 6,
    image_size: int = 96,
    seed: int = 0,
    difficulty: float | Difficulty = DEFAULT_DIFFICULTY,
    names: bool = True,
) -> "Axes":
    """Draw the first rows x columns training scenes of a domain side by side; returns `ax`.

    With `names`, every object has its box and, above it, its class name. Raises ValueError as `draw_scene` does.
    """
    if rows < 1 or columns < 1:
        raise ValueError(f"rows and columns are {rows} and {columns}: give at least 1 of each.")
    domain = resolve_domain(domain)
    gap = max(2, image_size // 24)
    step = image_size + gap
    sheet = np.full((rows * step + gap, columns * step + gap, 3), _GROUND, dtype=np.uint8)
    ax = _axes(ax, columns * 1.9, rows * 1.9)
    for index in range(rows * columns):
        scene = draw_scene(index, image_size, seed, domain, "train", difficulty)
        y, x = gap + index // columns * step, gap + index % columns * step
        sheet[y : y + image_size, x : x + image_size] = scene.image
        for box, label in zip(scene.boxes, scene.labels, strict=True) if names else ():
            _mark(ax, box, domain.class_names[label], x, y, image_size)
    return _show(ax, sheet)


def _mark(ax: "Axes", box: np.ndarray, name: str, x: int, y: int, side: int) -> None:
    """Outline a box of the scene at (x, y) and write its name above it, or inside where there is no room."""
    from matplotlib.patches import Rectangle

    x1, y1, x2, y2 = box
    corner = (x + x1 - 0.5, y + y1 - 0.5)
    ax.add_patch(Rectangle(corner, x2 - x1, y2 - y1, fill=False, edgecolor="white", linewidth=0.9))
    above = y1 > 0.09 * side
    ax.text(
        x + min(x1, 0.72 * side),
        y + (y1 - 0.01 * side if above else y1 + 0.015 * side),
        name,
        color="black",
        fontsize=6,
        va="bottom" if above else "top",
        bbox={"boxstyle": "square,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
    )


def _axes(ax: "Axes | None", width: float, height: float) -> "Axes":
    """The given axes, or new ones of that size in inches."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def _show(ax: "Axes", sheet: np.ndarray) -> "Axes":
    ax.imshow(sheet, interpolation="nearest")
    ax.set_axis_off()
    return ax
