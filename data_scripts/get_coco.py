"""Fetch COCO 2017 in the layout of this library: images/<split>/*.jpg and annotations/instances_<split>.json.

python data_scripts/get_coco.py data/coco                                     val2017 only (1 GB)
python data_scripts/get_coco.py data/coco --splits train2017 val2017          for training (19 GB)
python data_scripts/get_coco.py data/coco --splits unlabeled2017              for pseudo-labels (19 GB)
python data_scripts/get_coco.py data/coco --splits train2017 val2017 --images 1000    a small COCO (0.6 GB)

Stopped or broken off, it goes on where it was when run again. The annotations (0.25 GB) are always fetched. Unpacking
needs as much space again as the archives. COCO's annotations are under CC BY 4.0; the images are Flickr users', each
under the licence that the annotation file names.
"""

import hashlib
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fetching import layout, parser, run

from yolonas_lab.common import progress
from yolonas_lab.data import CocoDataset, write_coco
from yolonas_lab.data.download import download, read_member, unpack_images
from yolonas_lab.sources import fetch, load_annotated_image

BASE_URL = "http://images.cocodataset.org"
ATTEMPTS = 4  # per single image
CONNECTIONS = 8  # side by side, for single images


# each file below the base URL with its MD5, as passed on in the community (COCO publishes none)
LABELS = ("annotations/annotations_trainval2017.zip", "f4bbac642086de4f52a3fdda2de5fa2c")
UNLABELED = ("annotations/image_info_unlabeled2017.zip", "ede38355d5c3e5251bb7f8b68e2c068f")
IMAGES = {
    "train2017": ("zips/train2017.zip", "cced6f7f71b7629ddf16f17bbcfab6b2"),
    "val2017": ("zips/val2017.zip", "442b8da7639aecaf257c1dceb8ba8c80"),
    "unlabeled2017": ("zips/unlabeled2017.zip", "7ebc562819fdb32847aab79530457326"),
}


def get_split(split: str, out_dir: Path, base_url: str, images: int | None, delete_archive: bool) -> CocoDataset:
    """Fetch one split, whole or `images` of it; at once if it is there."""
    name = split if images is None else f"{split}_mini{images}"
    images_dir, annotations = layout(out_dir, name)
    if not (annotations.is_file() and images_dir.is_dir()):
        content = ground_truth(split, out_dir, base_url)
        if images is None:
            if not images_dir.is_dir():
                archive = _download(IMAGES[split], out_dir, base_url)
                unpack_images([archive], images_dir)
                if delete_archive:
                    archive.unlink()
        else:
            content = smallest_hashes(content, images)
            fetch_images(content["images"], f"{base_url}/{split}", images_dir)
        write_coco(annotations, content["images"], content.get("annotations", []), content["categories"])
    return CocoDataset(images_dir, annotations)


def ground_truth(split: str, out_dir: Path, base_url: str) -> dict:
    """COCO's own annotations of a split; the unlabeled one gets the categories that the others have."""
    labels = _download(LABELS, out_dir, base_url)
    if split != "unlabeled2017":
        return json.loads(read_member(labels, f"instances_{split}.json"))
    content = json.loads(read_member(_download(UNLABELED, out_dir, base_url), "image_info_unlabeled2017.json"))
    return content | {"categories": json.loads(read_member(labels, "instances_val2017.json"))["categories"]}


def smallest_hashes(content: dict, count: int) -> dict:
    """The `count` images whose ids, written as decimal text, have the smallest SHA-256, with their annotations."""
    if not 1 <= count <= len(content["images"]):
        raise ValueError(f"--images is {count}: give a number from 1 to {len(content['images'])}, all there are.")
    by_hash = sorted(content["images"], key=lambda image: hashlib.sha256(str(image["id"]).encode()).digest())
    images = sorted(by_hash[:count], key=lambda image: image["id"])
    ids = {image["id"] for image in images}
    annotations = [entry for entry in content.get("annotations", []) if entry["image_id"] in ids]
    return content | {"images": images, "annotations": annotations}


def fetch_images(images: list[dict], url: str, folder: Path) -> None:
    """Fetch single images into a folder; those that are there already are complete."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [image for image in images if not (folder / image["file_name"]).is_file()]
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        fetched = pool.map(lambda image: _fetch_image(image, url, folder), missing)
        try:
            for _ in progress(fetched, f"fetching {folder.name}", "image", total=len(missing)):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _fetch_image(image: dict, url: str, folder: Path) -> None:
    path = folder / image["file_name"]
    unfinished = path.with_name(f".{path.name}")
    for attempt in range(ATTEMPTS):
        try:
            unfinished.write_bytes(fetch(f"{url}/{path.name}"))
            load_annotated_image(unfinished, image["width"], image["height"])  # whole, and of the annotated size
            break
        except (ConnectionError, ValueError):
            if attempt == ATTEMPTS - 1:
                unfinished.unlink(missing_ok=True)
                raise
    os.replace(unfinished, path)


def _download(archive: tuple[str, str], out_dir: Path, base_url: str) -> Path:
    path, md5 = archive
    return download(f"{base_url.rstrip('/')}/{path}", out_dir / "downloads" / Path(path).name, f"md5:{md5}")


def main(arguments: list[str]) -> int:
    options = parser(__doc__ or "", IMAGES, ["val2017"], BASE_URL)
    options.add_argument(
        "--images",
        type=int,
        metavar="N",
        help="only N images of each split, fetched one by one instead of the archive, as split <split>_miniN: those "
        "whose ids have the smallest SHA-256, so the same ones for everybody, and those of a smaller N are among them",
    )
    options.add_argument("--delete-archives", action="store_true", help="delete each image archive once it is unpacked")
    chosen = options.parse_args(arguments)
    same = chosen.out_dir, chosen.base_url, chosen.images, chosen.delete_archives
    return run("get_coco", lambda: (get_split(split, *same) for split in chosen.splits))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
