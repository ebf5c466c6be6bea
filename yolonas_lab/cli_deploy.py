"""The arguments of the deployment commands: export, build-engine, benchmark, doctor; `commands_deploy` obeys them."""

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolonas_lab.cli import load_model

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from yolonas_lab.deployment.tensorrt import Profile
    from yolonas_lab.models.yolo_nas import YoloNAS


# What the deployment commands do: export, build-engine, benchmark, doctor; `arguments_deploy` says what they take.

EXPORTS = ("float32", "float16", "int8", "int8-cpu")  # what --kind may be
MODULES = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}  # --builder -> the module


def run_doctor(options: argparse.Namespace) -> None:
    """Print the table."""
    from yolonas_lab.deployment.doctor import doctor, table

    print(table(doctor()))


def run_export(options: argparse.Namespace) -> None:
    """Quantize and calibrate if asked, export, and say what was written."""
    from yolonas_lab.deployment.export import export_onnx

    model = load_model(options, None)
    if options.image_size:
        model.image_size = options.image_size
    if options.kind.startswith("int8"):
        model = _calibrated(model, options)
    elif options.images:
        raise ValueError(f"--images are for calibrating INT8, and --kind is {options.kind}: leave them out.")
    path = export_onnx(
        model,
        options.out,
        options.image_size,
        precision="float16" if options.kind in ("float16", "int8") else "float32",
        batch=options.batch or None,
        dynamic_size=options.dynamic_size,
        nms=options.nms,
        preprocess=options.preprocess,
    )
    print(f"{path}: {options.model} in {options.kind}, {path.stat().st_size / 1e6:.1f} MB")


def _calibrated(model: "YoloNAS", options: argparse.Namespace) -> "YoloNAS":
    """The model quantized as --kind says, its ranges set by the images in --images."""
    from yolonas_lab.detect import prepare
    from yolonas_lab.quantization import QuantPolicy, calibrate, quantize
    from yolonas_lab.sources import list_items, read_image

    if options.images is None:
        raise ValueError(f"--kind {options.kind} needs --images, a folder of typical images that set the ranges.")
    if options.max_images < 1:
        raise ValueError(f"--max-images is {options.max_images}: give 1 or more.")
    items = list_items(options.images)[: options.max_images]
    policy = QuantPolicy.tensorrt() if options.kind == "int8" else QuantPolicy.cpu()
    batches = (prepare([read_image(item, index).image], model.image_size)[0] for index, item in enumerate(items))
    return calibrate(quantize(model, policy), batches, max_images=options.max_images)


def run_build_engine(options: argparse.Namespace) -> None:
    """Build, and print which convolutions compute in which precision."""
    from yolonas_lab.deployment.tensorrt import build_engine, find_tensorrt

    trt = find_tensorrt(MODULES[options.builder] if options.builder else None)
    profiles = [_profile(options.profile)] if options.profile else []
    print(build_engine(options.onnx, options.plan, trt, profiles, options.workspace, options.timing_cache))


def _profile(texts: list[str]) -> "Profile":
    """Three texts like 8x640x640 as a Profile."""
    from yolonas_lab.deployment.tensorrt import Profile

    try:
        shapes = [(b, 3, h, w) for b, h, w in (map(int, text.split("x")) for text in texts)]
    except ValueError as error:
        raise ValueError(
            f"--profile is {' '.join(texts)}: give three of batch, height and width, as 8x640x640."
        ) from error
    return Profile(*shapes)


def run_benchmark(options: argparse.Namespace) -> None:
    """Time what is there, and print the table; what is not there is named."""
    import torch

    from yolonas_lab.deployment.benchmark import benchmark

    if options.model is None and not options.files:
        raise ValueError("there is nothing to time: give --model, or exported files.")
    if options.threads < 1:
        raise ValueError(f"--threads is {options.threads}: give 1 or more.")
    torch.set_num_threads(options.threads)
    image = _image(options.image)
    with tempfile.TemporaryDirectory() as folder:
        detectors, size = _detectors(options, image, Path(folder))
        result = benchmark(detectors, image, size, rounds=options.rounds)
    print(result)
    if options.json:
        options.json.write_text(json.dumps(result.numbers(), indent=1, ensure_ascii=False), encoding="utf-8")
    if options.plot:
        _plot(result, options.plot)


def _image(source: str | None) -> "np.ndarray":
    import numpy as np

    from yolonas_lab.sources import read_image

    if source is not None:
        return read_image(source).image
    return np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)


def _detectors(options: argparse.Namespace, image: "np.ndarray", folder: Path) -> tuple[dict[str, "nn.Module"], int]:
    """What to time, by name, and at which size."""
    from yolonas_lab.deployment.benchmark import engines_for, file_detector
    from yolonas_lab.models import get

    files = {path.name: file_detector(path, options.threads) for path in options.files}
    sizes = {detector.image_size for detector in files.values()}
    if len(sizes) > 1:
        raise ValueError(f"the files are for images of {sorted(sizes)} px: compare files of one size.")
    if options.model is None:
        return {**files}, options.image_size or sizes.pop()
    model = load_model(options, None) if options.weights else get(options.model)  # times hardly depend on the weights
    size = options.image_size or max(sizes, default=model.image_size)
    engines = engines_for(model, image, size, folder, options.threads, _kinds(options.engines))
    return {**files, **engines}, size


def _kinds(wanted: list[str] | None) -> tuple[str, ...]:
    """Those of the wanted kinds of engines that can run here; the others are named."""
    from yolonas_lab.deployment.benchmark import missing_kinds

    reasons = missing_kinds()
    for kind, reason in reasons.items():
        if reason and (wanted is None or kind in wanted):
            print(f"{kind} is left out: {reason}")
    return tuple(kind for kind in wanted or reasons if not reasons[kind])


def _plot(result: Any, path: Path) -> None:
    from matplotlib.figure import Figure

    from yolonas_lab.deployment.benchmark import plot_waterfall

    figure = Figure(figsize=(9, 1.5 + 0.45 * len(result.rows)), layout="constrained")
    plot_waterfall(result, figure.subplots())
    figure.savefig(path)


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
