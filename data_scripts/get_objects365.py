"""Fetch Objects365 (version 2) in COCO format: images/<split>/patchN/*.jpg and annotations/instances_<split>.json.

python data_scripts/get_objects365.py data/objects365                                 val: 80,000 images
python data_scripts/get_objects365.py data/objects365 --splits train --patches 0-3    4 of the 51 parts of train
python data_scripts/get_objects365.py data/objects365 --splits train val              all: about 700 GB while unpacking

Stopped or broken off, it goes on where it was when run again; more patches may be added later. The annotation file
then lists the images of all patches that are there. Reading train's annotations takes tens of GB of memory. The
publisher gives no checksums: those of the first download are recorded, and later downloads must agree. Annotations
are under CC BY 4.0 (objects365.org); the images are Flickr users'.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from fetching import layout, parser, run

from yolonas_lab.data import CocoDataset, write_coco
from yolonas_lab.data.download import download, read_member, unpack_images

BASE_URL = "https://dorc.ks3-cn-beijing.ksyuncs.com/data-set/2020Objects365%E6%95%B0%E6%8D%AE%E9%9B%86"
PATCHES = {"train": 51, "val": 44}
LABELS = {"train": "train/zhiyuan_objv2_train.tar.gz", "val": "val/zhiyuan_objv2_val.json"}


def patch_numbers(text: str | None, split: str) -> range:
    """0 … n - 1 of a split, or the part of it that "FIRST-LAST" or "NUMBER" names."""
    if text is None:
        return range(PATCHES[split])
    numbers = [int(part) if part.isdecimal() else -1 for part in text.split("-")]
    first, last = numbers[0], numbers[-1]
    if len(numbers) > 2 or min(numbers) < 0 or not first <= last < PATCHES[split]:
        raise ValueError(f"--patches is {text}: give numbers from 0 to {PATCHES[split] - 1} of {split}, such as 0-3.")
    return range(first, last + 1)


def patch_path(split: str, number: int) -> str:
    """Where the archive of a patch lies below the base URL; the validation images come in two versions."""
    if split == "train":
        return f"train/patch{number}.tar.gz"
    return f"val/images/{'v1' if number < 16 else 'v2'}/patch{number}.tar.gz"


def get_split(split: str, out_dir: Path, base_url: str, patches: range, delete_archives: bool) -> CocoDataset:
    """Fetch the annotations and these patches of a split; what is there already is kept."""
    images_dir, annotations = layout(out_dir, split)
    new = [number for number in patches if not (images_dir / f"patch{number}").is_dir()]
    for number in new:
        archive = _download(patch_path(split, number), split, out_dir, base_url)
        unpack_images([archive], images_dir / f"patch{number}")
        if delete_archives:
            archive.unlink()
    if new or not annotations.is_file():
        content, missing = with_files(ground_truth(split, out_dir, base_url), images_dir)
        if missing:
            print(f"{missing} images of the annotation file are not in the patches fetched so far and are left out.")
        write_coco(annotations, content["images"], content["annotations"], content["categories"])
    return CocoDataset(images_dir, annotations)


def ground_truth(split: str, out_dir: Path, base_url: str) -> dict:
    """Objects365's own annotations of a split."""
    path = _download(LABELS[split], split, out_dir, base_url)
    return json.loads(path.read_bytes() if path.suffix == ".json" else read_member(path, "zhiyuan_objv2_train.json"))


def with_files(content: dict, images_dir: Path) -> tuple[dict, int]:
    """Only the images that lie below images_dir, under their path there, and how many others there were."""
    place = {path.name: path.relative_to(images_dir).as_posix() for path in images_dir.glob("patch*/*")}
    images = [
        image | {"file_name": place[name]}
        for image in content["images"]
        if (name := image["file_name"].rsplit("/", 1)[-1]) in place
    ]
    ids = {image["id"] for image in images}
    annotations = [entry for entry in content["annotations"] if entry["image_id"] in ids]
    if not images:
        raise ValueError(f"None of the images in {images_dir} is in the annotation file: are both from one version?")
    kept = {"images": images, "annotations": annotations, "categories": content["categories"]}
    return kept, len(content["images"]) - len(images)


def _download(path: str, split: str, out_dir: Path, base_url: str) -> Path:
    return download(f"{base_url.rstrip('/')}/{path}", out_dir / "downloads" / split / Path(path).name)


def main(arguments: list[str]) -> int:
    options = parser(__doc__ or "", PATCHES, ["val"], BASE_URL)
    options.add_argument("--patches", metavar="FIRST-LAST", help="only these parts of each split, such as 0-3 or 7")
    options.add_argument("--delete-archives", action="store_true", help="delete each image archive once it is unpacked")
    chosen = options.parse_args(arguments)

    def datasets() -> Iterator[CocoDataset]:
        wanted = {split: patch_numbers(chosen.patches, split) for split in chosen.splits}
        for split, patches in wanted.items():
            yield get_split(split, chosen.out_dir, chosen.base_url, patches, chosen.delete_archives)

    return run("get_objects365", datasets)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
