"""What the commands of the command line do; `python -m yolonas_lab` parses, this calls the library."""

import argparse
import json
import math
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yolonas_lab.models.yolo_nas import YoloNAS
    from yolonas_lab.training import TrainConfig


RECIPES = {"lab": "LAB", "coco_s": "COCO_S", "fine_tune": "FINE_TUNE"}  # --config -> its name in yolonas_lab.training
ONE_THREAD_BELOW = 256  # px; smaller images are computed fastest by one thread


def run_train(options: argparse.Namespace) -> None:
    """Train, or go on training."""
    import torch

    from yolonas_lab import training
    from yolonas_lab.data import CocoDataset

    if (options.val_images is None) != (options.val_annotations is None):
        raise ValueError("--val-images and --val-annotations belong together: give both or neither.")
    config = recipe(options, getattr(training, RECIPES[options.config]))
    train_set = CocoDataset(options.train_images, options.train_annotations)
    val_set = CocoDataset(options.val_images, options.val_annotations) if options.val_images else None
    _set_threads(options.threads, config.image_size)
    torch.manual_seed(config.seed)
    model = load_model(options, len(train_set.class_names))
    history = training.fit(model, train_set, val_set, config)
    if os.environ.get("RANK", "0") == "0":  # under torchrun the others stay silent
        print(f"{history}; everything is in {options.out}.")


def recipe(options: argparse.Namespace, config: "TrainConfig") -> "TrainConfig":
    """The TrainConfig of a recipe with what the command line says differently."""
    names = ("batch_size", "accumulate", "image_size", "lr", "seed", "workers", "cache", "precision", "accelerator")
    names += ("evaluate_every", "tensorboard")
    changes = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.epochs is not None or options.steps is not None:
        changes |= {"epochs": options.epochs, "steps": options.steps}
    return replace(config, out_dir=options.out, **changes)


def run_evaluate(options: argparse.Namespace) -> None:
    """Print the twelve COCO numbers and the AP of each class."""
    from yolonas_lab.common import write_atomically
    from yolonas_lab.data import CocoDataset
    from yolonas_lab.evaluate import evaluate

    if options.json:
        _check_can_hold(options.json, "--json")
    dataset = CocoDataset(options.images, options.annotations)
    model = load_model(options, None).to(_device(options.device))
    size = options.image_size or model.image_size
    _set_threads(options.threads, size)
    metrics = evaluate(model, dataset, options.conf, options.iou, image_size=size, batch_size=options.batch_size)
    print(metrics)
    if options.json:
        numbers = asdict(metrics)
        numbers["per_class"] = {name: _or_none(ap) for name, ap in metrics.per_class.items()}
        numbers = {name: _or_none(value) for name, value in numbers.items()}
        text = json.dumps(numbers, indent=1, ensure_ascii=False)
        write_atomically(options.json, lambda file: file.write(text.encode()))


def run_predict(options: argparse.Namespace) -> None:
    """Draw what is found into copies of the images, and print one line per image."""
    from yolonas_lab.detect import detect
    from yolonas_lab.sources import is_video, list_items, read_image, video_frames

    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"--out {options.out} is a file: give a folder.")
    model = load_model(options, None).to(_device(options.device))
    size = options.image_size or model.image_size
    _set_threads(options.threads, size)
    options.out.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()
    for source in options.sources:
        if is_video(source):
            images, names = video_frames(source), None
        else:
            items = list_items(source)
            images, names = map(read_image, items), [Path(str(item).partition("?")[0]).stem for item in items]
        found = detect(model, images, options.conf, options.iou, size, options.batch_size)
        for number, detections in enumerate(found):
            name = names[number] if names else f"{Path(source).stem}_{number:06d}"
            path = detections.save(options.out / f"{_free_name(name, taken)}.png")
            print(f"{path}: {detections!r}")


def load_model(options: argparse.Namespace, num_classes: int | None) -> "YoloNAS":
    """The model that --model and --weights name."""
    from yolonas_lab.models import get

    named = options.weights if options.weights in ("coco", "scenes") else None
    path = None if named else options.weights
    if options.command != "train" and options.weights is None:
        raise ValueError("--weights is missing: without them the model has learned nothing; give a checkpoint's path.")
    return get(options.model, num_classes, named, path, accept_license=options.accept_license)


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu" or (name.partition(":")[0] == "cuda" and torch.cuda.is_available()):
        return name
    if name == "mps" and torch.backends.mps.is_available():
        return name
    raise ValueError(f"--device is {name}, which this machine or this build of torch does not have: give cpu.")


def _set_threads(threads: int | None, image_size: int) -> None:
    import torch

    if threads is not None and threads < 1:
        raise ValueError(f"--threads is {threads}: give 1 or more.")
    if threads is not None or image_size < ONE_THREAD_BELOW:
        torch.set_num_threads(threads or 1)


def _check_can_hold(path: Path, option: str) -> None:
    """Raise ValueError, before the work is done, where its result could not be written."""
    if path.is_dir():
        raise ValueError(f"{option} is {path}, which is a folder: give the name of a file.")
    if not path.parent.is_dir():
        raise ValueError(f"{option} is {path}, but there is no folder {path.parent}: make it, or give another file.")


def _free_name(name: str, taken: set[str]) -> str:
    """The name, with a number after it if an earlier image of this call has it."""
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free


def _or_none(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
