"""Fetch Pascal VOC in COCO format: images/<split>/*.jpg and annotations/instances_<split>.json, 20 classes.

python data_scripts/get_pascal_voc.py data/voc        train0712 (train and val of both years) and test2007 (2.8 GB)
python data_scripts/get_pascal_voc.py data/voc --splits train2007 val2007

Stopped or broken off, it goes on where it was when run again. Unpacking needs as much space again. Boxes become zero
based (VOC counts pixels from 1, both ends included). Objects marked difficult, which VOC's own evaluation ignores, are
marked as crowds: training leaves them out, and evaluation neither asks for them nor punishes finding them. The images
are Flickr users' and for research.
"""

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple

from fetching import layout, parser, run

from yolonas_lab.data import CocoDataset, write_coco
from yolonas_lab.data.download import download, read_texts, unpack_images

BASE_URL = "http://host.robots.ox.ac.uk/pascal/VOC"
CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


class Part(NamedTuple):
    """One of VOC's own sets: its archive below the base URL, the archive's MD5, the year's folder, the set's name."""

    archive: str
    md5: str
    year: str
    name: str


_2007 = ("voc2007/VOCtrainval_06-Nov-2007.tar", "c52e279531787c972589f7e41ab4ae64", "VOC2007")
_2012 = ("voc2012/VOCtrainval_11-May-2012.tar", "6cd6e144f989b92b3379bac3b3de84fd", "VOC2012")
SPLITS = {
    "train0712": (Part(*_2007, "trainval"), Part(*_2012, "trainval")),
    "test2007": (Part("voc2007/VOCtest_06-Nov-2007.tar", "b6e924de25625d8de591ea690078ad9f", "VOC2007", "test"),),
    "train2007": (Part(*_2007, "train"),),
    "val2007": (Part(*_2007, "val"),),
    "train2012": (Part(*_2012, "train"),),
    "val2012": (Part(*_2012, "val"),),
}


def get_split(split: str, out_dir: Path, base_url: str) -> CocoDataset:
    """Fetch one split; at once if it is there."""
    images_dir, annotations = layout(out_dir, split)
    if not (annotations.is_file() and images_dir.is_dir()):
        archives, images, boxes = [], [], []
        wanted: set[str] = set()
        for part in SPLITS[split]:
            path = out_dir / "downloads" / Path(part.archive).name
            archives.append(download(f"{base_url.rstrip('/')}/{part.archive}", path, f"md5:{part.md5}"))
            for name, xml in annotations_of(archives[-1], part).items():
                image, objects = convert(xml, name, len(images) + 1, len(boxes) + 1)
                images.append(image)
                boxes += objects
                wanted.add(f"{part.year}/JPEGImages/{name}.jpg")
        unpack_images(archives, images_dir, lambda member: "/".join(member.split("/")[-3:]) in wanted)
        categories = [{"id": label, "name": name} for label, name in enumerate(CLASSES, start=1)]
        write_coco(annotations, images, boxes, categories)
    return CocoDataset(images_dir, annotations)


def annotations_of(archive: Path, part: Part) -> dict[str, bytes]:
    """The XML of every image of a set, by the image's name, in the set's order."""
    listing, folder = f"{part.year}/ImageSets/Main/{part.name}.txt", f"{part.year}/Annotations/"
    texts = read_texts(archive, lambda member: member.endswith(listing) or folder in member)
    lists = [content for member, content in texts.items() if member.endswith(listing)]
    if not lists:
        raise ValueError(f"{archive} has no {listing}: is it the right file?")
    by_name = {Path(member).stem: content for member, content in texts.items() if folder in member}
    names = lists[0].decode().split()
    if missing := [name for name in names if name not in by_name]:
        raise ValueError(f"{archive} has no annotations for {len(missing)} images, first {missing[0]}: fetch it anew.")
    return {name: by_name[name] for name in names}


def convert(xml: bytes, name: str, image_id: int, first_id: int) -> tuple[dict, list[dict]]:
    """The COCO entries of one image and its objects."""
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise ValueError(
            f"The annotation of image {name} is not valid XML ({error}): fetch the archive anew."
        ) from None
    width, height = (int(root.findtext(f"size/{side}", "0")) for side in ("width", "height"))
    image = {"id": image_id, "file_name": f"{name}.jpg", "width": width, "height": height}
    objects = []
    for number, entry in enumerate(root.findall("object")):  # without the parts (head, hand) inside an object
        corners = (float(entry.findtext(f"bndbox/{side}", "nan")) for side in ("xmin", "ymin", "xmax", "ymax"))
        x1, y1, x2, y2 = corners
        class_name = entry.findtext("name", "")
        if class_name not in CLASSES:
            raise ValueError(f"The annotation of image {name} has an object '{class_name}', which is no class of VOC.")
        box = [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1]
        row = {"id": first_id + number, "image_id": image_id, "category_id": CLASSES.index(class_name) + 1, "bbox": box}
        objects.append(row | {"area": box[2] * box[3], "iscrowd": int(entry.findtext("difficult", "0"))})
    return image, objects


def main(arguments: list[str]) -> int:
    chosen = parser(__doc__ or "", SPLITS, ["train0712", "test2007"], BASE_URL).parse_args(arguments)
    where = chosen.out_dir, chosen.base_url
    return run("get_pascal_voc", lambda: (get_split(split, *where) for split in chosen.splits))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
