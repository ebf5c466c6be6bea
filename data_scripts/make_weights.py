"""Train the lab models that yolonas_lab/weights/ holds, each with a card that says how it was made and how good it is.

python data_scripts/make_weights.py
python data_scripts/make_weights.py --only yolo_nas_pico
python data_scripts/make_weights.py --only supernet
python data_scripts/make_weights.py --only yolo_nas_pico --budget 0.1 --out /tmp/weights

A run that was stopped goes on where it was. The same machine and torch version give the same weights, bit for bit.
"""

import argparse
import copy
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import torch

import yolonas_lab as yl
from yolonas_lab.common import machine_name, unknown_name, write_json
from yolonas_lab.experiments.harness import git_revision, plain, settings_digest
from yolonas_lab.experiments.jobs import Job, run_jobs, stop_with_parent
from yolonas_lab.losses import DistillConfig
from yolonas_lab.models import CONFIGS, YoloNAS
from yolonas_lab.models.get import WEIGHTS_DIR
from yolonas_lab.search.space import largest, smallest
from yolonas_lab.search.supernet import (
    RANDOM_NETWORKS,
    SUPERNET_SPACE,
    calibration_batches,
    load_supernet,
    score,
    train_supernet,
)
from yolonas_lab.training import LAB, History, TrainConfig, fit
from yolonas_lab.training.checkpoint import save_weights

STEPS = {
    "yolo_nas_pico": 4000,
    "yolo_nas_pico_repvgg": 4000,
    "yolo_nas_nano": 8000,
    "yolo_nas_nano_repvgg": 8000,
}
SETTINGS = {
    "image_size": 64,  # px
    "difficulty": 0.5,
    "train_images": 4000,
    "val_images": 500,
    "data_seed": 0,
    "seed": 0,  # of the initial weights, the order of the data and its augmentation
    "steps": STEPS,
    "recipe": dataclasses.replace(LAB, steps=1).decisive(),  # image_size, seed and steps are those above
}
SUPERNET = "supernet"
SUPERNET_STEPS = 8000  # of four networks each
NAMES = (*STEPS, SUPERNET)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="NAME", help=f"one of {', '.join(NAMES)}; may be repeated")
    parser.add_argument("--processes", type=int, default=2, help="models at a time, one thread each (default 2)")
    parser.add_argument("--budget", type=float, default=1.0, help="share of the training steps, to try it (default 1)")
    parser.add_argument("--out", help="folder for weights and cards (default: the package's; needed with --budget)")
    parser.add_argument("--work-dir", default="runs/weights", help="for data and checkpoints (default %(default)s)")
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    names = options.only or list(NAMES)
    try:
        _check(options, names)
        out, work = Path(options.out or WEIGHTS_DIR), Path(options.work_dir)
        if options.in_this_process:
            stop_with_parent()
            make(names[0], out, work, options.budget)
        else:
            _make_side_by_side(names, out, work, options)
    except (ValueError, OSError, RuntimeError, FloatingPointError) as error:
        print(f"make_weights: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("make_weights: stopped; the same command goes on from the last checkpoints.", file=sys.stderr)
        return 130
    return 0


def make(name: str, out: Path, work: Path, budget: float = 1.0) -> dict[str, Any]:
    """Train one model and write NAME_scenes.safetensors (float16) and its card NAME_scenes.json; returns the card."""
    torch.set_num_threads(1)
    revision = git_revision()
    train_set, val_set = (_dataset(split, work) for split in ("train", "val"))
    config = _config(name, work, budget)
    torch.manual_seed(config.seed)
    model, history = _trained(name, train_set, val_set, config)

    path = out / f"{name}_scenes.safetensors"
    out.mkdir(parents=True, exist_ok=True)
    about = {"config": name, "image_size": config.image_size, "dataset": "scenes"}
    save_weights(path, copy.deepcopy(model).half(), about)
    shipped = _load(name, path)  # what a reader will load, rounded to float16
    found = yl.evaluate.evaluate(shipped, val_set, progress=False)
    card = {
        "weights": path.name,
        "command": _command(name, budget),
        "seed": config.seed,
        "steps": config.steps,
        "parameters": sum(p.numel() for p in model.parameters()),
        "bytes": path.stat().st_size,
        "class_names": model.class_names,
        "image_size": config.image_size,
        "val_images": len(val_set),
        **{metric: getattr(found, metric) for metric in ("ap", "ap50", "ap75")},
        "ap_per_class": found.per_class,
        **(_inherited_ap(shipped, train_set, val_set) if name == SUPERNET else {}),
        "ap_before_rounding": history.last_ap,
        "seconds": round(history.seconds),
        "machine": machine_name(),
        "torch_version": torch.__version__,
        "git_revision": revision,
        "train_digest": yl.data.digest(_folder("train", work)),
        "val_digest": yl.data.digest(_folder("val", work)),
        "settings": settings_of(name),
        "settings_digest": settings_digest(settings_of(name)),
    }
    write_json(path.with_suffix(".json"), card)
    return card


def settings_of(name: str) -> dict[str, Any]:
    """Every number that decides these weights, as the card tells it."""
    if name != SUPERNET:
        return plain(SETTINGS)
    distillation = DistillConfig().decisive()
    own = {"steps": SUPERNET_STEPS, "random_networks": RANDOM_NETWORKS, "distillation": distillation}
    return plain({**SETTINGS, **own, "space": SUPERNET_SPACE.decisions})


def _trained(
    name: str, train_set: yl.data.CocoDataset, val_set: yl.data.CocoDataset, config: TrainConfig
) -> tuple[YoloNAS, History]:
    """A model and what happened in its training."""
    if name == SUPERNET:
        supernet = YoloNAS(largest(SUPERNET_SPACE), len(train_set.class_names))
        return supernet, train_supernet(supernet, SUPERNET_SPACE, train_set, val_set, config)
    model = yl.models.get(name, num_classes=len(train_set.class_names))
    return model, fit(model, train_set, val_set, config)


def _load(name: str, path: Path) -> YoloNAS:
    return load_supernet(path) if name == SUPERNET else yl.models.get(name, checkpoint_path=path)


def _inherited_ap(
    supernet: YoloNAS, train_set: yl.data.CocoDataset, val_set: yl.data.CocoDataset
) -> dict[str, dict[str, float]]:
    """AP of some of the networks that the supernet holds, with its weights and BatchNorm statistics of their own."""
    lab = (CONFIGS["yolo_nas_pico"], CONFIGS["yolo_nas_nano"])
    configs = {"largest": supernet.config, "smallest": smallest(SUPERNET_SPACE), **{c.name: c for c in lab}}
    batches = calibration_batches(train_set, supernet.image_size, batch_size=min(32, len(train_set) // 4))
    return {"inherited_ap": {name: score(supernet, c, batches, val_set) for name, c in configs.items()}}


def draw_split(split: str, folder: Path) -> yl.data.CocoDataset:
    """The "train" or "val" scenes of SETTINGS, drawn into folder if they are not there yet."""
    s = SETTINGS
    train, val = (s[f"{name}_images"] if name == split else 0 for name in ("train", "val"))
    size, seed, difficulty = s["image_size"], s["data_seed"], s["difficulty"]
    made = yl.data.make_scenes(folder, train, val, image_size=size, seed=seed, difficulty=difficulty, overwrite=True)
    return yl.data.CocoDataset(made.images_dir(split), made.annotations(split))


def _dataset(split: str, work: Path) -> yl.data.CocoDataset:
    return draw_split(split, _folder(split, work))


def _folder(split: str, work: Path) -> Path:
    return work / f"scenes_{split}"


def _config(name: str, work: Path, budget: float) -> TrainConfig:
    s = SETTINGS
    steps = max(1, round(budget * (SUPERNET_STEPS if name == SUPERNET else STEPS[name])))
    folder = work / f"{name}-{settings_digest(settings_of(name))}-{steps}"
    return dataclasses.replace(
        LAB, steps=steps, image_size=s["image_size"], seed=s["seed"], evaluate_every=2, out_dir=folder
    )


def _check(options: argparse.Namespace, names: list[str]) -> None:
    for name in names:
        if name not in NAMES:
            raise ValueError(unknown_name("model", name, NAMES))
    if not options.budget > 0:
        raise ValueError(f"--budget is {options.budget}: give the share of the training steps, above 0.")
    if options.budget != 1 and options.out is None:
        raise ValueError("--budget makes other weights than the shipped ones: also give --out, a folder for them.")


def _make_side_by_side(names: list[str], out: Path, work: Path, options: argparse.Namespace) -> None:
    for split in ("train", "val"):  # before the processes need them
        _dataset(split, work)
    same = ("--out", str(out), "--work-dir", str(work), "--budget", repr(options.budget), "--in-this-process")
    jobs = [Job(name, (__file__, "--only", name, *same), work / f"{name}.log") for name in names]
    run_jobs(jobs, options.processes, "training", lambda job: print(_summary(job.name, out), flush=True))


def _summary(name: str, out: Path) -> str:
    card = json.loads((out / f"{name}_scenes.json").read_text(encoding="utf-8"))
    return (
        f"{name}: AP {card['ap']:.3f}, AP50 {card['ap50']:.3f}, AP75 {card['ap75']:.3f} "
        f"on {card['val_images']} images; "
        f"{card['bytes'] / 1e6:.2f} MB, {card['seconds']} s"
    )


def _command(name: str, budget: float) -> str:
    text = f"python data_scripts/make_weights.py --only {name}"
    return text if budget == 1 else f"{text} --budget {budget:g}"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
