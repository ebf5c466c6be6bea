"""What this machine can do for deployment: CPU instructions, GPU, TensorRT, onnxruntime, OpenVINO, with advice.

`python -m yolonas_lab doctor` prints it. Nothing is measured, changed or installed, and nothing has to be there.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec

from yolonas_lab.common import machine_name
from yolonas_lab.deployment.tensorrt import MODULES, OLDEST

NOT_FOUND = "not found"
# Instructions that multiply int8 without a detour, in words -> the flags of Linux and torch that stand for them.
INT8_INSTRUCTIONS = {
    "AMX": ("amx_int8",),
    "AVX-512 VNNI": ("avx512_vnni",),
    "AVX VNNI": ("avx_vnni",),
    "dot product (NEON)": ("asimddp",),
}
VECTOR_INSTRUCTIONS = {"AVX-512": ("avx512f", "avx512_f"), "AVX2": ("avx2",), "NEON": ("asimd", "neon")}


@dataclass(frozen=True)
class Row:
    """One line of the table: what was looked for, what was found, and what to do about it ("" for nothing)."""

    about: str
    found: str
    advice: str = ""


def doctor() -> list[Row]:
    """Look at this machine, and return one row for each thing that deployment may use."""
    return [_system(), _cpu(), _int8(), _gpu(), *map(_tensorrt, MODULES), _onnx(), _onnxruntime(), _openvino()]


def table(rows: Sequence[Row]) -> str:
    """The rows as lines of text in two columns, each piece of advice on a line of its own below."""
    width = max(len(row.about) for row in rows)
    lines = []
    for row in rows:
        lines.append(f"{row.about:<{width}}  {row.found}")
        if row.advice:
            lines.append(f"{'':<{width}}    {row.advice}")
    return "\n".join(lines)


def _system() -> Row:
    return Row("system", f"{platform.system()} on {platform.machine()}, Python {platform.python_version()}")


def _cpu() -> Row:
    found = _found(VECTOR_INSTRUCTIONS, cpu_flags())
    return Row("CPU", f"{machine_name()}; {' and '.join(found) or 'no vector instructions known'}")


def _int8() -> Row:
    found = _found(INT8_INSTRUCTIONS, cpu_flags())
    if found:
        return Row("INT8 on the CPU", ", ".join(found), "the CPU export in INT8 should pay off: measure it.")
    advice = (
        "INT8 gains little here, and sums saturate unless weights keep to 7 bits: export with QuantPolicy.cpu(), "
        "and measure."
    )
    return Row("INT8 on the CPU", "no VNNI, AMX or dot-product instructions", advice)


def cpu_flags() -> set[str]:
    """Names of the CPU's features, as Linux or else torch spells them; an empty set where neither tells."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = [line for line in file if line.startswith(("flags", "Features"))]
    except OSError:  # not Linux
        lines = []
    if lines:
        return set(lines[0].partition(":")[2].split())
    import torch

    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # newer than the oldest torch we take
    return {name for name, value in capabilities.items() if value is True}


def _found(instructions: dict[str, tuple[str, ...]], flags: set[str]) -> list[str]:
    return [name for name, spellings in instructions.items() if flags.intersection(spellings)]


def _gpu() -> Row:
    import torch

    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        found = f"{torch.cuda.get_device_name()}, compute capability {major}.{minor}, {memory:.0f} GiB"
        return Row("NVIDIA GPU", found)
    if torch.version.cuda is None:
        reason = "this torch is a build without CUDA: on a machine with an NVIDIA GPU install the CUDA one."
    else:
        reason = "torch has CUDA but sees no GPU: check the driver with nvidia-smi."
    return Row("NVIDIA GPU", NOT_FOUND, f"{reason} Plans can be built (TensorRT for RTX), but not run.")


def _tensorrt(module: str) -> Row:
    name = MODULES[module]
    version = _version(module)
    if version is None:
        purpose = {
            "tensorrt": "builds and runs engines on a machine with an NVIDIA GPU",
            "tensorrt_rtx": "builds engines on machines without a GPU too",
        }[module]
        return Row(name, NOT_FOUND, f"{purpose}: pip install 'yolonas-lab[{module.replace('_', '-')}]'")
    numbers = tuple(int(part) for part in version.split(".")[:2])
    if module == "tensorrt" and numbers < OLDEST:
        return Row(name, version, "10.12 or newer is needed: pip install --upgrade tensorrt.")
    return Row(name, version)


def _onnx() -> Row:
    version = _version("onnx")
    return Row("onnx", version) if version else Row("onnx", NOT_FOUND, "export needs it: pip install onnx onnxscript")


def _onnxruntime() -> Row:
    if find_spec("onnxruntime") is None:
        return Row("onnxruntime", NOT_FOUND, "runs exports on any machine: pip install onnxruntime")
    onnxruntime = import_module("onnxruntime")
    names = ", ".join(name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers())
    return Row("onnxruntime", f"{onnxruntime.__version__} for {names}")


def _openvino() -> Row:
    version = _version("openvino")
    if version is None:
        return Row("OpenVINO", NOT_FOUND, "often the fastest INT8 on x86 CPUs: pip install 'yolonas-lab[openvino]'")
    return Row("OpenVINO", version)


def _version(module: str) -> str | None:
    """The installed version of an importable module, None where it is missing or only a namespace of stubs."""
    if find_spec(module) is None:
        return None
    try:
        return metadata.version(module)
    except metadata.PackageNotFoundError:
        return None
