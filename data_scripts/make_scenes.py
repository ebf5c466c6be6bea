"""Make the generated detection data set: colored symbols on soft cluttered grounds, in COCO format.

python data_scripts/make_scenes.py data/scenes
python data_scripts/make_scenes.py data/pretrain --domain scenes_pretrain --train 5000
"""

import argparse
import sys

from yolonas_lab.data import DEFAULT_DIFFICULTY, digest, make_scenes


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("out_dir", help="folder to make: images/<split>/*.png and annotations/instances_<split>.json")
    parser.add_argument("--train", type=int, default=2000, help="training images (default %(default)s)")
    parser.add_argument("--val", type=int, default=300, help="validation images (default %(default)s)")
    parser.add_argument("--unlabeled", type=int, default=0, help="images without annotations (default %(default)s)")
    parser.add_argument(
        "--image-size", type=int, default=96, help="side of an image in pixels, 32 to 1024 (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed, another data set (default %(default)s)")
    parser.add_argument(
        "--domain",
        default="scenes",
        help="scenes: the target; scenes_pretrain: other classes and colors, to pre-train on (default %(default)s)",
    )
    parser.add_argument(
        "--difficulty", type=float, default=DEFAULT_DIFFICULTY, help="0 easy to 1 hard (default %(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace generated scenes that are already there")
    parser.add_argument("--digest", action="store_true", help="also print the fingerprint (sha256) of the data set")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    try:
        summary = make_scenes(
            options.out_dir,
            train=options.train,
            val=options.val,
            unlabeled=options.unlabeled,
            image_size=options.image_size,
            seed=options.seed,
            domain=options.domain,
            difficulty=options.difficulty,
            overwrite=options.overwrite,
        )
    except (ValueError, OSError) as error:
        print(f"make_scenes: {error}", file=sys.stderr)
        return 1
    print(summary)
    if options.digest:
        print(f"digest {digest(summary.folder)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
