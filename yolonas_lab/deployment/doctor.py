"""What this machine can do for deployment: CPU instructions, GPU, TensorRT, onnxruntime, OpenVINO, with advice.

`python -m yolonas_lab doctor` prints it. Nothing is measured, changed or installed, and nothing has to be there.
"""

from __future__ import annotations

import platform
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import NamedTuple

from yolonas_lab.common import machine_name
from yolonas_lab.deployment.tensorrt import is_too_old

NOT_FOUND = "not found"
# Instructions that multiply int8 without a detour, in words -> the flags of Linux and torch that stand for them.
INT8_INSTRUCTIONS = {
    "AMX": {"amx_int8"},
    "AVX-512 VNNI": {"avx512_vnni"},
    "AVX VNNI": {"avx_vnni"},
    "dot product (NEON)": {"asimddp"},
}
VECTOR_INSTRUCTIONS = {"AVX-512": {"avx512f", "avx512_f"}, "AVX2": {"avx2"}, "NEON": {"asimd", "neon"}}
# what -> (name, advice where it is missing)
PACKAGES = {
    "tensorrt": (
        "TensorRT",
        "builds and runs engines on a machine with an NVIDIA GPU: pip install 'yolonas-lab[tensorrt]'",
    ),
    "tensorrt_rtx": (
        "TensorRT for RTX",
        "builds engines on machines without a GPU too: pip install 'yolonas-lab[tensorrt-rtx]'",
    ),
    "onnx": ("onnx", "export needs it: pip install onnx onnxscript"),
    "onnxruntime": ("onnxruntime", "runs exports on any machine: pip install onnxruntime"),
    "openvino": ("OpenVINO", "often the fastest INT8 on x86 CPUs: pip install 'yolonas-lab[openvino]'"),
}


class Row(NamedTuple):
    """One line of the table: what was looked for, what was found, and what to do about it ("" for nothing)."""

    about: str
    found: str
    advice: str = ""


def doctor() -> list[Row]:
    """Look at this machine, and return one row for each thing that deployment may use."""
    flags = cpu_flags()
    vector, int8 = (
        [name for name, spellings in instructions.items() if flags & spellings]
        for instructions in (VECTOR_INSTRUCTIONS, INT8_INSTRUCTIONS)
    )
    pays_off = "the CPU export in INT8 should pay off: measure it."
    gains_little = (
        "INT8 gains little here, and sums saturate unless weights keep to 7 bits: export with QuantPolicy.cpu(), "
        "and measure."
    )
    return [
        Row("system", f"{platform.system()} on {platform.machine()}, Python {platform.python_version()}"),
        Row("CPU", f"{machine_name()}; {' and '.join(vector) or 'no vector instructions known'}"),
        Row(
            "INT8 on the CPU",
            ", ".join(int8) or "no VNNI, AMX or dot-product instructions",
            pays_off if int8 else gains_little,
        ),
        _gpu(),
        *map(_package, PACKAGES),
    ]


def table(rows: list[Row]) -> str:
    """The rows as lines of text in two columns, each piece of advice on a line of its own below."""
    width = max(len(row.about) for row in rows)
    lines = []
    for row in rows:
        lines.append(f"{row.about:<{width}}  {row.found}")
        if row.advice:
            lines.append(f"{'':<{width}}    {row.advice}")
    return "\n".join(lines)


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


def _package(module: str) -> Row:
    name, advice = PACKAGES[module]
    if find_spec(module) is None:
        return Row(name, NOT_FOUND, advice)
    if module == "onnxruntime":  # its package has one of several names
        onnxruntime = import_module(module)
        providers = (provider.removesuffix("ExecutionProvider") for provider in onnxruntime.get_available_providers())
        return Row(name, f"{onnxruntime.__version__} for {', '.join(providers)}")
    try:
        version = metadata.version(module)
    except metadata.PackageNotFoundError:  # stubs leave an empty module of that name behind
        return Row(name, NOT_FOUND, advice)
    too_old = "10.12 or newer is needed: pip install --upgrade tensorrt."
    return Row(name, version, too_old if is_too_old(module, version) else "")
