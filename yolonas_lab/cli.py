"""The command line: train, evaluate and predict with COCO-format folders, then export, build and time.

`python -m yolonas_lab --help`, or `torchrun --nproc-per-node 8 -m yolonas_lab train …` on several GPUs. Each command
imports what it needs when it runs, so that help is there at once.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yolonas_lab.models.yolo_nas import YoloNAS
    from yolonas_lab.training import TrainConfig

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
  python -m yolonas_lab predict photos/ film.mp4 https://host/a.jpg --out found \\
    --model yolo_nas_pico --weights scenes"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; every foreseeable failure ends in one sentence and exit code 2."""
    options = make_parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        print(f"yolonas_lab {options.command}: {error}", file=sys.stderr)
        return FAILED
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's
            raise
        print(f"yolonas_lab {options.command}: the GPU's memory is full: lower --batch-size.", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        again = "; the same command goes on from the last checkpoint" if options.command == "train" else ""
        print(f"yolonas_lab {options.command}: stopped{again}.", file=sys.stderr)
        return INTERRUPTED
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    from yolonas_lab.cli_deploy import add_deployment_commands

    parser = argparse.ArgumentParser(prog="python -m yolonas_lab", description="Detectors of the YOLO-NAS family.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train(commands)
    _add_evaluate(commands)
    _add_predict(commands)
    add_deployment_commands(commands)
    return parser


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], None], summary: str, examples: str
) -> argparse.ArgumentParser:
    """A command that calls `run` with its options."""
    command = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.set_defaults(run=run)
    return command


def add_model(command: argparse.ArgumentParser, required: bool = True) -> None:
    """The options that say which network, see `load_model` and `input_size`."""
    command.add_argument("--model", required=required, help=MODELS)
    command.add_argument(
        "--weights",
        metavar="FILE",
        help="a checkpoint (.pt, .pth, .safetensors; also super-gradients'), or 'coco' (Deci's), or 'scenes' (ours)",
    )
    command.add_argument(
        "--accept-license", action="store_true", help="accept the non-commercial licence of the COCO weights"
    )
    command.add_argument("--image-size", type=int, help="side of the network's input in px, a multiple of 32")


def load_model(options: argparse.Namespace, num_classes: int | None = None, untrained: bool = False) -> "YoloNAS":
    """The model that --model and --weights name; without --weights only where it may be `untrained`."""
    from yolonas_lab.models import get

    named = options.weights if options.weights in ("coco", "scenes") else None
    path = None if named else options.weights
    if options.weights is None and not untrained:
        raise ValueError("--weights is missing: without them the model has learned nothing; give a checkpoint's path.")
    return get(options.model, num_classes, named, path, accept_license=options.accept_license)


def input_size(options: argparse.Namespace, default: int) -> int:
    """--image-size, or else the default."""
    from yolonas_lab.common import check_image_size

    return default if options.image_size is None else check_image_size(options.image_size, "--image-size")


def set_threads(threads: int | None, image_size: int) -> None:
    """Let torch compute with as many threads as --threads says, or else with one where images are small."""
    import torch

    if threads is not None and threads < 1:
        raise ValueError(f"--threads is {threads}: give 1 or more.")
    if threads is not None or image_size < ONE_THREAD_BELOW:
        torch.set_num_threads(threads or 1)


def check_can_hold(path: Path, option: str) -> None:
    """Raise ValueError, before the work is done, where its result could not be written."""
    if path.is_dir():
        raise ValueError(f"{option} is {path}, which is a folder: give the name of a file.")
    if not path.parent.is_dir():
        raise ValueError(f"{option} is {path}, but there is no folder {path.parent}: make it, or give another file.")


def _add_threads(command: argparse.ArgumentParser) -> None:
    text = f"CPU threads (default: 1 below {ONE_THREAD_BELOW} px, else as torch decides)"
    command.add_argument("--threads", type=int, help=text)


def _add_train(commands: Any) -> None:
    command = add_command(commands, "train", run_train, "train a detector on a COCO-format folder", TRAIN_EXAMPLES)
    add_model(command)
    _add_threads(command)
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
    recipe.add_argument("--precision", choices=("auto", "32", "bf16"), help="auto: bf16 on a GPU that has it, else 32")
    recipe.add_argument("--accelerator", choices=("auto", "cpu", "cuda", "mps"))
    recipe.add_argument("--evaluate-every", type=float, help="epochs between two measurements of AP")


def _add_evaluate(commands: Any) -> None:
    summary = "measure COCO average precision on a COCO-format folder"
    command = add_command(commands, "evaluate", run_evaluate, summary, EVALUATE_EXAMPLES)
    add_model(command)
    command.add_argument("--images", type=Path, required=True, help="folder that file names are relative to")
    command.add_argument("--annotations", type=Path, required=True, help="COCO annotation file (.json)")
    _add_detection(command, conf=0.01)
    command.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers to a file")


def _add_predict(commands: Any) -> None:
    summary = "find objects in images, folders, URLs and videos"
    command = add_command(commands, "predict", run_predict, summary, PREDICT_EXAMPLES)
    command.add_argument("sources", nargs="+", metavar="SOURCE", help="image, folder, URL or video")
    add_model(command)
    command.add_argument("--out", type=Path, required=True, help="folder for the images with boxes drawn in, as PNG")
    _add_detection(command, conf=0.25)


def _add_detection(command: argparse.ArgumentParser, conf: float) -> None:
    command.add_argument("--conf", type=float, default=conf, help="smallest score that counts (default %(default)s)")
    command.add_argument("--iou", type=float, default=0.7, help="IoU above which NMS drops (default %(default)s)")
    command.add_argument("--batch-size", type=int, default=8, help="default %(default)s")
    command.add_argument("--device", default="auto", help="cpu, cuda, mps or auto (default %(default)s)")
    _add_threads(command)


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
    set_threads(options.threads, config.image_size)
    torch.manual_seed(config.seed)
    model = load_model(options, len(train_set.class_names), untrained=True)
    history = training.fit(model, train_set, val_set, config)
    if os.environ.get("RANK", "0") == "0":  # under torchrun the others stay silent
        print(f"{history}; everything is in {options.out}.")


def recipe(options: argparse.Namespace, config: "TrainConfig") -> "TrainConfig":
    """The TrainConfig of a recipe with what the command line says differently."""
    names = ("batch_size", "accumulate", "image_size", "lr", "seed", "workers", "cache", "precision", "accelerator")
    names += ("evaluate_every",)
    changes = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.epochs is not None or options.steps is not None:
        changes |= {"epochs": options.epochs, "steps": options.steps}
    return replace(config, out_dir=options.out, **changes)


def run_evaluate(options: argparse.Namespace) -> None:
    """Print the twelve COCO numbers and the AP of each class."""
    from yolonas_lab.common import write_json
    from yolonas_lab.data import CocoDataset
    from yolonas_lab.evaluate import evaluate

    if options.json:
        check_can_hold(options.json, "--json")
    dataset = CocoDataset(options.images, options.annotations)
    model, size = _detector(options)
    metrics = evaluate(model, dataset, options.conf, options.iou, image_size=size, batch_size=options.batch_size)
    print(metrics)
    if options.json:
        write_json(options.json, _without_nan(asdict(metrics)))


def run_predict(options: argparse.Namespace) -> None:
    """Draw what is found into copies of the images, and print one line per image."""
    from yolonas_lab.detect import detect
    from yolonas_lab.sources import is_video, list_items, read_image, video_frames

    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"--out {options.out} is a file: give a folder.")
    model, size = _detector(options)
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


def _detector(options: argparse.Namespace) -> tuple["YoloNAS", int]:
    """The model on its device, and the size of its input; torch's threads are set."""
    model = load_model(options).to(_device(options.device))
    size = input_size(options, model.image_size)
    set_threads(options.threads, size)
    return model, size


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu" or (name.partition(":")[0] == "cuda" and torch.cuda.is_available()):
        return name
    if name == "mps" and torch.backends.mps.is_available():
        return name
    raise ValueError(f"--device is {name}, which this machine or this build of torch does not have: give cpu.")


def _free_name(name: str, taken: set[str]) -> str:
    """The name, with a number after it if an earlier image of this call has it."""
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free


def _without_nan(numbers: dict[str, Any]) -> dict[str, Any]:
    """The same with None for NaN, which JSON does not know."""
    return {
        name: _without_nan(value) if isinstance(value, dict) else None if value != value else value
        for name, value in numbers.items()
    }
