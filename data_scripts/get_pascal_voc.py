"""Fetch Pascal VOC in COCO format: images/<split>/*.jpg and annotations/instances_<split>.json, 20 classes.

python data_scripts/get_pascal_voc.py data/voc                           train0712 and test2007 (2.8 GB), as in papers
python data_scripts/get_pascal_voc.py data/voc --splits train2007 val2007

Stopped or broken off, it goes on where it was when run again. Unpacking needs as much space again. Boxes become zero
based (VOC counts pixels from 1, both ends included). Objects marked difficult, which VOC's own evaluation ignores, are
marked as crowds: training leaves them out, and evaluation neither asks for them nor punishes finding them. The images
are Flickr users' and for research.
"""

import argparse
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from yolonas_lab.data import CocoDataset, write_coco
from yolonas_lab.data.download import download, read_texts, unpack_images

BASE_URL = "http://host.robots.ox.ac.uk/pascal/VOC"
CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One of VOC's own sets: its archive below the base URL, the archive's MD5, the year's folder, the set's name."""

    archive: str
    md5: str
    year: str
    name: str


def _trainval07(name: str) -> Part:
    return Part("voc2007/VOCtrainval_06-Nov-2007.tar", "c52e279531787c972589f7e41ab4ae64", "VOC2007", name)


def _trainval12(name: str) -> Part:
    return Part("voc2012/VOCtrainval_11-May-2012.tar", "6cd6e144f989b92b3379bac3b3de84fd", "VOC2012", name)


SPLITS = {
    "train0712": (_trainval07("trainval"), _trainval12("trainval")),
    "test2007": (Part("voc2007/VOCtest_06-Nov-2007.tar", "b6e924de25625d8de591ea690078ad9f", "VOC2007", "test"),),
    "train2007": (_trainval07("train"),),
    "val2007": (_trainval07("val"),),
    "train2012": (_trainval12("train"),),
    "val2012": (_trainval12("val"),),
}


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("out_dir", type=Path, help="folder to fill; the archives go to its subfolder downloads/")
    parser.add_argument(
        "--splits",
        nargs="+",
        default=["train0712", "test2007"],
        choices=list(SPLITS),
        help="default: train0712 (train and val of 2007 and 2012 together) and test2007",
    )
    parser.add_argument("--base-url", default=BASE_URL, help="another server with the same files (default %(default)s)")
    return parser.parse_args(arguments)


def get_split(split: str, out_dir: Path, base_url: str) -> CocoDataset:
    """Fetch one split; at once if it is there."""
    images_dir, annotations = out_dir / "images" / split, out_dir / "annotations" / f"instances_{split}.json"
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
        annotations.parent.mkdir(parents=True, exist_ok=True)
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
        objects.append(
            {
                "id": first_id + number,
                "image_id": image_id,
                "category_id": CLASSES.index(class_name) + 1,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": int(entry.findtext("difficult", "0")),
            }
        )
    return image, objects


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    try:
        for split in options.splits:
            dataset = get_split(split, options.out_dir, options.base_url)
            print(f"{dataset.images_dir} with {dataset.annotations_path}:\n{dataset.report}")
    except (ValueError, OSError) as error:
        print(f"get_pascal_voc: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("get_pascal_voc: stopped; run it again to go on from here.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
