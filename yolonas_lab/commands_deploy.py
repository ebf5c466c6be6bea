"""What the deployment commands do: export, build-engine, benchmark, doctor; `arguments_deploy` says what they take."""

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolonas_lab.commands import load_model

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from yolonas_lab.deployment.plan_input import Profile
    from yolonas_lab.models.yolo_nas import YoloNAS

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
    from yolonas_lab.deployment.plan_input import Profile

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
    from yolonas_lab.deployment.benchmark_engines import engines_for, file_detector
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
    from yolonas_lab.deployment.benchmark_engines import missing_kinds

    reasons = missing_kinds()
    for kind, reason in reasons.items():
        if reason and (wanted is None or kind in wanted):
            print(f"{kind} is left out: {reason}")
    return tuple(kind for kind in wanted or reasons if not reasons[kind])


def _plot(result: Any, path: Path) -> None:
    from matplotlib.figure import Figure

    from yolonas_lab.deployment.benchmark_figure import plot_waterfall

    figure = Figure(figsize=(9, 1.5 + 0.45 * len(result.rows)), layout="constrained")
    plot_waterfall(result, figure.subplots())
    figure.savefig(path)
