"""The deployment commands: export, build-engine, benchmark, doctor."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from yolonas_lab.cli import JSON, MODEL, Options, add_command, check_can_hold, input_size, load_model, set_threads

MODULES = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}  # --builder -> the module
ENGINES = ("torch", "onnxruntime", "openvino", "tensorrt")  # deployment.benchmark.KINDS, which imports torch

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


EXPORT: Options = {
    "--out": {"type": Path, "required": True, "metavar": "FILE", "help": "the ONNX file to write"},
    "--kind": {
        "choices": ("float32", "float16", "int8", "int8-cpu"),
        "default": "float32",
        "help": "float32 (default); float16; int8: Q/DQ for TensorRT, the rest in float16; int8-cpu: Q/DQ for CPUs",
    },
    "--images": {"type": Path, "metavar": "FOLDER", "help": "typical images, to set the ranges of INT8"},
    "--max-images": {"type": int, "default": 256, "help": "use this many of them (default %(default)s)"},
    "--batch": {"type": int, "default": 1, "help": "images at a time; 0: left open (default %(default)s)"},
    "--dynamic-size": {"action": "store_true", "help": "leave height and width open"},
    "--nms": {"action": "store_true", "help": "put NMS into the graph (for onnxruntime)"},
    "--preprocess": {"action": "store_true", "help": "take uint8 images (b, h, w, 3)"},
}
BUILD: Options = {
    "onnx": {"type": Path, "metavar": "ONNX"},
    "plan": {"type": Path, "metavar": "PLAN"},
    "--builder": {"choices": MODULES, "help": "default: TensorRT if installed, else TensorRT for RTX"},
    "--profile": {
        "nargs": 3,
        "action": "append",
        "default": [],
        "metavar": "BxHxW",
        "help": "smallest, typical and largest batch and size, for a file where they are open; may be given repeatedly",
    },
    "--workspace": {"type": int, "metavar": "MIB", "help": "GPU memory that kernels may use, in MiB"},
}
BENCHMARK: Options = {
    "files": {"nargs": "*", "type": Path, "metavar": "FILE", "help": "ONNX files and TensorRT plans"},
    **MODEL,
    "--model": MODEL["--model"] | {"required": False},
    "--engines": {"nargs": "+", "choices": ENGINES, "metavar": "ENGINE", "help": f"only these of {ENGINES}"},
    "--image": {"help": "image to detect in (default: noise of 640×480 px)"},
    "--threads": {"type": int, "default": 1, "help": "CPU threads (default %(default)s)"},
    "--rounds": {"type": int, "default": 15, "help": "default %(default)s"},
    **JSON,
    "--plot": {"type": Path, "metavar": "FILE", "help": "also draw them as a waterfall (.png, .svg, .pdf)"},
}


def add_deployment_commands(commands: Any) -> None:
    """Add the four commands to the sub-parsers of the command line."""
    add_command(commands, run_export, "write a model as an ONNX file", MODEL | EXPORT, EXPORT_EXAMPLES)
    add_command(commands, run_build_engine, "build a TensorRT plan from an ONNX file", BUILD, BUILD_EXAMPLES)
    summary = "time a model or exported files side by side"
    add_command(commands, run_benchmark, summary, BENCHMARK, BENCHMARK_EXAMPLES)
    add_command(commands, run_doctor, "say what this machine can do for deployment", {}, DOCTOR_EXAMPLES)


def run_doctor(options: argparse.Namespace) -> None:
    """Print the table."""
    from yolonas_lab.deployment.doctor import doctor

    print(doctor())


def run_export(options: argparse.Namespace) -> None:
    """Quantize and calibrate if asked, export, and say what was written."""
    from yolonas_lab.deployment import export_onnx
    from yolonas_lab.detect import prepare
    from yolonas_lab.quantization import QuantPolicy, calibrate, quantize
    from yolonas_lab.sources import list_items, read_image

    model, policies = load_model(options), {"int8": QuantPolicy.tensorrt(), "int8-cpu": QuantPolicy.cpu()}
    model.image_size = size = input_size(options, model.image_size)
    if (options.kind in policies) != (options.images is not None):
        raise ValueError(f"--kind is {options.kind}: give --images, typical images, for INT8, and only then.")
    if options.kind in policies:
        items = list_items(options.images)[: options.max_images]
        images = (prepare([read_image(item, index).image], size)[0] for index, item in enumerate(items))
        model = calibrate(quantize(model, policies[options.kind]), images, max_images=options.max_images)
    path = export_onnx(
        model,
        options.out,
        precision="float16" if options.kind in ("float16", "int8") else "float32",
        batch=options.batch or None,
        dynamic_size=options.dynamic_size,
        nms=options.nms,
        preprocess=options.preprocess,
    )
    print(f"{path}: {options.model} in {options.kind}, {path.stat().st_size / 1e6:.1f} MB")


def run_build_engine(options: argparse.Namespace) -> None:
    """Build, and print which convolutions compute in which precision."""
    from yolonas_lab.deployment import Profile, build_engine, find_tensorrt

    profiles = []
    for texts in options.profile:
        try:
            profiles.append(Profile(*((b, 3, h, w) for b, h, w in (map(int, text.split("x")) for text in texts))))
        except ValueError as error:
            given = " ".join(texts)
            message = f"--profile is {given}: give three of batch, height and width, as 8x640x640 ({error})."
            raise ValueError(message) from error
    trt = find_tensorrt(MODULES[options.builder] if options.builder else None)
    print(build_engine(options.onnx, options.plan, trt, profiles, options.workspace))


def run_benchmark(options: argparse.Namespace) -> None:
    """Time what is there, and print the table; what is not there is named."""
    from dataclasses import asdict

    import numpy as np
    from matplotlib.figure import Figure

    from yolonas_lab.common import write_json
    from yolonas_lab.deployment import benchmark, plot_waterfall
    from yolonas_lab.sources import read_image

    if options.model is None and not options.files:
        raise ValueError("there is nothing to time: give --model, or exported files.")
    for path, option in ((options.json, "--json"), (options.plot, "--plot")):
        if path:
            check_can_hold(path, option)
    set_threads(options.threads, 0)
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    image = noise if options.image is None else read_image(options.image).image
    with tempfile.TemporaryDirectory() as folder:
        detectors, size = _detectors(options, image, Path(folder))
        result = benchmark(detectors, image, size, rounds=options.rounds)
    print(result)
    if options.json:
        write_json(options.json, asdict(result))
    if options.plot:
        figure = Figure(figsize=(9, 1.5 + 0.45 * len(result.rows)), layout="constrained")
        plot_waterfall(result, figure.subplots())
        figure.savefig(options.plot)


def _detectors(options: argparse.Namespace, image: Any, folder: Path) -> tuple[dict[str, Any], int]:
    """What to time, by name, and at which size."""
    from yolonas_lab.deployment.benchmark import engines_for, file_detector, missing_kinds

    names = [path.name for path in options.files]
    labels = [str(path) if names.count(path.name) > 1 else path.name for path in options.files]
    files = {label: file_detector(path, options.threads) for label, path in zip(labels, options.files)}
    sizes = {detector.image_size for detector in files.values()}
    if len(sizes) > 1:
        raise ValueError(f"the files are for images of {sorted(sizes)} px: compare files of one size.")
    if options.model is None:
        return files, input_size(options, *sizes)
    model = load_model(options, untrained=True)  # times hardly depend on the weights
    size = input_size(options, max(sizes, default=model.image_size))
    missing, kinds = missing_kinds(), options.engines or ENGINES
    for kind in (kind for kind in kinds if kind in missing):
        print(f"{kind} is left out: {missing[kind]}")
    there = [kind for kind in kinds if kind not in missing]
    return files | engines_for(model, image, size, folder, options.threads, there), size
