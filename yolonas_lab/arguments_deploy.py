"""The arguments of the deployment commands: export, build-engine, benchmark, doctor; `commands_deploy` obeys them."""

import argparse
from pathlib import Path
from typing import Any

from yolonas_lab.commands_deploy import (
    EXPORTS,
    MODULES,
    run_benchmark,
    run_build_engine,
    run_doctor,
    run_export,
)

ENGINES = ("torch", "onnxruntime", "openvino", "tensorrt")
EXPORT_EXAMPLES = """examples:
  float32, for onnxruntime, OpenVINO or TensorRT:
    python -m yolonas_lab export --model yolo_nas_s --weights coco --out s.onnx
  INT8 with float16 between, for TensorRT; a few hundred typical images set the ranges:
    python -m yolonas_lab export --model yolo_nas_s --weights coco --kind int8 --images photos/ --out s_int8.onnx
  INT8 for CPUs:
    python -m yolonas_lab export --model yolo_nas_pico --weights scenes --kind int8-cpu --images val/ --out pico.onnx"""
BUILD_EXAMPLES = """examples:
  python -m yolonas_lab build-engine s_int8.onnx s_int8.plan
  without a GPU, to see which layers get INT8 (pip install 'yolonas-lab[tensorrt-rtx]'):
    python -m yolonas_lab build-engine s_int8.onnx s_int8.plan --builder rtx
  a file with open batch, for 1 to 16 images and fastest at 8:
    python -m yolonas_lab build-engine s.onnx s.plan --profile 1x640x640 8x640x640 16x640x640"""
BENCHMARK_EXAMPLES = """examples:
  one model with everything on this machine that can run it:
    python -m yolonas_lab benchmark --model yolo_nas_s --image-size 640 --threads 1 --plot waterfall.png
  exported files and plans:
    python -m yolonas_lab benchmark s.onnx s_int8.plan --image street.jpg --threads 1"""
DOCTOR_EXAMPLES = """example:
  python -m yolonas_lab doctor"""


def add_deployment_commands(commands: Any) -> None:
    """Add the four commands to the sub-parsers of the command line."""
    _add_export(commands)
    _add_build_engine(commands)
    _add_benchmark(commands)
    command = _add_command(commands, "doctor", "say what this machine can do for deployment", DOCTOR_EXAMPLES)
    command.set_defaults(run=run_doctor)


def _add_command(commands: Any, name: str, summary: str, examples: str) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _add_model(command: argparse.ArgumentParser, required: bool) -> None:
    command.add_argument("--model", required=required, help="yolo_nas_s, yolo_nas_m, … as in evaluate")
    command.add_argument("--weights", metavar="FILE", help="a checkpoint, or 'coco' (Deci's), or 'scenes' (ours)")
    command.add_argument("--accept-license", action="store_true", help="accept the licence of the COCO weights")
    command.add_argument("--image-size", type=int, help="side of the network's input in px, a multiple of 32")


def _add_export(commands: Any) -> None:
    command = _add_command(commands, "export", "write a model as an ONNX file", EXPORT_EXAMPLES)
    _add_model(command, required=True)
    command.add_argument("--out", type=Path, required=True, metavar="FILE", help="the ONNX file to write")
    command.add_argument(
        "--kind",
        choices=EXPORTS,
        default="float32",
        help="float32 (default); float16; int8: Q/DQ for TensorRT, the rest in float16; int8-cpu: Q/DQ for CPUs",
    )
    command.add_argument("--images", type=Path, metavar="FOLDER", help="typical images, to set the ranges of INT8")
    command.add_argument("--max-images", type=int, default=256, help="use this many of them (default %(default)s)")
    command.add_argument("--batch", type=int, default=1, help="images at a time; 0: left open (default %(default)s)")
    command.add_argument("--dynamic-size", action="store_true", help="leave height and width open")
    command.add_argument("--nms", action="store_true", help="put NMS into the graph (for onnxruntime)")
    command.add_argument("--preprocess", action="store_true", help="take uint8 images (b, h, w, 3)")
    command.set_defaults(run=run_export)


def _add_build_engine(commands: Any) -> None:
    command = _add_command(commands, "build-engine", "build a TensorRT plan from an ONNX file", BUILD_EXAMPLES)
    command.add_argument("onnx", type=Path, metavar="ONNX")
    command.add_argument("plan", type=Path, metavar="PLAN")
    command.add_argument("--builder", choices=MODULES, help="default: TensorRT if installed, else TensorRT for RTX")
    command.add_argument(
        "--profile",
        nargs=3,
        metavar="BxHxW",
        help="smallest, typical and largest batch and size, for a file where they are open",
    )
    command.add_argument("--workspace", type=int, metavar="MIB", help="GPU memory that kernels may use, in MiB")
    command.add_argument("--timing-cache", type=Path, metavar="FILE", help="keep measurements for the next build")
    command.set_defaults(run=run_build_engine)


def _add_benchmark(commands: Any) -> None:
    command = _add_command(commands, "benchmark", "time a model or exported files side by side", BENCHMARK_EXAMPLES)
    command.add_argument("files", nargs="*", type=Path, metavar="FILE", help="ONNX files and TensorRT plans")
    _add_model(command, required=False)
    command.add_argument(
        "--engines", nargs="+", metavar="ENGINE", help="torch onnxruntime openvino tensorrt: only these"
    )
    command.add_argument("--image", help="image to detect in (default: noise of 640×480 px)")
    command.add_argument("--threads", type=int, default=1, help="CPU threads (default %(default)s)")
    command.add_argument("--rounds", type=int, default=15, help="default %(default)s")
    command.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers to a file")
    command.add_argument("--plot", type=Path, metavar="FILE", help="also draw them as a waterfall (.png, .svg, .pdf)")
    command.set_defaults(run=run_benchmark)
