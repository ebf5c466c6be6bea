"""The command line: train, evaluate and predict with COCO-format folders; each command is a few lines over the library.

`python -m yolonas_lab --help`, or `torchrun --nproc-per-node 8 -m yolonas_lab train …` on several GPUs.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

MODELS = "yolo_nas_s, yolo_nas_m, yolo_nas_l; yolo_nas_pico, yolo_nas_nano (small ones for 64 to 128 px)"
RECIPES = {"lab": "LAB", "coco_s": "COCO_S", "fine_tune": "FINE_TUNE"}  # --config -> its name in yolonas_lab.training
ONE_THREAD_BELOW = 256  # px; smaller images are computed fastest by one thread
INTERRUPTED = 130  # exit codes
FAILED = 2

TRAIN_EXAMPLES = """examples:
  minutes on a laptop, on generated scenes (python data_scripts/make_scenes.py data/scenes):
    python -m yolonas_lab train --config lab --model yolo_nas_pico --out runs/pico \\
      --train-images data/scenes/images/train --train-annotations data/scenes/annotations/instances_train.json \\
      --val-images data/scenes/images/val --val-annotations data/scenes/annotations/instances_val.json
  the published recipe on COCO (python data_scripts/get_coco.py data/coco --splits train2017 val2017), on 8 GPUs:
    torchrun --nproc-per-node 8 -m yolonas_lab train --config coco_s --model yolo_nas_s --out runs/coco_s \\
      --train-images data/coco/images/train2017 --train-annotations data/coco/annotations/instances_train2017.json \\
      --val-images data/coco/images/val2017 --val-annotations data/coco/annotations/instances_val2017.json
  your own classes from the COCO weights, on one GPU: --config fine_tune --model yolo_nas_s --weights coco

Stopped at any moment, the same command goes on from the last checkpoint. --out then holds checkpoint.pt (to resume, or
as --weights), best.safetensors (the weights with the best AP) and the log."""
EVALUATE_EXAMPLES = """example:
  python -m yolonas_lab evaluate --model yolo_nas_pico --weights runs/pico/best.safetensors \\
    --images data/scenes/images/val --annotations data/scenes/annotations/instances_val.json"""
PREDICT_EXAMPLES = """examples:
  python -m yolonas_lab predict street.jpg --model yolo_nas_s --weights coco --out found
  python -m yolonas_lab predict photos/ film.mp4 https://host/a.jpg --model yolo_nas_pico --weights scenes --out found"""


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(prog="python -m yolonas_lab", description="Detectors of the YOLO-NAS family.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="train | evaluate | predict")
    _add_train(commands)
    _add_evaluate(commands)
    _add_predict(commands)
    return parser


def _add_command(commands: Any, name: str, summary: str, examples: str) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_argument("--model", required=True, help=MODELS)
    command.add_argument(
        "--weights",
        metavar="FILE",
        help="a checkpoint (.pt, .pth, .safetensors; also super-gradients'), or 'coco' (Deci's), or 'scenes' (ours)",
    )
    command.add_argument(
        "--accept-license", action="store_true", help="accept the non-commercial licence of the COCO weights"
    )
    command.add_argument("--threads", type=int, help="CPU threads (default: 1 below 256 px, else as torch decides)")
    command.add_argument("--image-size", type=int, help="side of the network's input in px, a multiple of 32")
    return command


def _add_train(commands: Any) -> None:
    command = _add_command(commands, "train", "train a detector on a COCO-format folder", TRAIN_EXAMPLES)
    command.add_argument("--out", type=Path, required=True, help="folder for checkpoints, best weights and log")
    command.add_argument("--train-images", type=Path, required=True, help="folder that file names are relative to")
    command.add_argument("--train-annotations", type=Path, required=True, help="COCO annotation file (.json)")
    command.add_argument("--val-images", type=Path, help="without validation data no AP is measured")
    command.add_argument("--val-annotations", type=Path)
    command.add_argument(
        "--config",
        choices=RECIPES,
        default="lab",
        help="recipe (default lab): minutes on a CPU; coco_s: as published for COCO, 8 GPUs; fine_tune: from COCO "
        "weights to other classes, one GPU",
    )
    recipe = command.add_argument_group("changes to the recipe")
    recipe.add_argument("--epochs", type=float, help="passes over the training images")
    recipe.add_argument("--steps", type=int, help="updates of the weights, instead of --epochs")
    recipe.add_argument("--batch-size", type=int, help="images per process and batch")
    recipe.add_argument("--accumulate", type=int, help="batches per update")
    recipe.add_argument("--lr", type=float, help="learning rate at its peak")
    recipe.add_argument("--seed", type=int, help="of the weights, the order of the data and its augmentation")
    recipe.add_argument("--workers", type=int, help="processes that prepare batches; 0: none but this one")
    recipe.add_argument("--cache", action=argparse.BooleanOptionalAction, help="keep decoded images in memory")
    recipe.add_argument("--precision", choices=("32", "bf16"))
    recipe.add_argument("--accelerator", choices=("auto", "cpu", "cuda", "mps"))
    recipe.add_argument("--evaluate-every", type=float, help="epochs between two measurements of AP")
    recipe.add_argument("--tensorboard", action="store_true", default=None, help="also write TensorBoard's files")
    command.set_defaults(run=run_train)


def _add_evaluate(commands: Any) -> None:
    command = _add_command(
        commands, "evaluate", "measure COCO average precision on a COCO-format folder", EVALUATE_EXAMPLES
    )
    command.add_argument("--images", type=Path, required=True, help="folder that file names are relative to")
    command.add_argument("--annotations", type=Path, required=True, help="COCO annotation file (.json)")
    command.add_argument("--conf", type=float, default=0.01, help="smallest score that counts (default %(default)s)")
    command.add_argument("--iou", type=float, default=0.7, help="IoU above which NMS drops (default %(default)s)")
    command.add_argument("--batch-size", type=int, default=8, help="default %(default)s")
    command.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default %(default)s)")
    command.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers to a file")
    command.set_defaults(run=run_evaluate)


def _add_predict(commands: Any) -> None:
    command = _add_command(commands, "predict", "find objects in images, folders, URLs and videos", PREDICT_EXAMPLES)
    command.add_argument("sources", nargs="+", metavar="SOURCE", help="image, folder, URL or video")
    command.add_argument("--out", type=Path, required=True, help="folder for the images with boxes drawn in, as PNG")
    command.add_argument("--conf", type=float, default=0.25, help="smallest score that counts (default %(default)s)")
    command.add_argument("--iou", type=float, default=0.7, help="IoU above which NMS drops (default %(default)s)")
    command.add_argument("--batch-size", type=int, default=8, help="default %(default)s")
    command.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default %(default)s)")
    command.set_defaults(run=run_predict)


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


def recipe(options: argparse.Namespace, config: Any) -> Any:
    """The TrainConfig of a recipe with what the command line says differently."""
    names = ("batch_size", "accumulate", "image_size", "lr", "seed", "workers", "cache", "precision", "accelerator")
    names += ("evaluate_every", "tensorboard")
    changes = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.epochs is not None or options.steps is not None:
        changes |= {"epochs": options.epochs, "steps": options.steps}
    if options.weights is not None:
        changes["box_bias_slope"] = None  # that is where fresh box heads start
    return replace(config, out_dir=options.out, **changes)


def run_evaluate(options: argparse.Namespace) -> None:
    """Print the twelve COCO numbers and the AP of each class."""
    from yolonas_lab.data import CocoDataset
    from yolonas_lab.evaluate import evaluate

    dataset = CocoDataset(options.images, options.annotations)
    model = load_model(options, None).to(_device(options.device))
    size = options.image_size or model.image_size
    _set_threads(options.threads, size)
    metrics = evaluate(
        model, dataset, options.conf, options.iou, image_size=size, batch_size=options.batch_size
    )  # fmt: skip
    print(metrics)
    if options.json:
        numbers = asdict(metrics)
        numbers["per_class"] = {name: _or_none(ap) for name, ap in metrics.per_class.items()}
        numbers = {name: _or_none(value) for name, value in numbers.items()}
        options.json.write_text(json.dumps(numbers, indent=1, ensure_ascii=False), encoding="utf-8")


def run_predict(options: argparse.Namespace) -> None:
    """Draw what is found into copies of the images, and print one line per image."""
    from yolonas_lab.detect import detect
    from yolonas_lab.sources import is_video, list_items, read_image, video_frames

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


def load_model(options: argparse.Namespace, num_classes: int | None) -> Any:
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; every foreseeable failure ends in one sentence and exit code 2."""
    options = make_parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        print(f"yolonas_lab {options.command}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        again = "; the same command goes on from the last checkpoint" if options.command == "train" else ""
        print(f"yolonas_lab {options.command}: stopped{again}.", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
