"""Small folders of flat images, labeled or not, and a teacher that knows an answer for each shade of red."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

import yolonas_lab as yl
from tests.known_detector import KnownDetector, by_center_pixel

CLASSES = ["ant", "bee"]
SIDE = 64  # px of the images; the network sees them with padding for 636 of 640 px, that is none here


def images(folder, shades, prefix=""):
    """One flat image per red value, named after it."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for shade in shades:
        pixels = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
        pixels[..., 0] = shade
        Image.fromarray(pixels).save(Path(folder) / f"{prefix}{shade:03d}.png")
    return Path(folder)


def coco(path, folder, shades, boxes=(), ids=(3, 7), names=CLASSES, prefix=""):
    """A data set of such images; boxes: rows (shade, x, y, width, height, label[, crowd])."""
    rows = [
        {"id": 10 + n, "file_name": f"{prefix}{s:03d}.png", "width": SIDE, "height": SIDE} for n, s in enumerate(shades)
    ]
    annotations = [
        {"id": 100 + n, "image_id": 10 + list(shades).index(s), "category_id": ids[label], "bbox": [x, y, w, h]}
        | {"iscrowd": int(bool(crowd))}
        for n, (s, x, y, w, h, label, *crowd) in enumerate(boxes)
    ]
    yl.data.write_coco(path, rows, annotations, [{"id": i, "name": name} for i, name in zip(ids, names)])
    return yl.data.CocoDataset(folder, path)


def teacher(answers, names=CLASSES):
    """answers: shade -> rows (x1, y1, x2, y2, label, score)."""
    known = {}
    for shade, rows in answers.items():
        boxes = torch.tensor([row[:4] for row in rows], dtype=torch.float64).reshape(-1, 4)
        scores = torch.full((len(rows), len(names)), 1e-6, dtype=torch.float64)
        for number, row in enumerate(rows):
            scores[number, row[4]] = row[5]
        known[shade] = boxes, scores
    return KnownDetector(by_center_pixel(known), names, SIDE)
