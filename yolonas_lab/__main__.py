"""The command line: train, evaluate and predict with COCO-format folders, then export, build and time.

`python -m yolonas_lab --help`, or `torchrun --nproc-per-node 8 -m yolonas_lab train …` on several GPUs.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yolonas_lab.cli import ONE_THREAD_BELOW, RECIPES, run_evaluate, run_predict, run_train
from yolonas_lab.cli_deploy import add_deployment_commands

MODELS = "yolo_nas_s, yolo_nas_m, yolo_nas_l; yolo_nas_pico, yolo_nas_nano (small ones for 64 to 128 px)"
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


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(prog="python -m yolonas_lab", description="Detectors of the YOLO-NAS family.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train(commands)
    _add_evaluate(commands)
    _add_predict(commands)
    add_deployment_commands(commands)
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
    command.add_argument(
        "--threads", type=int, help=f"CPU threads (default: 1 below {ONE_THREAD_BELOW} px, else as torch decides)"
    )
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
    recipe.add_argument("--precision", choices=("auto", "32", "bf16"), help="auto: bf16 on a GPU that has it, else 32")
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


if __name__ == "__main__":
    raise SystemExit(main())
