"""The command line: train, evaluate and predict with COCO-format folders, then export, build and time.

`python -m yolonas_lab --help`, or `torchrun --nproc-per-node 8 -m yolonas_lab train …` on several GPUs. Each command
imports what it needs when it runs, so that help is there at once.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yolonas_lab.models.yolo_nas import YoloNAS
    from yolonas_lab.training import TrainConfig

RECIPES = {"lab": "LAB", "coco_s": "COCO_S", "fine_tune": "FINE_TUNE"}  # --config -> its name in yolonas_lab.training
ONE_THREAD_BELOW = 256  # px; smaller images are computed fastest by one thread
INTERRUPTED = 130  # exit codes
FAILED = 2

Run = Callable[[argparse.Namespace], None]
Options = dict[str, dict[str, Any]]  # of a command: what argparse takes for each
MODEL: Options = {  # which network, see load_model and input_size
    "--model": {"required": True, "help": "yolo_nas_s, _m, _l; for 64 to 128 px yolo_nas_pico and yolo_nas_nano"},
    "--weights": {
        "metavar": "FILE",
        "help": "checkpoint (.pt, .pth, .safetensors), 'coco' (Deci's), 'scenes' (ours)",
    },
    "--accept-license": {"action": "store_true", "help": "accept the non-commercial licence of the COCO weights"},
    "--image-size": {"type": int, "help": "side of the network's input in px, a multiple of 32"},
}
THREADS: Options = {
    "--threads": {"type": int, "help": f"CPU threads (default: 1 below {ONE_THREAD_BELOW} px, else as torch decides)"}
}
JSON: Options = {"--json": {"type": Path, "metavar": "FILE", "help": "also write the numbers to a file"}}
DATA: Options = {
    "--images": {"type": Path, "required": True, "help": "folder that file names are relative to"},
    "--annotations": {"type": Path, "required": True, "help": "COCO annotation file (.json)"},
}
TRAIN: Options = {
    "--out": {"type": Path, "required": True, "help": "folder for checkpoints, best weights and log"},
    **{name.replace("--", "--train-"): settings for name, settings in DATA.items()},
    "--val-images": {"type": Path, "help": "without validation data no AP is measured"},
    "--val-annotations": {"type": Path},
    "--config": {
        "choices": RECIPES,
        "default": "lab",
        "help": "lab (default): minutes on a CPU; coco_s: published, 8 GPUs; fine_tune: COCO weights to other classes",
    },
}
CHANGES: Options = {  # of the recipe: fields of TrainConfig
    "--epochs": {"type": float, "help": "passes over the training images"},
    "--steps": {"type": int, "help": "updates of the weights, instead of --epochs"},
    "--batch-size": {"type": int, "help": "images per process and batch"},
    "--accumulate": {"type": int, "help": "batches per update"},
    "--lr": {"type": float, "help": "learning rate at its peak"},
    "--seed": {"type": int, "help": "of the weights, the order of the data and its augmentation"},
    "--workers": {"type": int, "help": "processes that prepare batches; 0: none but this one"},
    "--cache": {"action": argparse.BooleanOptionalAction, "help": "keep decoded images in memory"},
    "--precision": {"choices": ("auto", "32", "bf16"), "help": "auto: bf16 on a GPU that has it, else 32"},
    "--accelerator": {"choices": ("auto", "cpu", "cuda", "mps")},
    "--evaluate-every": {"type": float, "help": "epochs between two measurements of AP"},
}
DETECTION: Options = {
    "--conf": {"type": float, "help": "smallest score that counts (default %(default)s)"},
    "--iou": {"type": float, "default": 0.7, "help": "IoU above which NMS drops (default %(default)s)"},
    "--batch-size": {"type": int, "default": 8, "help": "default %(default)s"},
    "--device": {"default": "auto", "help": "cpu, cuda, mps or auto (default %(default)s)"},
}
PREDICT: Options = {
    "sources": {"nargs": "+", "metavar": "SOURCE", "help": "image, folder, URL or video"},
    "--out": {"type": Path, "required": True, "help": "folder for the images with boxes drawn in, as PNG"},
}


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
        return 0
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        message, code = str(error), FAILED
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's
            raise
        message, code = "the GPU's memory is full: lower --batch-size.", FAILED
    except KeyboardInterrupt:
        again = "; the same command goes on from the last checkpoint" if options.command == "train" else ""
        message, code = f"stopped{again}.", INTERRUPTED
    print(f"yolonas_lab {options.command}: {message}", file=sys.stderr)
    return code


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    from yolonas_lab.cli_deploy import add_deployment_commands

    parser = argparse.ArgumentParser(prog="python -m yolonas_lab", description="Detectors of the YOLO-NAS family.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    summary = "train a detector on a COCO-format folder"
    train = add_command(commands, run_train, summary, MODEL | THREADS | TRAIN, TRAIN_EXAMPLES)
    add_options(train.add_argument_group("changes to the recipe"), CHANGES)
    summary, common = "measure COCO average precision on a COCO-format folder", MODEL | DETECTION | THREADS
    add_command(commands, run_evaluate, summary, common | DATA | JSON, EVALUATE_EXAMPLES).set_defaults(conf=0.01)
    summary = "find objects in images, folders, URLs and videos"
    add_command(commands, run_predict, summary, PREDICT | common, PREDICT_EXAMPLES).set_defaults(conf=0.25)
    add_deployment_commands(commands)
    return parser


def add_command(commands: Any, run: Run, summary: str, options: Options, examples: str) -> argparse.ArgumentParser:
    """The command "a-b" that calls run_a_b with these options."""
    command = commands.add_parser(
        run.__name__.removeprefix("run_").replace("_", "-"),
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.set_defaults(run=run)
    add_options(command, options)
    return command


def add_options(command: Any, options: Options) -> None:
    """Options by name, with what argparse's add_argument takes."""
    for name, settings in options.items():
        command.add_argument(name, **settings)


def load_model(options: argparse.Namespace, num_classes: int | None = None, untrained: bool = False) -> "YoloNAS":
    """The model that --model and --weights name; without --weights only where it may be `untrained`."""
    from yolonas_lab.models import get

    if options.weights is None and not untrained:
        raise ValueError("--weights is missing: without them the model has learned nothing; give a checkpoint's path.")
    named = options.weights in ("coco", "scenes")
    weights = (options.weights, None) if named else (None, options.weights)
    return get(options.model, num_classes, *weights, accept_license=options.accept_license)


def input_size(options: argparse.Namespace, default: int) -> int:
    """--image-size, or else the default."""
    from yolonas_lab.common import check_image_size

    return default if options.image_size is None else check_image_size(options.image_size, "--image-size")


def set_threads(threads: int | None, image_size: int) -> None:
    """Let torch compute with as many threads as --threads says, or else with one where images are small."""
    import torch

    threads = 1 if threads is None and image_size < ONE_THREAD_BELOW else threads
    if threads is not None and threads < 1:
        raise ValueError(f"--threads is {threads}: give 1 or more.")
    torch.set_num_threads(threads or torch.get_num_threads())


def check_can_hold(path: Path, option: str) -> None:
    """Raise ValueError, before the work is done, where its result could not be written."""
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"{option} is {path}: give the name of a file in a folder that is there.")


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
    names = ["image_size", *(name.removeprefix("--").replace("-", "_") for name in CHANGES)]
    changes = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if "epochs" in changes or "steps" in changes:  # one replaces the other
        changes = {"epochs": None, "steps": None} | changes
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
        numbers = json.dumps(asdict(metrics))  # NaN, which other programs do not know, becomes null
        write_json(options.json, json.loads(numbers, parse_constant=lambda _: None))


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
            images, names = video_frames(source), (f"{Path(source).stem}_{number:06d}" for number in count())
        else:
            items = list_items(source)
            images, names = map(read_image, items), (Path(str(item).partition("?")[0]).stem for item in items)
        found = detect(model, images, options.conf, options.iou, size, options.batch_size)
        for name, detections in zip(names, found):
            unique = next(free for n in count(1) if (free := f"{name}_{n}" if n > 1 else name) not in taken)
            taken.add(unique)
            print(f"{detections.save(options.out / f'{unique}.png')}: {detections!r}")


def _detector(options: argparse.Namespace) -> tuple["YoloNAS", int]:
    """The model on its device, and the size of its input; torch's threads are set."""
    model = load_model(options).to(_device(options.device))
    size = input_size(options, model.image_size)
    set_threads(options.threads, size)
    return model, size


def _device(name: str) -> str:
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return "cuda" if there["cuda"] else "cpu"
    if not there.get(name.partition(":")[0]):
        raise ValueError(f"--device is {name}, which this machine or this build of torch does not have: give cpu.")
    return name
