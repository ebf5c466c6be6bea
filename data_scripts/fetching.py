"""What the three scripts that fetch data sets share: the command line, the layout, and how errors are told."""

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from yolonas_lab.data import CocoDataset


def parser(description: str, splits: Iterable[str], default: list[str], base_url: str) -> argparse.ArgumentParser:
    """A command line with the options that all three have."""
    found = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    found.add_argument("out_dir", type=Path, help="folder to fill; the archives go to its subfolder downloads/")
    shown = " ".join(default)
    found.add_argument("--splits", nargs="+", default=default, choices=list(splits), help=f"default: {shown}")
    found.add_argument("--base-url", default=base_url, help="another server with the same files (default %(default)s)")
    return found


def layout(out_dir: Path, split: str) -> tuple[Path, Path]:
    """The images folder and the annotation file of a split, as everything in this library expects them."""
    annotations = out_dir / "annotations" / f"instances_{split}.json"
    annotations.parent.mkdir(parents=True, exist_ok=True)
    return out_dir / "images" / split, annotations


def run(script: str, datasets: Callable[[], Iterable[CocoDataset]]) -> int:
    """Make the data sets and report each, or the error in one sentence; returns the exit status."""
    try:
        for dataset in datasets():
            print(f"{dataset.images_dir} with {dataset.annotations_path}:\n{dataset.report}")
    except (ValueError, OSError) as error:
        print(f"{script}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{script}: stopped; run it again to go on from here.", file=sys.stderr)
        return 130
    return 0
