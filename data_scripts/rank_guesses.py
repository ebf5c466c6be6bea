"""Measure which guesses order networks as training does: the supernet's AP, proxies without cost, a short training.

python data_scripts/rank_guesses.py
python data_scripts/rank_guesses.py --networks 5 --steps 8 --out /tmp/ranking.json --work-dir /tmp/ranking

Trains networks of the lab space from scratch and writes their AP, all guesses and Kendall's tau of each. Networks from
the smallest to the largest are taken. A run that was stopped goes on where it was.
"""

import argparse
import dataclasses
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from make_weights import SETTINGS, draw_split

from yolonas_lab.common import machine_name, write_json
from yolonas_lab.data import CocoDataset
from yolonas_lab.data.loader import Loader
from yolonas_lab.experiments.harness import git_revision
from yolonas_lab.experiments.jobs import Job, run_jobs, stop_with_parent
from yolonas_lab.models.configs import YoloNASConfig
from yolonas_lab.search import proxies
from yolonas_lab.search.proxies import FEWEST_NETWORKS, rank
from yolonas_lab.search.space import choices_of, spread_sample
from yolonas_lab.search.supernet import SUPERNET_SPACE, SUPERNET_WEIGHTS, calibration_batches, load_supernet, score
from yolonas_lab.training import LAB, TrainConfig

SHORT_STEPS = 100  # of the guess "short training"
SCORED_IMAGES = 200  # of the guesses that are an AP; the truth is counted on the other validation images
IMAGES = 32  # of the guesses that look at images


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=20, help="how many are trained (default %(default)s)")
    parser.add_argument("--steps", type=int, default=1600, help="of each training (default %(default)s)")
    parser.add_argument("--supernet", type=Path, default=SUPERNET_WEIGHTS, help="weights (default: the shipped ones)")
    parser.add_argument("--processes", type=int, default=2, help="networks at a time, one thread each (default 2)")
    parser.add_argument("--out", type=Path, default=Path("runs/ranking.json"), help="default %(default)s")
    parser.add_argument("--work-dir", type=Path, default=Path("runs/ranking"), help="default %(default)s")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    torch.set_num_threads(1)
    try:
        if options.only is not None:
            stop_with_parent()
            measure(options.only, options)
            return 0
        if options.networks < FEWEST_NETWORKS:
            raise ValueError(f"--networks is {options.networks}: give at least {FEWEST_NETWORKS}.")
        load_supernet(options.supernet)  # fail now rather than after the first training
        for split in ("train", "val"):
            draw_split(split, options.work_dir / f"scenes_{split}")
        run_jobs([_job(number, options) for number in range(options.networks)], options.processes, "training")
        print(_collect(options))
    except (ValueError, OSError, RuntimeError, FloatingPointError) as error:
        print(f"rank_guesses: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("rank_guesses: stopped; the same command goes on from the last checkpoints.", file=sys.stderr)
        return 130
    return 0


def networks(count: int) -> list[YoloNASConfig]:
    """The networks that are trained, from small to large."""
    return spread_sample(SUPERNET_SPACE, count, np.random.default_rng(0))


def measure(number: int, options: argparse.Namespace) -> None:
    """Guess one network's AP in every way, train it, and write both down. A training that was done is only loaded."""
    path = _row_path(number, options)
    train_set, val_set = (draw_split(split, options.work_dir / f"scenes_{split}") for split in ("train", "val"))
    config = networks(options.networks)[number]
    guesses, seconds = {}, {}
    for name, guess in _guesses(train_set, val_set, load_supernet(options.supernet)).items():
        began = time.process_time()
        guesses[name] = guess(config)
        seconds[name] = round(time.process_time() - began, 3)
    recipe = dataclasses.replace(_recipe(options.steps), out_dir=path.with_suffix(""))
    others = val_set.subset(range(SCORED_IMAGES, len(val_set)))
    ap = proxies.trained(config, train_set, others, recipe)
    row = {"choices": choices_of(config), "ap": ap, "guesses": guesses, "seconds": seconds}
    write_json(path, row)


def _guesses(train_set: CocoDataset, val_set: CocoDataset, supernet: Any) -> dict[str, Any]:
    """Every guess by its name, as config -> float."""
    size, classes = SETTINGS["image_size"], len(train_set.class_names)
    batch = next(Loader(train_set, IMAGES, size).batches(0))
    few = val_set.subset(range(SCORED_IMAGES))
    short = partial(proxies.trained, recipe=_recipe(SHORT_STEPS), seed=1)
    return {
        "supernet": partial(score, supernet, calibration=calibration_batches(train_set, size), val_set=few),
        "short training": partial(short, train_set=train_set, val_set=few),
        "parameters": partial(proxies.parameters, num_classes=classes),
        "macs": partial(proxies.macs, image_size=size, num_classes=classes),
        "naswot": partial(proxies.naswot, images=batch.images, num_classes=classes),
        "grad_norm": partial(proxies.grad_norm, batch=batch, num_classes=classes),
        "synflow": partial(proxies.synflow, image_size=size, num_classes=classes),
    }


def _recipe(steps: int) -> TrainConfig:
    return dataclasses.replace(LAB, steps=steps, image_size=SETTINGS["image_size"], evaluate_every=None)


def _collect(options: argparse.Namespace) -> str:
    """Write what was measured as one file; returns tau by guess, to be printed."""
    rows = [json.loads(_row_path(n, options).read_text(encoding="utf-8")) for n in range(options.networks)]
    truth = [row["ap"] for row in rows]
    taus = rank({name: [row["guesses"][name] for row in rows] for name in rows[0]["guesses"]}, truth)
    content = {
        "steps": options.steps,
        "settings": {**SETTINGS, "short_steps": SHORT_STEPS, "scored_images": SCORED_IMAGES, "images": IMAGES},
        "machine": machine_name(),
        "torch_version": torch.__version__,
        "git_revision": git_revision(),
        "taus": {name: tau._asdict() for name, tau in taus.items()},
        "networks": rows,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, content)
    lines = [f"Kendall's tau with the AP after {options.steps} steps ({min(truth):.3f} to {max(truth):.3f}):"]
    return "\n".join(lines + [f"{name:<14} {tau}" for name, tau in taus.items()])


def _row_path(number: int, options: argparse.Namespace) -> Path:
    return options.work_dir / f"{number:02}-of-{options.networks}-{options.steps}-steps.json"


def _job(number: int, options: argparse.Namespace) -> Job:
    passed = [
        f"--{name}={getattr(options, name.replace('-', '_'))}" for name in ("networks", "steps", "supernet", "work-dir")
    ]
    log = options.work_dir / f"{number:02}.log"
    return Job(f"network {number}", (__file__, *passed, f"--only={number}"), log)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
